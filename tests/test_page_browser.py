"""The page in a real browser: it works, it fetches nothing, and nothing that models wrote ever runs."""

import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from page_browser import PATIENCE, browser, explorer_of, needs_frames, seen_whole, watched
from preceptor.report.page import page, published_page
from small_report import small_report

pytestmark = needs_frames

PHONE = {"width": 360, "height": 740}


@pytest.fixture(scope="module")
def chromium() -> Iterator[Any]:
    with browser() as started:
        yield started


@pytest.fixture(scope="module")
def opened(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("page") / "report.html"
    path.write_text(page(small_report()), encoding="utf-8")
    return path


def column(tab: Any, place: int) -> list[str]:
    cells = tab.locator(f"[data-board] tbody tr:visible > :nth-child({place}) > :is(.shown, .name)")
    return cells.all_inner_texts()


@pytest.mark.parametrize("of_the_paper", [False, True])
def test_everything_is_drawn_without_a_request_an_error_or_a_breach_of_policy(
    chromium: Any, opened: Path, tmp_path: Path, of_the_paper: bool
):
    path = tmp_path / "paper.html" if of_the_paper else opened
    if of_the_paper:
        path.write_text(published_page(), encoding="utf-8")
    with watched(chromium, path) as seen:
        seen_whole(seen.page)
        assert seen.page.locator("figure.drawn").count() > 0
        assert seen.faults() == []


@pytest.mark.parametrize(
    ("place", "kind"), [(2, "text"), (3, "number"), (5, "number"), (1, "number")]
)
def test_a_table_sorts_by_a_column_up_and_down(chromium: Any, opened: Path, place: int, kind: str):
    with watched(chromium, opened) as seen:
        heading = seen.page.locator(f"[data-board] thead th:nth-child({place})")
        for _ in range(2):
            heading.get_by_role("button").click()
            order = heading.get_attribute("aria-sort")
            texts = column(seen.page, place)
            keys = [float(t.replace(",", "")) for t in texts] if kind == "number" else texts
            assert keys == sorted(keys, reverse=order == "descending", key=_natural)
            assert seen.page.locator("[data-board] th[aria-sort]").count() == 1
        assert seen.faults() == []


def _natural(key: float | str) -> Any:
    """Sort words as people do: 9 before 27."""
    if not isinstance(key, str):
        return key
    return [int(part) if part.isdigit() else part.lower() for part in re.split(r"(\d+)", key)]


def test_a_table_filters_by_name_and_by_family(chromium: Any, opened: Path):
    with watched(chromium, opened) as seen:
        board = seen.page.locator("[data-board]")
        board.get_by_label("Teacher").fill("gemma")
        assert sorted(column(seen.page, 2)) == ["Gemma-2-27b-it", "Gemma-2-9b-it"]
        assert board.locator("[data-count]").inner_text() == "2 of 6 teachers"
        board.get_by_label("Teacher").fill("")
        board.get_by_label("Family").select_option("Qwen2.5")
        assert sorted(column(seen.page, 2)) == ["Qwen2.5-72B-Instruct", "Qwen2.5-7B-Instruct"]


def test_a_chart_shows_a_tooltip_under_the_pointer(chromium: Any, opened: Path):
    with watched(chromium, opened) as seen:
        seen_whole(seen.page)
        marks = seen.page.locator("figure.drawn svg .mark-symbol path")
        tip = seen.page.locator("#tooltip")
        for place in range(min(12, marks.count())):
            marks.nth(place).scroll_into_view_if_needed()
            marks.nth(place).hover(force=True)
            if tip.is_visible():
                break
        assert tip.is_visible()
        assert tip.inner_text().strip()
        assert seen.faults() == []


def test_a_chart_is_saved_as_a_file(chromium: Any, opened: Path):
    with watched(chromium, opened, accept_downloads=True) as seen:
        figure = seen.page.locator("figure.chart").first
        figure.scroll_into_view_if_needed()
        for kind in ("svg", "png"):
            with seen.page.expect_download() as download:
                figure.locator(f"[data-save={kind}]").click()
            assert download.value.suggested_filename.endswith(f".{kind}")
            start = Path(download.value.path()).read_bytes()[:4]
            assert start == (b"<svg" if kind == "svg" else b"\x89PNG")
        assert seen.faults() == []


def test_the_explorer_turns_filters_and_chooses_teachers(chromium: Any, opened: Path):
    with watched(chromium, opened) as seen:
        part = explorer_of(seen.page)
        position, asked = part.locator("[data-position]"), part.locator(".asked")
        assert position.inner_text() == "1 of 4"
        first = asked.inner_text()
        assert first.startswith("Explain <b>bold</b> & number")
        part.get_by_role("button", name="Next").click()
        assert (position.inner_text(), asked.inner_text() != first) == ("2 of 4", True)
        part.press("n")
        assert position.inner_text() == "3 of 4"
        part.press("p")
        part.press("p")
        assert asked.inner_text() == first
        assert part.locator(".response").count() == 6
        part.get_by_text("Teachers", exact=True).click()
        part.locator("[data-teachers] input").first.uncheck()
        assert part.locator(".response").count() == 5
        part.get_by_label("Text").fill("no such words")
        part.get_by_text("none found").wait_for()
        part.get_by_label("Text").fill("")
        category = part.get_by_label("Category").locator("option").nth(1).inner_text()
        part.get_by_label("Category").select_option(category)
        assert category in part.locator("[data-example] .muted").first.inner_text()
        assert seen.faults() == []


def test_token_nll_is_read_with_the_keyboard_and_shown_by_more_than_colour(
    chromium: Any, opened: Path
):
    with watched(chromium, opened) as seen:
        part = explorer_of(seen.page)
        block = part.locator(".text:has(span)").first
        block.focus()
        block.press("ArrowRight")
        readout = part.locator(".readout").first
        assert readout.inner_text().startswith("“Bold”: ")
        assert readout.inner_text().endswith(" nats")
        assert block.locator("span.current").get_attribute("title").endswith(" nats")
        block.press("ArrowRight")
        assert readout.inner_text().startswith("“ text”: ")
        assert block.locator(".context").inner_text() == "<user>\nExplain.\n<assistant>\n"
        for _ in range(8):
            block.press("ArrowRight")
        assert readout.inner_text().startswith("“!”: cut at the maximum length, not counted, ")
        assert "line-through" in block.locator(".cut").evaluate(
            "element => getComputedStyle(element).textDecorationLine"
        )
        high = part.locator(".text .s3, .text .s4").first
        assert "underline" in high.evaluate(
            "element => getComputedStyle(element).textDecorationLine"
        )


def test_dark_is_a_button_and_follows_the_system(chromium: Any, opened: Path):
    paper = "getComputedStyle(document.documentElement).backgroundColor"
    with watched(chromium, opened, color_scheme="light") as seen:
        seen_whole(seen.page)
        light = seen.page.evaluate(paper)
        button = seen.page.locator("button.theme")
        button.click()
        assert button.get_attribute("aria-pressed") == "true"
        dark = seen.page.evaluate(paper)
        assert dark != light
        seen_whole(seen.page)
        assert seen.faults() == []
    with watched(chromium, opened, color_scheme="dark") as seen:
        assert seen.page.evaluate(paper) == dark


def test_print_shows_all_charts_tables_and_details_without_controls(chromium: Any, opened: Path):
    with watched(chromium, opened, color_scheme="dark") as seen:
        tab = seen.page
        charts = tab.locator("figure.chart").count()
        tab.evaluate("dispatchEvent(new Event('beforeprint'))")
        tab.emulate_media(media="print", color_scheme="dark")
        tab.locator("figure.drawn svg.marks").nth(charts - 1).wait_for(state="attached")
        assert tab.locator("details:not([open])").count() == 0
        assert not tab.locator(".controls, .theme, .saves").first.is_visible()
        assert tab.locator(".response").count() == 6
        overflow = tab.locator(".scroll").first.evaluate("e => getComputedStyle(e).overflow")
        assert overflow == "visible"
        assert tab.evaluate("getComputedStyle(document.documentElement).backgroundColor") in (
            "rgb(255, 255, 255)", "rgba(0, 0, 0, 0)",
        )  # fmt: skip
        assert len(tab.pdf()) > 10_000
        assert seen.faults() == []


def test_printing_makes_no_explorer_twice(chromium: Any, opened: Path):
    with watched(chromium, opened) as seen:
        part = explorer_of(seen.page)
        part.get_by_label("Text").fill("no such words")
        part.get_by_text("none found").wait_for()
        seen.page.evaluate("dispatchEvent(new Event('beforeprint'))")
        assert part.locator("[data-teachers] input").count() == 6


def test_how_to_read_token_nlls_stands_only_where_there_are_some(chromium: Any, tmp_path: Path):
    report = small_report(agreement=False)
    (ranked,) = report.rankings
    examples = tuple(
        replace(one, answers=tuple(replace(answer, tokens=()) for answer in one.answers))
        for one in ranked.examples
    )
    path = tmp_path / "plain.html"
    bare = replace(report, rankings=(replace(ranked, examples=examples),))
    for shown, what in ((True, report), (False, bare)):
        path.write_text(page(what), encoding="utf-8")
        with watched(chromium, path) as seen:
            part = explorer_of(seen.page)
            assert part.locator("[data-legend]").is_visible() is shown
            assert part.get_by_text("Point at a token").is_visible() is shown
            assert part.get_by_text("No numbers of single tokens are stored").count() == 1 - shown


def test_a_phone_scrolls_tables_within_themselves_and_keeps_the_teacher(
    chromium: Any, opened: Path
):
    with watched(chromium, opened, viewport=PHONE, has_touch=True) as seen:
        seen_whole(seen.page)
        assert seen.page.evaluate("document.documentElement.scrollWidth") <= PHONE["width"]
        scroll = seen.page.locator("[data-board] .scroll")
        scroll.evaluate("element => element.scrollTo(400, 0)")
        name = seen.page.locator("[data-board] tbody th").first
        box, frame = name.bounding_box(), scroll.bounding_box()
        assert box is not None and frame is not None
        assert abs(box["x"] - frame["x"]) < 2
        assert box["width"] < PHONE["width"] / 2
        assert seen.faults() == []


def test_without_scripts_verdict_and_leaderboard_are_there(chromium: Any, opened: Path):
    started = chromium.new_context(java_script_enabled=False)
    tab = started.new_page()
    tab.set_default_timeout(PATIENCE)
    tab.goto(opened.as_uri())
    ranking = small_report().rankings[0].ranking
    assert ranking.verdict().text in tab.locator("main").inner_text()
    assert tab.locator("[data-board] tbody tr").count() == 6
    assert not tab.locator(".controls").first.is_visible()
    assert tab.get_by_text("needs JavaScript").is_visible()
    started.close()


def test_of_several_rankings_one_is_shown_at_a_time(chromium: Any, tmp_path: Path):
    path = tmp_path / "many.html"
    path.write_text(page(small_report(students=("first", "second"))), encoding="utf-8")
    with watched(chromium, path) as seen:
        shown = seen.page.locator("section.ranking:visible")
        assert shown.count() == 1
        assert shown.get_attribute("id") == "ranking-1"
        seen.page.locator(".tabs a").nth(1).click()
        seen.page.locator("#ranking-2:not(.away)").wait_for()
        assert shown.get_attribute("id") == "ranking-2"
        seen_whole_of_one = seen.page.locator("section.ranking:visible figure.chart")
        assert seen_whole_of_one.count() > 0
        assert seen.faults() == []


def test_text_has_enough_contrast_in_both_palettes(chromium: Any, opened: Path):
    for scheme in ("light", "dark"):
        with watched(chromium, opened, color_scheme=scheme) as seen:
            explorer_of(seen.page)
            worst = seen.page.evaluate(CONTRAST)
            assert min(worst.values()) >= 4.5, worst


CONTRAST = """() => {
  const luminance = (colour) => {
    const [r, g, b] = colour.match(/[\\d.]+/g).slice(0, 3).map((part) => {
      const c = Number(part) / 255;
      return c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4;
    });
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const ground = (element) => {
    for (let e = element; e; e = e.parentElement) {
      const colour = getComputedStyle(e).backgroundColor;
      if (!colour.endsWith(", 0)") && colour !== "transparent") return colour;
    }
    return "rgb(255, 255, 255)";
  };
  const found = {};
  const chosen = ".verdict, .verdict .name, .muted, small, th, td, a, button, figcaption, summary, dt, dd, " +
    ".legend span, .warnings h4, .asked, pre, label, output";
  for (const element of document.querySelectorAll(chosen)) {
    if (!element.checkVisibility()) continue;
    const a = luminance(getComputedStyle(element).color);
    const b = luminance(ground(element));
    const ratio = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
    const name = element.tagName + "." + element.className;
    found[name] = Math.min(found[name] ?? 99, ratio);
  }
  return found;
}"""
