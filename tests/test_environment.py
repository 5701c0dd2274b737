"""Variables of the environment that other programs heed too are heeded in a process of its own."""

import json
import os
import re
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from small_study import rows_of, write_rows, write_teachers

_COLOUR = re.compile(r"\x1b\[(?:\d+;)*(?:3[0-7]|38;[0-9;]+|9[0-7])(?:;\d+)*m")
_CODE = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


def in_a_terminal(folder: Path, words: list[object], **own: str) -> str:
    """Return what the program shows in a terminal of its own."""
    pty = pytest.importorskip("pty", reason="this system has no pseudo-terminals")
    inherited = {name: value for name, value in os.environ.items() if name not in _SET}
    ours, theirs = pty.openpty()
    running = subprocess.Popen(
        [sys.executable, "-m", "preceptor", *map(str, words)],
        cwd=folder,
        env={**inherited, "TERM": "xterm-256color", **own},
        stdin=subprocess.DEVNULL,
        stdout=theirs,
        stderr=subprocess.DEVNULL,
    )
    os.close(theirs)
    shown = bytearray()
    while True:
        try:
            part = os.read(ours, 65536)
        except OSError:  # Linux says so that the other end is closed
            break
        if not part:
            break
        shown += part
    os.close(ours)
    assert running.wait() == 0
    return shown.decode()


_SET = ("NO_COLOR", "FORCE_COLOR", "COLUMNS", "COLORTERM", "TERM", "CI")


def test_no_color_takes_colours_away_and_columns_sets_the_width(tmp_path: Path):
    files = write_teachers(tmp_path / "data", teachers=3)
    write_rows(files[2], rows_of(2)[:4])  # what the others have besides is a warning, in yellow
    words = ["rank", *files, "--no-student", "--reward-column", "reward", "--store", tmp_path / "s"]
    coloured = in_a_terminal(tmp_path, words, COLUMNS="100")
    plain = in_a_terminal(tmp_path, words, COLUMNS="64", NO_COLOR="1")
    assert _COLOUR.search(coloured)
    assert not _COLOUR.search(plain)
    widths = [
        max(map(len, _CODE.sub("", text).replace("\r", "").splitlines()))
        for text in (coloured, plain)
    ]
    assert 64 < widths[0] <= 100 and widths[1] <= 64


@pytest.fixture
def asked() -> Iterator[tuple[str, list[str | None]]]:
    """The address of a stand-in for the Hub whose models are all gated, and each request's token."""
    requests: list[str | None] = []

    class Gated(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            requests.append(self.headers["Authorization"])
            self.send_response(403)
            self.send_header("X-Error-Code", "GatedRepo")
            self.end_headers()

        do_HEAD = do_POST = do_GET

        def log_message(self, *_words: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Gated)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}", requests
    server.shutdown()
    server.server_close()


def with_only(
    own: Mapping[str, object], folder: Path, words: Sequence[object]
) -> subprocess.CompletedProcess[str]:
    """Run the program with these variables and what a system cannot do without."""
    kept = ("PATH", "LD_LIBRARY_PATH", "SYSTEMROOT", "TMPDIR", "OMP_NUM_THREADS")
    inherited = {name: os.environ[name] for name in kept if name in os.environ}
    return subprocess.run(
        [sys.executable, "-m", "preceptor", *map(str, words)],
        cwd=folder,
        env={**inherited, **{name: str(value) for name, value in own.items()}},
        capture_output=True,
        text=True,
        check=False,
    )


def test_a_cached_student_is_found_under_hf_home_and_nothing_is_asked_or_written_elsewhere(
    tmp_path: Path, model_folder: Path, asked: tuple[str, list[str | None]]
):
    address, requests = asked
    home, hub = tmp_path / "home", tmp_path / "elsewhere"
    home.mkdir()
    cached = hub / "hub" / "models--owner--tiny"
    shutil.copytree(model_folder, cached / "snapshots" / ("0" * 40))
    (cached / "refs").mkdir()
    (cached / "refs" / "main").write_text("0" * 40, encoding="utf-8")
    files = write_teachers(tmp_path / "data", instructions=3)
    words = ["rank", *files, "--student", "owner/tiny", "--device", "cpu"]
    words += ["--reward-column", "reward", "--store", tmp_path / "store"]

    places = {"HOME": home, "PRECEPTOR_CACHE": tmp_path / "cache", "HF_HOME": hub}

    def run(*more: object) -> subprocess.CompletedProcess[str]:
        own = {**places, "HF_HUB_OFFLINE": "1", "HF_ENDPOINT": address}
        return with_only(own, tmp_path / "data", [*words, *more])

    done = run("--json", tmp_path / "ranking.json")
    assert done.returncode == 0, done.stderr
    (ranking,) = json.loads((tmp_path / "ranking.json").read_text(encoding="utf-8"))
    assert ranking["by"] == "car"
    shutil.rmtree(cached)
    absent = run()
    assert absent.returncode == 1
    assert "owner/tiny" in absent.stderr and "Traceback" not in absent.stderr
    assert requests == []
    assert [path for path in home.rglob("*") if path.is_file()] == []
    assert sorted(path.name for path in (tmp_path / "data").iterdir()) == [
        one.name for one in files
    ]


def test_hf_token_is_shown_to_the_hub_alone_and_a_gated_student_says_what_it_is_for(
    tmp_path: Path, asked: tuple[str, list[str | None]]
):
    address, requests = asked
    token = "hf_" + "q" * 34
    own = {name: tmp_path / "home" for name in ("HOME", "PRECEPTOR_CACHE", "HF_HOME")}
    files = write_teachers(tmp_path / "data", instructions=3)
    words = ["rank", *files, "--student", "owner/gated", "--store", tmp_path / "store"]
    done = with_only({**own, "HF_TOKEN": token, "HF_ENDPOINT": address}, tmp_path, words)
    assert done.returncode == 1
    assert "owner/gated" in done.stderr and "HF_TOKEN for gated models" in done.stderr
    # The library first looks without a token whether the file lies elsewhere.
    assert requests[-1] == f"Bearer {token}" and set(requests) <= {None, requests[-1]}
    assert token not in done.stdout + done.stderr
    assert not any(
        token.encode() in one.read_bytes() for one in tmp_path.rglob("*") if one.is_file()
    )
