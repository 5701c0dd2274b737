"""A report as a card of the Hub: its own library reads it, and nothing in a name reaches the YAML or HTML."""

import re
from dataclasses import replace

import pytest
from huggingface_hub import DatasetCard

from preceptor.report.hub_card import hub_card
from preceptor.report.markdown import markdown
from small_report import small_ranking_data, small_report


def test_the_hub_s_own_library_reads_it_and_the_report_follows():
    report = small_report(teachers=4)
    card = DatasetCard(hub_card(report))
    tags = ["leaderboard", "teacher-selection", "preceptor"]
    assert card.data.to_dict() == {"pretty_name": report.title, "tags": tags}
    assert card.text.strip() == markdown(report).strip()
    ranking = report.rankings[0].ranking
    assert f"**{ranking.verdict().text}**" in card.text
    assert '"n_resamples": 500' in card.text
    best = ranking.teachers[0]
    (line,) = (line for line in card.text.splitlines() if line.startswith(f"| 1 | {best.teacher}"))
    car = best.estimates["car"]
    assert f"{car.value:.3f} [{car.low:.3f}, {car.high:.3f}]" in line


@pytest.mark.parametrize(
    "text",
    [
        "x\n---\nlicense: mit\n---\n# Owned",
        "---",
        "'\": {}, [1, & * ! % @ `",
        "<script>alert(1)</script>",
        "\u2028---\u2028 \u202ereversed \x85 \x7f \ud800",
        "| a | b |",
    ],
)
def test_no_name_breaks_out_of_its_place(text: str):
    ranked = small_ranking_data(names=(text,))
    card = hub_card(replace(small_report(agreement=False), rankings=(ranked,), title=text))
    card.encode()
    read = DatasetCard(card)
    assert set(read.data.to_dict()) == {"pretty_name", "tags"}
    shown = " ".join("".join(c if c.isprintable() else " " for c in text).split())
    assert read.data.pretty_name == shown
    body = re.sub(r"```.*?```", "", read.text, flags=re.DOTALL)
    assert not re.search(r"<(?!/?(details|summary)>)", body)
    assert not re.search(r"^(---|# )", body, re.MULTILINE)
