"""A shell completes commands, options and the names of metrics, by click's own machinery."""

import pytest
from click.shell_completion import BashComplete

from preceptor.cli.app import cli
from preceptor.ranking.options import METRIC_NAMES


def completed(*words: str) -> set[str]:
    """Return what a shell offers for the last of these words."""
    shell = BashComplete(cli, {}, "preceptor", "_PRECEPTOR_COMPLETE")
    return {one.value for one in shell.get_completions(list(words[:-1]), words[-1])}


@pytest.mark.parametrize(
    ("words", "offered"),
    [
        (("ra",), {"rank"}),
        (("store", "l"), {"list"}),
        (("rank", "one.jsonl", "--reward-c"), {"--reward-column"}),
        (("rank", "one.jsonl", "--metric", "perp"), {"perplexity"}),
        (("rank", "one.jsonl", "--by", "ca"), {"car"}),
        (("agreement", "one.json", "--baseline", "ca"), {"car"}),
        (("rank", "one.jsonl", "--log-to", ""), {"mlflow", "trackio", "wandb"}),
        (("rank", "one.jsonl", "--json", "no-such-folder/x.json", "--log-to", "w"), {"wandb"}),
    ],
)
def test_a_shell_is_offered_what_there_is(words: tuple[str, ...], offered: set[str]):
    assert completed(*words) == offered


def test_every_metric_is_offered():
    assert completed("rank", "--metric", "") == set(METRIC_NAMES)


@pytest.mark.parametrize(
    "words",
    [("run", "stu"), ("rank", "resp"), ("rank", "--student", "./mo"), ("train", "--output", "")],
)
def test_a_shell_completes_files_by_itself(words: tuple[str, ...]):
    shell = BashComplete(cli, {}, "preceptor", "_PRECEPTOR_COMPLETE")
    (one,) = shell.get_completions(list(words[:-1]), words[-1])
    assert one.type == "file" and one.value == words[-1]
