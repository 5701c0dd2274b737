"""Old names of commands and options are refused with the new one; misspelt ones with the nearest."""

import click
import pytest
from click.testing import CliRunner

from preceptor.cli.app import cli
from preceptor.cli.command import RENAMED_COMMANDS, SECTIONS, renamed_options

OPTIONS = (
    "--reference", "--draws", "--minimum-coverage", "--warmup-share", "--device-batch",
    "--quantized", "--remote-code", "--token-budget", "--against", "--push", "--template",
    "--written-verdict", "--choice", "--both-orders", "--higher", "--lower", "--families",
)  # fmt: skip
"""The old options; other old names are of tables and of fields that are no options."""


def context_of(command: click.Command) -> click.Context:
    return click.Context(command, parent=click.Context(cli, **cli.context_settings))


def said(*words: str) -> str:
    result = CliRunner().invoke(cli, words)
    assert result.exit_code == 2
    return result.output


@pytest.mark.parametrize(("old", "new"), RENAMED_COMMANDS.items())
def test_an_old_command_is_refused_with_its_new_name(old: str, new: str):
    assert f"The command '{old}' is now '{new}'." in said(old)
    assert CliRunner().invoke(cli, [*new.split(), "--help"]).exit_code == 0


@pytest.mark.parametrize(("old", "new"), renamed_options().items())
def test_an_old_option_is_refused_with_its_new_name(old: str, new: str):
    having = [
        name
        for name, command in cli.commands.items()
        if any(
            new in (*one.opts, *one.secondary_opts) and old not in one.opts
            for one in command.get_params(context_of(command))
        )
    ]
    assert having or old not in OPTIONS
    for name in having:
        assert f"The option '{old}' is now '{new}'." in said(name, "x", old, "1")


def test_every_old_option_has_a_new_name():
    assert set(OPTIONS) <= set(renamed_options())


def test_a_misspelt_command_or_option_gets_the_nearest_name():
    assert "No such command 'rnak'. Did you mean 'rank'?" in said("rnak")
    assert "No such command 'shwo'. Did you mean 'show'?" in said("store", "shwo")
    assert "No such option '--studnet'. Did you mean '--student'?" in said("rank", "--studnet", "x")


def test_every_command_stands_in_one_section_of_the_help_with_its_whole_summary():
    assert sorted(name for names in SECTIONS.values() for name in names) == sorted(cli.commands)
    shown = " ".join(CliRunner().invoke(cli, ["--help"], terminal_width=80).output.split())
    assert all(heading in shown for heading in SECTIONS)
    for name, command in cli.commands.items():
        assert command.help is not None
        assert f"{name} {command.help.splitlines()[0]}" in shown
