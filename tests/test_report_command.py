"""`preceptor report`: from a study file to files, paying for nothing, and the page beside a ranking."""

import shlex
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from preceptor.cli.app import cli
from preceptor.cli.output import keep_command, typed_command
from small_study import preceptor, shards, write_teachers

pytestmark = pytest.mark.usefixtures("private_cache")


@pytest.fixture
def study(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A study of three teachers by their rewards, in a folder that is the working directory."""
    monkeypatch.chdir(tmp_path)
    write_teachers(tmp_path / "data", teachers=3, instructions=6)
    path = tmp_path / "study.toml"
    path.write_text(
        'no_student = true\n[data]\nresponses = "data"\n[data.columns]\nnumber_columns = ["reward"]\n'
        '[reward]\nkind = "column"\ncolumn = "reward"\n[runtime]\ndevice = "cpu"\n',
        encoding="utf-8",
    )
    for file in sorted((tmp_path / "data").iterdir()):
        rows = file.read_text(encoding="utf-8").replace("{", '{"model": "' + file.stem + '", ')
        file.write_text(rows, encoding="utf-8")
    return path


def test_a_report_of_what_is_not_scored_says_what_to_run_and_writes_nothing(study: Path):
    result = preceptor("report", study)
    assert result.exit_code == 1
    assert "18 scores: length" in result.output
    assert "preceptor run" in result.output
    assert not Path("report.html").exists()
    assert not shards(Path(".preceptor"))


def test_a_scored_study_becomes_a_page_markdown_and_charts(study: Path):
    assert preceptor("run", study).exit_code == 0
    before = shards(Path(".preceptor"))
    result = preceptor(
        "report", study, "--markdown", "report.md", "--charts", "charts", "--card", "README.md"
    )
    assert result.exit_code == 0, result.output
    page = Path("report.html").read_text(encoding="utf-8")
    assert page.lower().startswith("<!doctype html>")
    for teacher in ("alpha", "beta", "gamma"):
        assert teacher in page
    report = Path("report.md").read_text(encoding="utf-8")
    assert report.startswith("#")
    card = Path("README.md").read_text(encoding="utf-8")
    assert card.startswith("---\npretty_name:") and card.endswith(f"---\n\n{report}")
    assert Path("charts").is_dir()
    assert shards(Path(".preceptor")) == before


def test_charts_where_no_folder_can_be_are_refused_in_words(study: Path):
    assert preceptor("run", study).exit_code == 0
    Path("taken").write_text("a file", encoding="utf-8")
    result = preceptor("report", study, "--charts", "taken")
    assert result.exit_code == 1
    assert "Cannot write to 'taken'" in result.output


def test_a_page_may_go_to_standard_output(study: Path):
    assert preceptor("run", study).exit_code == 0
    result = preceptor("report", study, "--html", "-")
    assert result.stdout.lower().startswith("<!doctype html>")
    assert not Path("report.html").exists()


def test_outcomes_are_compared_on_request(study: Path):
    assert preceptor("run", study).exit_code == 0
    Path("observed.csv").write_text(
        "teacher,student,AP\nalpha,any student,3\nbeta,any student,2\ngamma,any student,1\n",
        encoding="utf-8",
    )
    assert preceptor("report", study, "--observed", "observed.csv").exit_code == 0
    # None of the paper's teachers is among these.
    result = preceptor("report", study, "--observed", "xu2024", "--html", "other.html")
    assert result.exit_code == 1
    assert "3 are needed" in result.output
    assert not Path("other.html").exists()


def test_contradictions_and_a_missing_study_are_refused(study: Path):
    for words in (
        [],
        ["--observed", "xu2024", "--charts", "charts"],
        ["--observed", "xu2024", "--card", "README.md"],
    ):
        result = preceptor("report", *words)
        assert result.exit_code == 2, words
    result = preceptor("report", "nothing.toml")
    assert result.exit_code == 1
    assert "Cannot read 'nothing.toml'" in result.output
    assert "preceptor init" in result.output


def test_the_paper_s_own_study_needs_no_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    result = preceptor("report", "--observed", "xu2024", "--html", "paper.html")
    assert result.exit_code == 0, result.output
    assert Path("paper.html").read_text(encoding="utf-8").lower().startswith("<!doctype html>")


def test_the_command_is_kept_as_it_was_typed():
    words = ["rank", "it's here.jsonl", "--rule", '{"kind": "exact"}']
    with click.Context(cli) as context:
        keep_command(context, words)
        assert shlex.split(typed_command()) == ["preceptor", *words]
    seen = []

    @cli.command("remember")
    def remember() -> None:
        seen.append(typed_command())

    try:
        assert CliRunner().invoke(cli, ["-v", "remember"]).exit_code == 0
    finally:
        del cli.commands["remember"]
    assert seen == ["preceptor -v remember"]


def test_names_and_passwords_in_addresses_are_not_kept():
    with click.Context(cli) as context:
        keep_command(
            context,
            [
                "rank",
                "--judge-url",
                "http://me:p@ss/word@host/v1?api_key=x",
                "--store=s3://k:s@b/x",
            ],
        )
        assert (
            typed_command()
            == "preceptor rank --judge-url 'http://[redacted]@host/v1?[redacted]' '--store=s3://[redacted]@b/x'"
        )
