"""The page is one file that fetches nothing and allows its own scripts alone; texts stay texts."""

import base64
import json
import re
import sys
from dataclasses import replace
from hashlib import sha256
from html.parser import HTMLParser
from itertools import pairwise

import numpy as np
import pytest

from preceptor.ranking.verdict import Claim
from preceptor.report import page as page_module
from preceptor.report.data import Answer, Change, Example, RankingData, Report, ShownToken
from preceptor.report.explorer import explorers
from preceptor.report.leaderboard import leaderboard
from preceptor.report.page import page, published_page
from preceptor.report.sections import brief, settings_of
from preceptor.report.wording import chance, island, named, number, ordinal, visible
from preceptor.types import Estimate
from small_report import small_ranking_data, small_report


class Tags(HTMLParser):
    """Collects tags, their attributes, scripts, and the text outside them."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.scripts: list[tuple[dict[str, str | None], str]] = []
        self.text = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += attrs
        if tag in ("script", "style"):
            self.scripts.append((dict(attrs), ""))

    def handle_data(self, data: str) -> None:
        if self.cdata_elem:
            self.scripts[-1] = (self.scripts[-1][0], self.scripts[-1][1] + data)
        else:
            self.text += data


def parsed(text: str) -> Tags:
    tags = Tags()
    tags.feed(text)
    tags.close()
    return tags


@pytest.fixture(scope="module")
def plain_page() -> str:
    return page(small_report())


def test_the_best_teacher_of_each_category_is_told(plain_page: str):
    text = parsed(plain_page).text
    assert "Best teacher by category" in text
    for category in small_ranking_data().ranking.categories:
        assert f"{category.name} (n {category.n}): " in text


@pytest.fixture
def no_charts(monkeypatch: pytest.MonkeyPatch) -> None:
    """No packages for charts, which are what makes a page slow to write."""
    for name in ("altair", "vl_convert"):
        monkeypatch.setitem(sys.modules, name, None)


def one(ranked: RankingData) -> Report:
    return replace(small_report(agreement=False), rankings=(ranked,))


def test_nothing_in_the_page_is_from_elsewhere(plain_page: str):
    tags = parsed(plain_page)
    assert {"link", "img", "iframe", "object", "embed", "base", "form"}.isdisjoint(tags.tags)
    names = {name for name, _ in tags.attributes}
    assert "src" not in names
    assert not any(name.startswith("on") or name == "style" for name in names)
    links = [value for name, value in tags.attributes if name == "href"]
    assert all(link and link.startswith("#") for link in links)


def test_the_policy_allows_exactly_the_scripts_and_the_style_that_are_there(plain_page: str):
    policy = re.search(r'Content-Security-Policy" content="([^"]*)"', plain_page)
    assert policy is not None
    rules = dict(rule.strip().split(" ", 1) for rule in policy[1].replace("&#39;", "'").split(";"))
    assert rules["default-src"] == rules["base-uri"] == rules["form-action"] == "'none'"
    assert "unsafe" not in policy[1]
    hashes = {
        "'sha256-" + base64.b64encode(sha256(body.encode()).digest()).decode() + "'"
        for attributes, body in parsed(plain_page).scripts
        if attributes.get("type") != "application/json"
    }
    assert set(f"{rules['script-src']} {rules['style-src']}".split()) == hashes


def test_it_opens_with_the_verdict_before_any_table(plain_page: str):
    text = parsed(plain_page).text
    ranked = small_report().rankings[0]
    ranking = ranked.ranking
    assert ranking.verdict().text in text
    assert text.index(ranking.verdict().text) < text.index("Leaderboard")
    order = [
        "How sure",
        "Leaderboard",
        "What they wrote",
        "How this ranking was made",
        "Make it again",
    ]
    assert [text.index(title) for title in order] == sorted(text.index(title) for title in order)
    assert f"beta 0: {ranked.changes[0].winner} wins" in text
    assert "skywork-27b" in text
    assert "tokens per response" in text


def test_headings_follow_one_another_without_a_gap(plain_page: str):
    levels = [int(tag[1]) for tag in parsed(plain_page).tags if re.fullmatch("h[1-6]", tag)]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(below - above <= 1 for above, below in pairwise(levels))


def test_ids_are_unique_and_every_link_and_label_has_its_target():
    tags = parsed(page(small_report(students=("one", "two"))))
    ids = [value for name, value in tags.attributes if name == "id"]
    assert len(ids) == len(set(ids))
    targets = [v[1:] for k, v in tags.attributes if k == "href" and v]
    targets += [v for k, v in tags.attributes if k in ("aria-labelledby", "aria-describedby") and v]
    assert set(targets) <= set(ids)


def test_several_rankings_begin_with_an_overview_and_each_has_its_part(no_charts: None):
    report = small_report(students=("first student", "second student"))
    text = parsed(page(report)).text
    assert text.index("All answers") < text.index("Teachers for first student")
    for ranked in report.rankings:
        assert ranked.ranking.verdict().text in text
        claim = ranked.ranking.verdict().claim
        assert claim is Claim.FIRST or claim.replace("_", " ") in text


def test_the_leaderboard_has_every_metric_and_the_values_behind_its_words():
    ranked = small_ranking_data()
    board = leaderboard(ranked)
    titles = [heading.title for heading in board.headings]
    assert titles[:4] == ["rank", "teacher", "car", "P(first)"]
    assert set(ranked.ranking.metrics) - {"likelihood"} <= set(titles)
    first, best = board.rows[0], ranked.ranking.teachers[0]
    assert first.cells[titles.index("reward")].value == best.estimates["reward"].value
    assert [row.cells[0].value for row in board.rows] == [1, 2, 3, 4, 5, 6]
    assert dict(zip(titles, (h.better for h in board.headings), strict=True))["loss"] == "lower"
    cut = next(row for row in board.rows if row.cells[titles.index("truncated")].value)
    assert cut.cells[titles.index("truncated")].note == "1.0%"
    assert board.families == ("Gemma 2", "Llama 3.1", "Qwen2.5")


def test_bars_lie_on_one_scale_within_their_width():
    bars = [row.cells[2].bar for row in leaderboard(small_ranking_data()).rows]
    assert all(bar and 0 < bar.low <= bar.value <= bar.high < 132 for bar in bars)
    assert bars[0] and bars[-1] and bars[0].value > bars[-1].value


def test_no_data_is_a_dash_and_sorts_as_nothing(no_charts: None):
    ranked = small_ranking_data()
    result = ranked.ranking.teachers[0]
    estimates = {
        **result.estimates,
        "reward": Estimate(float("nan"), float("nan"), float("nan"), 0),
    }
    ranking = replace(
        ranked.ranking, teachers=(replace(result, estimates=estimates),), categories=()
    )
    bare = replace(
        ranked,
        ranking=ranking,
        tokens={},
        sizes={},
        families={},
        sweep=None,
        distributions=(),
    )
    board = leaderboard(bare)
    cells = dict(zip((h.title for h in board.headings), board.rows[0].cells, strict=True))
    for name in ("reward", "tokens", "size", "family", "leader better"):
        assert (cells[name].text, cells[name].value) == ("–", None)  # noqa: RUF001
    assert "only teacher" in page(one(bare))


def test_why_gives_the_leaders_measures_with_their_places():
    ranked = small_ranking_data()
    values = [result.estimates["reward"].value for result in ranked.ranking.teachers]
    reasons = brief(ranked).why
    assert values[0] == max(values)
    assert reasons[0] == f"Mean reward {number(values[0])}, highest of 6"
    assert "nats per token" in reasons[1]


def test_settings_that_change_nothing_are_named():
    ranked = replace(small_ranking_data(), changes=(), tried=("beta 0", "common length"))
    assert brief(ranked).unchanged.endswith("wins under beta 0, common length.")
    changed = replace(ranked, changes=(Change("beta 0", "other"),))
    assert brief(changed).unchanged == "The one other setting that was tried keeps the winner."
    more = replace(changed, tried=("beta 0", "beta 1", "common length"))
    assert brief(more).unchanged == "2 other settings that were tried keep the winner."
    assert brief(replace(ranked, tried=())).unchanged == "No other settings were tried."


def test_the_leader_and_not_the_student_stands_out_in_an_unclear_verdict(no_charts: None):
    ranked = small_ranking_data()
    first, *rest = ranked.ranking.teachers
    doubtful = replace(first, p_rank=(0.4, *first.p_rank[1:]))
    ranking = replace(ranked.ranking, teachers=(doubtful, *rest))
    text = page(one(replace(ranked, ranking=ranking)))
    assert "No clear winner by car for" in text
    assert set(re.findall(r'<bdi class="name leader">(.*?)</bdi>', text)) == {first.teacher}


def test_a_tie_is_not_told_as_a_win(no_charts: None):
    change = Change("beta 0", "one and two", tie=True)
    text = parsed(page(one(replace(small_ranking_data(), changes=(change,))))).text
    assert "beta 0: one and two tie" in text


def test_texts_of_two_rankings_are_carried_once():
    ranked = small_ranking_data()
    found, texts = explorers([ranked, ranked])
    carried = json.loads(texts.data())
    assert len(carried) == len(set(carried))
    assert found[0].data == found[1].data
    first = json.loads(found[0].data)["examples"][0]
    assert carried[first["instruction"]] == ranked.examples[0].instruction


def test_tokens_come_back_from_their_lengths_beyond_the_basic_plane():
    pieces = (
        ShownToken(1, "a", "reasoning", 0.26, 1),
        ShownToken(2, "\U0001f600b", "answer", 12.0, 431),
        ShownToken(3, "é", "cut"),
    )
    text = "".join(piece.text for piece in pieces)
    ranked = small_ranking_data()
    name = ranked.ranking.teachers[0].teacher
    example = Example("question", None, 1.0, (Answer(name, text, {}, pieces, context="Q: "),))
    found, texts = explorers([replace(ranked, examples=(example,))])
    answer = json.loads(found[0].data)["examples"][0]["answers"][0]
    assert answer["lengths"] == [1, 3, 1]
    assert sum(answer["lengths"]) == len(text.encode("utf-16-le")) // 2
    assert answer["nll"] == [3, 120, None]
    assert answer["ranks"] == [1, 431, None]
    assert answer["roles"] == [["reasoning", 1], ["answer", 1], ["cut", 1]]
    carried = json.loads(texts.data())
    assert (carried[answer["read"]], carried[answer["context"]]) == (text, "Q: ")


def large_report() -> Report:
    """20 teachers, 1,000 instructions, 60 examples of 4,000 characters each with tokens."""
    rng = np.random.default_rng(0)
    ranked = small_ranking_data(20)
    names = [result.teacher for result in ranked.ranking.teachers]

    def answer(name: str) -> Answer:
        letters = rng.integers(97, 123, size=(1000, 4)).astype(np.uint8)
        pieces = [bytes(row).decode() for row in letters]
        losses = rng.gamma(1.0, 2.0, size=1000).tolist()
        tokens = tuple(
            ShownToken(1, piece, "answer", loss, 99)
            for piece, loss in zip(pieces, losses, strict=True)
        )
        return Answer(name, "".join(pieces), {"reward": 1.0, "loss": 2.0}, tokens, 500)

    examples = tuple(
        Example(f"instruction {k}", "Math", 1.0, tuple(map(answer, names))) for k in range(60)
    )
    return one(replace(ranked, examples=examples, examples_of=1000))


def test_a_large_report_stays_under_eight_megabytes_and_says_how_much_it_shows():
    text = page(large_report())
    assert len(text.encode()) < 8_000_000
    shown = re.search(r"(\d+) of 1,000 instructions are shown", text)
    assert shown is not None and int(shown[1]) > 20
    data = next(
        body for attributes, body in parsed(text).scripts if attributes.get("class") == "examples"
    )
    assert len(json.loads(data)["examples"]) == int(shown[1])


def test_a_page_without_the_chart_packages_says_how_to_get_them(no_charts: None):
    text = page(small_report())
    assert "<figure" not in text
    assert "vegaEmbed" not in text
    assert (
        "pip install &#34;preceptor[report]&#34;" in text or 'install "preceptor[report]"' in text
    )
    assert small_report().rankings[0].ranking.verdict().text in parsed(text).text


def test_a_page_without_examples_has_no_explorer(no_charts: None):
    text = page(one(replace(small_ranking_data(), examples=())))
    assert '<section class="explorer"' not in text


def test_the_papers_page_has_charts_and_their_words():
    text = published_page()
    assert text.count('<figure class="chart"') >= 1
    assert "Xu et al." in text


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("a\x00b", "a\u2400b"),
        ("a\x1b[0m", "a\u241b[0m"),
        ("\ud800", "\ufffd"),
        ("a\r\nb\tc", "a\nb\tc"),
        ("\u202e\u2028", "\u202e\u2028"),
    ],
)
def test_what_html_cannot_hold_is_made_visible(text: str, shown: str):
    assert visible(text) == shown


def test_json_in_a_script_is_read_back_as_it_was_and_cannot_end_it():
    value = ["</script><!--<script>", "\u2028\u2029", "\ud800", "\x00", float("nan"), np.float64(1)]
    text = island(value)
    assert "<" not in text
    text.encode()
    assert json.loads(text) == [*value[:4], None, 1.0]


def test_names_are_told_apart_from_the_words_around_them():
    pieces = named("A is better than A B.", ["A", "A B"])
    assert [(piece.text, piece.name) for piece in pieces] == [
        ("A", True), (" is better than ", False), ("A B", True), (".", False)
    ]  # fmt: skip


def test_numbers_and_chances_read_alike_everywhere():
    shown = [number(x) for x in (None, 0.12345, 12.345, 123.45, 12345.6, 1e-9, float("nan"))]
    assert shown == ["–", "0.123", "12.35", "123.5", "12,346", "1.00e-09", "–"]  # noqa: RUF001
    assert [chance(x) for x in (1.0, 0.5, 0.0, None)] == ["over 99%", "50%", "under 1%", "–"]  # noqa: RUF001
    assert [ordinal(x) for x in (1, 2, 3, 4, 11, 22)] == [
        "1st",
        "2nd",
        "3rd",
        "4th",
        "11th",
        "22nd",
    ]


def test_settings_that_are_unset_are_left_out_and_nested_ones_are_blocks():
    found = settings_of({"reward": "x", "limit": None, "spec": {"a": 1}, "empty": []})
    assert [(one.name, one.block) for one in found] == [("reward", False), ("spec", True)]


def test_scripts_that_hold_an_end_of_a_script_are_made_safe():
    assert page_module._closed("a='</script><!--'") == "a='<\\/script><\\!--'"
