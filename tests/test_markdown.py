"""A report in Markdown says what the page says, and no name in it becomes markup."""

import re
from dataclasses import replace

import pytest

from preceptor.report.data import Change
from preceptor.report.leaderboard import leaderboard
from preceptor.report.markdown import inline, markdown
from preceptor.report.wording import number
from small_report import small_ranking_data, small_report

HOSTILE = (
    "<script>alert(1)</script>",
    "[click](https://example.com)",
    "![image](https://example.com/x.png)",
    "**bold** _cursive_ `code`",
    "| another | column |",
    "# heading",
    "- item",
    "1. item",
    "https://example.com and www.example.com",
    "name@example.com",
    "$x^2$",
    "line\nbreak",
    "\u202eright to left",
    "\x00\ud800",
)


def test_it_has_verdict_table_settings_warnings_and_command():
    report = small_report(teachers=4)
    ranking = report.rankings[0].ranking
    text = markdown(report)
    assert f"**{ranking.verdict().text}**" in text
    rows = [line for line in text.split("### Was")[0].splitlines() if line.startswith("|")]
    assert len(rows) == 2 + 4
    assert len({row.count("|") for row in rows}) == 1
    best = ranking.teachers[0]
    estimate = best.estimates["car"]
    assert best.teacher in rows[2]
    assert f"{estimate.value:.3f} [{estimate.low:.3f}, {estimate.high:.3f}]" in rows[2]
    assert "Rewards: skywork-27b." in text
    assert '"n_resamples": 500' in text
    assert "3." in text.split("Warnings:")[1].split("\n\n")[1]
    assert report.command in text
    assert "```toml\n[data]" in text


def test_the_numbers_of_a_column_have_one_form_on_the_page_and_here():
    ranked = small_ranking_data()
    text = markdown(replace(small_report(agreement=False), rankings=(ranked,)))
    head, _, *rows = [
        [cell.strip() for cell in line.strip("|").split("|")]
        for line in text.splitlines()
        if line.startswith("|")
    ]
    board = leaderboard(ranked)
    titles = [heading.title for heading in board.headings]
    for place, title in enumerate(head):
        name = title.split(" ")[0]
        if name not in ranked.ranking.teachers[0].estimates:
            continue
        cells = [row.cells[titles.index(name)] for row in board.rows]
        assert [row[place].split(" ")[0] for row in rows] == [cell.text for cell in cells]
        ends = [end for cell in cells for end in cell.note.split(" to ")]
        decimals = {len(x.partition(".")[2]) for x in [*ends, *(cell.text for cell in cells)]}
        assert len(decimals) == 1, (name, decimals)
        for cell in cells:
            assert abs(float(cell.text) - cell.value) <= 0.5000001 * 10 ** -decimals.copy().pop()
    means = [result.estimates["reward"].value for result in ranked.ranking.teachers]
    assert min(map(abs, means)) < 10 <= max(means)  # each by itself would have digits of its own


def test_it_says_what_would_change_the_answer_and_what_would_not():
    ranked = small_ranking_data()
    changes = (Change("beta 0", "one"), Change("beta 1", "one and two", tie=True))
    report = replace(small_report(), rankings=(replace(ranked, changes=changes),))
    text = markdown(report)
    assert "* beta 0: one wins\n* beta 1: one and two tie\n\n2 other settings" in text
    report = replace(small_report(), rankings=(replace(ranked, changes=()),))
    assert "Nothing that was tried: the same teacher wins under beta 0, " in markdown(report)


def test_agreement_is_told_where_something_was_observed():
    report = replace(small_report(), outcome="the exam | in June")
    assert report.agreement is not None
    told = markdown(report).split("### Was the prediction right?")[1].split("### Make")[0]
    assert "Observed: the exam &#124; in June." in told
    rows = [line for line in told.splitlines() if line.startswith("|")]
    assert len(rows) == 2 + len(report.agreement.means)
    assert {row.count("|") for row in rows} == {6}
    for row, mean in zip(rows[2:], report.agreement.means, strict=True):
        assert f"| {number(mean.rho)} | {number(mean.ends.low)} to " in row
    assert "prediction right" not in markdown(small_report(agreement=False))


def test_every_ranking_has_its_part():
    text = markdown(small_report(students=("one", "two")))
    assert [line for line in text.splitlines() if line.startswith("### Teachers")] == [
        "### Teachers for one",
        "### Teachers for two",
    ]


@pytest.mark.parametrize("name", HOSTILE, ids=range(len(HOSTILE)))
def test_a_name_stays_text(name: str):
    ranked = small_ranking_data(names=(name,))
    report = replace(small_report(agreement=False), rankings=(ranked,), title=name)
    text = markdown(report)
    outside = re.sub(r"```.*?```", "", text, flags=re.DOTALL)
    assert not re.search(r"<(?!/?(details|summary)>)", outside)
    assert not re.search(r"https?://|(?i:www)\.|\w@\w", outside)
    assert not re.search(r"(?<!\\)\[\w+\]\(|(?<!\\)`|(?<!\\)\$", outside)
    rows = [line for line in outside.splitlines() if line.startswith("|")]
    assert len({row.count("|") for row in rows}) == 1
    assert "\u202e" not in outside
    text.encode()


def test_escapes_leave_ordinary_names_readable():
    name = "Qwen2.5-72B-Instruct_v1.0 (greedy)"
    assert inline(name) == name


def test_a_block_of_code_outlasts_every_fence_in_it():
    hostile = "```\n# out\n````"
    text = markdown(replace(small_report(), command=hostile))
    assert "`````\n```\n# out\n````\n`````" in text


def test_a_report_without_reward_says_that_it_is_exploratory():
    text = markdown(small_report(reward=False, agreement=False))
    assert "exploratory" in text
