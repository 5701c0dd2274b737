"""The terminal shows the verdict first, every label inert, and how far long work is."""

import io
import math
from pathlib import Path

import pytest
from rich.console import Console

from preceptor.pipeline.work import Amount, Silent
from preceptor.ranking.table import form_of, printable
from preceptor.report.progress import LiveProgress, PlainProgress, showing
from preceptor.report.terminal import print_lines, print_ranking
from preceptor.types import Warning
from small_study import ranking_of


def console(width: int = 120, *, terminal: bool = False) -> Console:
    return Console(file=io.StringIO(), width=width, force_terminal=terminal)


def said(of: Console) -> str:
    assert isinstance(of.file, io.StringIO)
    return of.file.getvalue()


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain [bold]é 日本[/bold]", "plain [bold]é 日本[/bold]"),
        ("\x1b[2Jgone\x07", "\\x1b[2Jgone\\x07"),
        ("two\nlines\t\r", "two\\nlines\\t\\r"),
        ("\u202eright to left\u200b", "\\u202eright to left\\u200b"),
        ("\x9b31m", "\\x9b31m"),
    ],
)
def test_control_characters_are_shown_and_not_obeyed(text: str, shown: str):
    assert printable(text) == shown


def test_the_verdict_comes_first_and_every_teacher_follows(tmp_path: Path):
    ranking = ranking_of(tmp_path)
    target = console()
    print_ranking(target, ranking)
    text = said(target)
    first = next(line for line in text.splitlines() if line.strip())
    assert " ".join(text.split()).startswith(ranking.verdict().text[:60])
    assert ranking.teachers[0].teacher in first
    for result in ranking.teachers:
        estimate = result.estimates["reward"]
        shown = f"{estimate.value:.3f} [{estimate.low:.3f}, {estimate.high:.3f}]"
        assert shown in text
        assert f"{result.p_best:.2f}" in text


def test_a_narrow_terminal_keeps_what_the_verdict_rests_on(tmp_path: Path):
    ranking = ranking_of(tmp_path)
    wide, narrow = console(120), console(60)
    print_ranking(wide, ranking)
    print_ranking(narrow, ranking)
    assert " length\n" in said(wide)
    for heading in ("teacher", "reward [95% interval]", "P(first)"):
        assert heading in said(wide)
        assert heading in said(narrow)
    assert max(map(len, said(narrow).splitlines())) <= 60


def test_warnings_are_printed_inert(tmp_path: Path):
    target = console(400)
    print_ranking(
        target, ranking_of(tmp_path, warnings=(Warning("copies", "'[red]x[/red]' has \x1b[31m"),))
    )
    assert "Warning: '[red]x[/red]' has \\x1b[31m" in said(target)


def test_lines_are_neither_folded_nor_read_as_markup():
    target = console(20)
    line = "[link=file:///x]a long name[/link].jsonl: alpaca layout"
    print_lines(target, [line])
    assert said(target) == line + "\n"


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """A clock that shows the one number in it, in seconds."""
    seconds = [100.0]
    monkeypatch.setattr("time.monotonic", lambda: seconds[0])
    return seconds


def test_plain_progress_tells_what_is_stored_and_then_how_far_it_is(
    clock: list[float],
):
    target = console()
    progress = PlainProgress(target, every=10)
    progress.begin("likelihood", 5, Amount(100, 1000))
    clock[0] += 5
    progress.advance(Amount(10, 100, 50))
    assert said(target) == "likelihood: 5 stored, 100 to compute\n"
    clock[0] += 5
    progress.advance(Amount(15, 150, 150))
    # Since the first batch 150 tokens in 5 s; 150 characters took 5 s, so 750 more take 25.
    assert said(target).splitlines()[1] == "likelihood: 25/100, 30 tokens/s, about 25 s left"
    clock[0] += 9
    progress.advance(Amount(1, 1, 1))
    progress.end()
    assert len(said(target).splitlines()) == 2


def test_the_time_that_a_model_takes_to_load_is_not_taken_for_its_pace(
    clock: list[float],
):
    target = console()
    progress = PlainProgress(target, every=10)
    progress.begin("likelihood", 0, Amount(100, 1000))
    progress.advance(Amount())  # nothing was stored before
    clock[0] += 600
    progress.advance(Amount(10, 100, 50))
    clock[0] += 10
    progress.advance(Amount(40, 400, 200))
    assert said(target).splitlines()[1:] == [
        "likelihood: 10/100",
        "likelihood: 50/100, 20 tokens/s, about 12 s left",
    ]


def test_live_progress_reaches_the_end_of_its_bar(clock: list[float]):
    target = console(terminal=True)
    with LiveProgress(target) as live:
        live.begin("length", 7, Amount())
        live.begin("likelihood", 2, Amount(3, 30))
        live.advance(Amount(1, 10, 5))
        clock[0] += 2
        live.advance(Amount(2, 20, 10))
        (task,) = live._bars.tasks
        assert task.finished
        assert task.fields["rows"] == 3
        assert task.fields["rate"] == "5 tokens/s"
        live.end()
        live.advance(Amount(1, 1, 1))  # after the end nothing moves
        assert task.completed == 30
    assert "length: all 7 stored" in said(target)
    assert "likelihood (2 stored)" in said(target)


def test_progress_is_shown_where_somebody_looks():
    # A log and a pipe are no terminal: nothing is written there unless it is asked for.
    for asked, target, kind in [
        (None, console(), Silent),
        (None, console(terminal=True), LiveProgress),
        (None, Console(file=io.StringIO(), force_jupyter=True), PlainProgress | LiveProgress),
        (False, console(terminal=True), Silent),
        (True, console(), PlainProgress),
    ]:
        with showing(asked, console=target) as shown:
            assert isinstance(shown, kind)
    own = Silent()
    with showing(own) as shown:
        assert shown is own


@pytest.mark.parametrize(
    ("values", "shown"),
    [
        ((12.51, 37611.4), ["12.5", "37611.4"]),
        ((36.73, 1.675), ["36.73", "1.68"]),
        ((1.5, math.nan, 0.0), ["1.500", "nan", "0.000"]),
        ((5.2e7, 12.0), ["5.20e+07", "1.20e+01"]),
        ((0.0004, 2.0), ["4.00e-04", "2.00e+00"]),
        ((0.0007,), ["7.00e-04"]),
        ((-250.0, 3.0), ["-250.0", "3.0"]),
    ],
)
def test_the_numbers_of_a_column_have_one_form_and_none_becomes_nought(
    values: tuple[float, ...], shown: list[str]
):
    assert [form_of(values)(value) for value in values] == shown
