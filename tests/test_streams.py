"""Standard output as commands find it: in any encoding, cut short, full or closed."""

import json
import logging
import os
import subprocess
import sys
from pathlib import Path

import pytest

from preceptor.cli.streams import PrintableFormatter
from small_study import write_rows

NAME = "Größe 模型 \N{GRINNING FACE}"


@pytest.fixture
def command(tmp_path: Path) -> list[str]:
    rows = [
        {"instruction": f"{n}?", "generator": teacher, "output": "so " * n, "reward": n * step}
        for n in range(1, 5)
        for step, teacher in enumerate((NAME, "plain"), 1)
    ]
    path = write_rows(tmp_path / "rows.jsonl", rows)
    given = ["rank", str(path), "--reward-column", "reward", "--no-student"]
    return [sys.executable, "-m", "preceptor", *given, "--store", str(tmp_path / "store")]


def run(command: list[str], **how: object) -> "subprocess.CompletedProcess[bytes]":
    environment = os.environ | {"PYTHONIOENCODING": "cp1252", "PYTHONUTF8": "0"}
    return subprocess.run(command, env=environment, stderr=subprocess.PIPE, **how)  # type: ignore[call-overload,no-any-return]


def test_a_terminal_that_lacks_letters_gets_escapes_and_data_is_utf8(command: list[str]):
    table = run(command, stdout=subprocess.PIPE)
    assert table.returncode == 0, table.stderr
    assert b"\\u6a21\\u578b" in table.stdout
    data = run([*command, "--json", "-"], stdout=subprocess.PIPE)
    assert data.returncode == 0, data.stderr
    assert NAME in [one["teacher"] for one in json.loads(data.stdout)[0]["teachers"]]
    rows = run([*command, "--csv", "-"], stdout=subprocess.PIPE).stdout.decode("utf-8")
    assert NAME in rows


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs /dev/full")
@pytest.mark.parametrize("more", [[], ["--json", "-"]])
def test_a_full_disk_and_a_closed_output_end_without_a_traceback(
    command: list[str], more: list[str]
):
    with open("/dev/full", "wb") as full:
        result = run([*command, *more], stdout=full)
    assert result.returncode == 1
    assert b"Error: Cannot write to standard output: No space left on device." in result.stderr
    assert b"Traceback" not in result.stderr
    reader, writer = os.pipe()
    os.close(reader)
    result = run([*command, *more], stdout=writer)
    os.close(writer)
    assert result.returncode == 141
    assert b"Traceback" not in result.stderr and b"Error" not in result.stderr
    closed = run(["sh", "-c", 'exec "$@" >&-', "sh", *command, *more])
    assert closed.returncode == 0, closed.stderr


def test_a_log_line_shows_control_characters_as_escapes():
    record = logging.LogRecord(
        "x", logging.WARNING, "", 1, "said \x1b[31mred\r\nand %s", ("\x9b",), None
    )
    assert PrintableFormatter("%(message)s").format(record) == "said \\x1b[31mred\\r\nand \\x9b"
