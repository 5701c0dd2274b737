"""Commands of the documents: sessions are run in order in one folder, other commands are parsed.

A block with a title is a file of that name. A `console` block is a shell session: a line after `$ ` is a
command that goes on after `> `, and what follows is its standard output. Three dots stand for any lines,
within a line for anything.
"""

import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import click

from preceptor.cli.app import cli

FENCE = re.compile(r"^```(\w*)([^\n]*)\n(.*?)^```", re.M | re.S)
TITLE = re.compile(r"title=\"([\w./-]+)\"")
NEEDS = re.compile(r"^\*Needs [^\n]*\.\*$", re.M)
"""The visible reason why the next block is not run."""


@dataclass(frozen=True)
class Step:
    """A command of a session, and what the document shows of its output."""

    command: str
    shown: str


def sessions(text: str) -> Iterator[Step]:
    """Yield the steps of a page: files that are shown under their names, and `console` blocks."""
    for language, info, block in FENCE.findall(text):
        if named := TITLE.search(info):
            yield Step(f"cat > {named[1]} <<'END-OF-FILE'\n{block}END-OF-FILE", "")
        elif language == "console":
            yield from _steps(block)


def _steps(block: str) -> Iterator[Step]:
    command: list[str] = []
    shown: list[str] = []
    for line in block.splitlines():
        if line.startswith("$ "):
            if command:
                yield Step("\n".join(command), "\n".join(shown))
            command, shown = [line[2:]], []
        elif line.startswith("> ") and not shown:
            command.append(line[2:])
        elif line == ">" and not shown:
            command.append("")
        else:
            shown.append(line)
    if command:
        yield Step("\n".join(command), "\n".join(shown))


def carry_out(step: Step, folder: Path) -> str:
    """Run a command with the shell; return its standard output, or fail with what it said."""
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", step.command],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=600,
        env={
            **os.environ,
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
            "HF_HUB_OFFLINE": "1",
            "COLUMNS": "120",
        },
    )
    assert done.returncode == 0, f"{step.command}\n{done.stdout}\n{done.stderr}"
    return done.stdout


def agrees(shown: str, printed: str) -> bool:
    """Tell whether an output is what a document shows of it, whatever the spaces at ends of lines."""
    lines = [" ".join(line.split()) for line in shown.strip().splitlines()]
    parts = [
        r"(?:.*\n)*?" if line == "..." else ".*".join(map(re.escape, line.split("..."))) + r"\n"
        for line in lines
    ]
    text = "".join(" ".join(line.split()) + "\n" for line in printed.strip().splitlines())
    return not shown.strip() or re.fullmatch("".join(parts), text) is not None


def unrun_commands(text: str) -> Iterator[str]:
    """Yield the `preceptor` commands of all blocks that are not run."""
    for language, _, block in FENCE.findall(text):
        if language not in ("", "bash", "sh", "yaml"):
            continue
        joined = block.replace("\\\n", " ")
        for line in joined.splitlines():
            found = re.match(r"(?:\s*(?:- )?(?:run: )?)(?:\$ )?((?:\w+=\S+ )*preceptor .*)", line)
            if found:
                yield found[1]


def named_commands(text: str) -> Iterator[str]:
    """Yield the `preceptor` commands that sentences name."""
    for found in re.findall(r"`(preceptor [a-z][^`]*)`", FENCE.sub("", text)):
        yield " ".join(found.split())


def parsed(command: str) -> None:
    """Check that a `preceptor` command exists with these options; click's error where it does not."""
    try:
        words = shlex.split(command, comments=True)
    except ValueError:
        # What stands beside a command as a remark holds an apostrophe.
        words = command.split()
    words = words[words.index("preceptor") + 1 :]
    for ending in ("|", ">", "&&", ";", "2>", "||"):
        if ending in words:
            words = words[: words.index(ending)]
    context = click.Context(cli, info_name="preceptor")
    found: click.Command = cli
    while isinstance(found, click.Group):
        # Options of the program itself stand before the command.
        while words and words[0].startswith("-"):
            words = words[1:]
        if not words:
            return
        name, words = words[0], words[1:]
        inner = found.get_command(context, name)
        if inner is None and found.invoke_without_command:
            return
        assert inner is not None, f"{command}: no command {name!r}"
        found, context = inner, click.Context(inner, info_name=name, parent=context)
    values, left, _ = found.make_parser(context).parse_args(args=list(words))
    assert not left, f"{command}: too many words: {left}"
    for parameter in found.params:
        given = values.get(parameter.name or "")
        if isinstance(parameter.type, click.Choice) and isinstance(given, str):
            parameter.type.convert(given, parameter, context)
