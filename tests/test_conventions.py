"""What other programs of a shell do, the command line does too."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from preceptor.cli.app import cli
from small_study import preceptor as in_this_process
from small_study import write_rows


@pytest.fixture
def responses(tmp_path: Path) -> Path:
    rows = [
        {"instruction": f"{n}?", "generator": teacher, "output": "so " * n, "mark": n * step}
        for n in range(1, 5)
        for step, teacher in enumerate(("one", "two"), 1)
    ]
    return write_rows(tmp_path / "rows.jsonl", rows)


def preceptor(*words: object, **variables: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-m", "preceptor", *map(str, words)],
        env=os.environ | variables,
        capture_output=True,
        text=True,
        check=False,
    )


def test_options_come_from_the_environment_and_quiet_leaves_the_results_alone(
    responses: Path, tmp_path: Path
) -> None:
    told = {"PRECEPTOR_RANK_REWARD_COLUMN": "mark", "PRECEPTOR_RANK_STORE": str(tmp_path / "store")}
    done = preceptor("--quiet", "rank", responses, "--no-student", "--csv", "-", **told)
    assert done.returncode == 0, done.stderr
    assert "column 'mark'" in done.stdout
    assert done.stderr == ""
    assert (tmp_path / "store").is_dir()


def contexts(context: click.Context) -> Iterator[click.Context]:
    """Yield the contexts of a command and of all below it."""
    yield context
    if isinstance(command := context.command, click.Group):
        for name in command.list_commands(context):
            found = command.get_command(context, name)
            assert found is not None
            yield from contexts(click.Context(found, parent=context, info_name=name))


def test_every_option_is_read_from_the_variable_that_is_called_as_it_is_typed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # Whatever was asked before without a prefix, as the tests of other commands do.
    for context in contexts(click.Context(cli, info_name="preceptor")):
        context.command.get_params(context)
    program = click.Context(cli, info_name="preceptor", auto_envvar_prefix="PRECEPTOR")
    seen = set()
    for context in contexts(program):
        for option in context.command.get_params(context):
            if not isinstance(option, click.Option) or "--help" in option.opts:
                continue
            (typed,) = (name for name in option.opts if name.startswith("--"))
            words = (*context.command_path.split()[1:], typed.removeprefix("--"))
            name = "_".join(("preceptor", *words)).replace("-", "_").upper()
            monkeypatch.setenv(name, "told")
            assert option.resolve_envvar_value(context) == "told", name
            seen.add(name)
    assert {"PRECEPTOR_RANK_METRIC", "PRECEPTOR_STUDIES_LIST_JSON", "PRECEPTOR_QUIET"} <= seen


def test_several_values_of_the_environment_have_spaces_between_them(
    responses: Path, tmp_path: Path
) -> None:
    told = {"PRECEPTOR_RANK_METRIC": "reward length", "PRECEPTOR_RANK_NO_STUDENT": "1"}
    told |= {"PRECEPTOR_RANK_JSON": "-", "PRECEPTOR_RANK_STORE": str(tmp_path / "store")}
    done = preceptor("rank", responses, "--reward-column", "mark", **told)
    assert done.returncode == 0, done.stderr
    assert list(json.loads(done.stdout)[0]["metrics"]) == ["reward", "length"]


def test_the_command_line_counts_before_the_environment(responses: Path) -> None:
    told = {"PRECEPTOR_RANK_REWARD_COLUMN": "mark"}
    done = preceptor("rank", responses, "--no-student", "--reward-column", "absent", **told)
    assert done.returncode == 1
    assert "absent" in done.stderr


def test_verbose_and_quiet_together_are_asked_wrongly() -> None:
    done = in_this_process("-q", "-v", "studies")
    assert (done.exit_code, done.stdout) == (2, "")
    assert "exclude each other" in done.stderr
