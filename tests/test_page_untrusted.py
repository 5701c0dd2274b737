"""Nothing that models or data wrote ever runs in the page, wherever it stands, and all of it is shown."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from page_browser import browser, explorer_of, needs_frames, seen_whole, watched
from preceptor.report.data import Answer, Change, Example, Report, ShownToken
from preceptor.report.page import page
from preceptor.report.wording import visible
from preceptor.types import Warning
from small_report import small_ranking_data


@pytest.fixture(scope="module")
def chromium() -> Iterator[Any]:
    with browser() as started:
        yield started


FIRE = "window.__fired=1"
PAYLOADS = (
    f"<script>{FIRE}</script>",
    f"</script><script>{FIRE}</script>",
    f"<!--<script>{FIRE}</script>",
    f"--><script>{FIRE}</script>",
    f"<img src=x onerror={FIRE}>",
    f"<svg onload={FIRE}>",
    f"<svg><script>{FIRE}</script></svg>",
    f"<body onload={FIRE}>",
    "<iframe srcdoc='<script>parent.__fired=1</script>'></iframe>",
    f"<a href='javascript:{FIRE}'>go</a>",
    f"javascript:{FIRE}",
    f"data:text/html,<script>{FIRE}</script>",
    f"<details open ontoggle={FIRE}>",
    f"<input autofocus onfocus={FIRE}>",
    "<style>@import 'https://example.com/x.css';</style>",
    "<link rel=stylesheet href=https://example.com/x.css>",
    "<meta http-equiv=refresh content='0;url=https://example.com'>",
    "<base href=https://example.com/>",
    "<form action=https://example.com><button>go</button></form>",
    f"<math><mtext><table><mglyph><style><img src=x onerror={FIRE}>",
    f"\"><script>{FIRE}</script>",
    f"' onmouseover='{FIRE}",
    f"`${{{FIRE}}}`",
    "{{7*7}}{% raw %}{{ self }}",
    f"{{{{constructor.constructor('{FIRE}')()}}}}",
    f"</style><script>{FIRE}</script>",
    f"</textarea></title><script>{FIRE}</script>",
    f"line\u2028{FIRE}\u2029//",
    "\u202eright to left\u202c \u200f marks",
    f"null\x00<scr\x00ipt>{FIRE}</scr\x00ipt>",
    "lone \ud800 surrogate \udc00",
    f"]]>{FIRE}//\\\\\\u003cscript>",
    f"<template><script>{FIRE}</script></template>",
    f"datum.x + {FIRE}",
    "&lt;script&gt; &amp; &#39;",
    f"<script>{FIRE}</script>" + "x" * 200_000,
)  # fmt: skip


NEVER = "iframe, img, form:not(.vega-bindings), style, meta, base, link, template, math, mtext"
GROUPS = tuple(PAYLOADS[start : start + 12] for start in range(0, len(PAYLOADS), 12))


def hostile(payloads: Sequence[str]) -> Report:
    """Return a report in which the payloads stand wherever data or models write."""
    together = "\n".join(payloads)
    ranked = small_ranking_data(teachers=len(payloads), names=payloads, student=together)
    names = [result.teacher for result in ranked.ranking.teachers]
    ranking = replace(
        ranked.ranking,
        warnings=tuple(Warning("copies", payload) for payload in payloads),
        categories=tuple(
            replace(one, name=payload)
            for one, payload in zip(ranked.ranking.categories, payloads, strict=False)
        ),
        settings={"reward": together, together: together, "nested": {together: [together]}},
    )
    changed = replace(
        ranked,
        ranking=ranking,
        families=dict(zip(names, payloads, strict=True)),
        changes=tuple(Change(payload, payload) for payload in payloads),
        tried=tuple(payloads),
        examples=tuple(_example(payload, names) for payload in payloads),
    )
    return Report(
        rankings=(changed,),
        title=together,
        command=together,
        study_file=together,
        versions={together: together},
        outcome=together,
    )


def _example(payload: str, names: Sequence[str]) -> Example:
    tokens = tuple(ShownToken(1, piece, "answer", 3.0) for piece in (payload[:5], payload[5:]))
    scores = {"reward": 1.0, payload[:99]: 2.0}
    answers = [Answer(name, payload, scores, tokens, context=payload) for name in names]
    answers[-1] = Answer(names[-1], None, {}, note=payload)
    return Example(payload, payload, 1.0, tuple(answers))


@needs_frames
@pytest.mark.parametrize("group", range(len(GROUPS)))
def test_nothing_that_data_say_runs_and_all_of_it_is_shown(
    chromium: Any, tmp_path: Path, group: int
):
    payloads = GROUPS[group]
    path = tmp_path / "hostile.html"
    path.write_text(page(hostile(payloads)), encoding="utf-8")
    with watched(chromium, path) as seen:
        tab = seen.page
        seen_whole(tab)
        together = visible("\n".join(payloads))
        for where in ("h1", ".copied pre"):
            assert tab.locator(where).first.evaluate("one => one.textContent") == together
        for where in (".warnings li", "[data-board] tbody .name", ".answer li .name"):
            texts = tab.locator(where).evaluate_all("all => all.map((one) => one.textContent)")
            assert {visible(payload) for payload in payloads} <= set(texts), where
        mark = tab.locator("figure.drawn svg .mark-symbol path").first
        mark.scroll_into_view_if_needed()
        mark.hover(force=True)
        assert tab.locator(f"#tooltip :is({NEVER}, script)").count() == 0
        tab.locator("[data-board] thead button").nth(1).click()
        explorer = explorer_of(tab)
        for payload in payloads:
            # A response stands behind its context, and both are hostile here.
            for where, text in ((".asked", payload), (".responses .text", 2 * payload)):
                assert tab.evaluate(VERBATIM, [where, json.dumps(text)]), (where, payload[:80])
            explorer.locator(".text span").first.hover()
            explorer.locator("[data-step='1']").press("n")
        tab.evaluate("document.querySelectorAll('details').forEach((one) => (one.open = true))")
        tab.wait_for_timeout(50)
        assert seen.faults() == []
        assert tab.title().split() == together.split()
        assert tab.locator(f"main :is({NEVER})").count() == 0


VERBATIM = "([where, json]) => document.querySelector(where).textContent === JSON.parse(json)"
"""JSON, because the browser's driver replaces lone surrogates in plain text."""
