"""`preceptor studies show`: readable at both widths, every table, JSON, and a user's own outcomes."""

import io
import json
from dataclasses import asdict
from pathlib import Path

import pytest
from click.testing import CliRunner
from rich.console import Console

from preceptor.cli.app import cli
from preceptor.report import studies as report
from preceptor.studies import average_performance, findings


def shown(*options: str, name: str = "xu2024") -> str:
    result = CliRunner().invoke(cli, ["studies", "show", name, *options])
    assert result.exit_code == 0, result.output
    return result.output


def printed(width: int, number: int) -> list[str]:
    screen = Console(file=io.StringIO(), width=width)
    report.print_table(screen, number)
    report.print_findings(screen, findings())
    assert isinstance(screen.file, io.StringIO)
    return screen.file.getvalue().splitlines()


@pytest.mark.parametrize("width", [80, 120])
@pytest.mark.parametrize("number", range(1, 10))
def test_no_line_is_wider_than_the_terminal_and_no_name_is_cut(width: int, number: int):
    lines = printed(width, number)
    assert max(map(len, lines)) <= width
    text = "\n".join(lines)
    names = {3: "Llama-3.1-Minitron-4B, Worst-of-N", 4: "reward_skywork_27b", 9: "car_skywork_8b"}
    assert names.get(number, "") in text
    if number in (2, 6):
        assert "Qwen2.5-72B-Instruct" in text


def test_the_whole_says_figure_2_and_the_findings():
    text = shown()
    for said in (
        "Figure 2: AP",
        "42 of 115",
        "Holds in 22 of 25.",
        "cannot show",
    ):
        assert said in text


def test_the_best_teacher_of_each_student_is_marked_in_figure_2():
    figure = shown("--table", "7").partition("Figure 2")[2].partition("* the best")[0]
    lines = [line.split() for line in figure.splitlines()]
    marked = {words[0]: [word for word in words if word.endswith("*")] for words in lines if words}
    # Table 7: (5.60 + 5.2) / 2, (10.60 + 10.9) / 2; (12.93 + 12.9) / 2; and so on.
    assert marked["Gemma-2-9b-it"] == ["5.400*", "10.750*"]
    assert marked["Gemma-2-2b-it"] == ["12.915*"]
    assert marked["Qwen2.5-3B-Instruct"] == ["19.795*"]
    assert marked["Qwen2.5-72B-Instruct"] == ["14.985*"]


def test_a_table_shows_only_what_concerns_it():
    text = shown("--table", "9")
    assert "Table 9:" in text
    assert "Table 4" not in text and "Figure 2" not in text
    assert "CAR against its reward alone" in text and "Paradox" not in text


def test_a_printed_number_keeps_its_digits():
    row = next(line for line in shown("--table", "2").splitlines() if "Gemma-2-9b-it" in line)
    assert row.split()[1:] == ["16.09", "13.70", "13.7", "14.90", "14.895"]


def test_there_is_no_tenth_table():
    result = CliRunner().invoke(cli, ["studies", "show", "xu2024", "--table", "10"])
    assert result.exit_code == 2
    assert "1<=x<=9" in result.output


def test_json_holds_every_table_and_finding(tmp_path: Path):
    target = tmp_path / "paper.json"
    shown("--json", str(target))
    content = json.loads(target.read_text(encoding="utf-8"))
    assert sorted(content["tables"]) == [str(number) for number in range(1, 10)]
    assert len(content["tables"]["7"]) == 95
    assert all(one["cases"] for one in content["findings"])
    # Table 2, first row.
    assert content["tables"]["2"][0]["alpaca_lc"] == 16.09


def test_json_of_one_table_on_standard_output_is_nothing_else():
    content = json.loads(shown("--table", "8", "--json", "-"))
    assert list(content["tables"]) == ["8"]
    assert {8} == {number for one in content["findings"] for number in one["tables"]}


def test_the_findings_of_own_outcomes_are_those_of_the_paper_for_its_table_7(tmp_path: Path):
    path = tmp_path / "outcomes.csv"
    rows = [f"{t},{s},{ap}" for s, row in average_performance().items() for t, ap in row.items()]
    path.write_text("\n".join(["teacher,student,score", *rows]), encoding="utf-8")
    held = json.loads(shown("--json", "-", name=str(path)))
    assert list(held) == ["schema_version", "findings"]
    found = {one["name"]: one["cases"] for one in held["findings"]}
    paper = {one.name: [asdict(case) for case in one.cases] for one in findings()}
    assert list(found) == [
        "Larger Models' Paradox: every pair of relatives",
        "Family's help",
        "Its own instruction-tuned version as the teacher",
    ]
    for name, cases in found.items():
        assert [one["where"] for one in cases] == [
            one["where"] for one in paper[name] if one["where"] != "Llama-3.1-8B"
        ]
        assert [one["holds"] for one in cases] == [one["holds"] for one in paper[name]][
            : len(cases)
        ]
    text = shown(name=str(path))
    assert "42 of 115" in text and "Figure 2" not in text and "cannot show" not in text


def test_outcomes_that_cannot_be_compared_say_so(tmp_path: Path):
    path = tmp_path / "outcomes.csv"
    path.write_text("teacher,student,score\nmine,a,1\nother,a,2\n", encoding="utf-8")
    result = CliRunner().invoke(cli, ["studies", "show", str(path)])
    assert result.exit_code == 1 and "say nothing" in result.output
    assert "Nothing to compare" in result.output
    result = CliRunner().invoke(cli, ["studies", "show", str(path), "--table", "2"])
    assert result.exit_code == 2 and "leave it out" in result.output
