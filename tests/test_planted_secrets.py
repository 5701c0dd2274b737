"""Seven secrets, planted where users keep or type them, and no byte of them in anything that a run leaves."""

import base64
import itertools
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote, quote_plus

import pyarrow.parquet as pq
import pytest

from chat_server import Handler, Told, completion, serving
from small_study import write_rows

SECRETS = {
    "key of the teacher, in a variable not named like one": "tch-Ab1/Cd2+Ef3&Gh4=Ij5",
    "key of the judge": "sk-judge-Kl6/Mn7+Op8<Qr9>",
    "token of the Hub": "hf_StUvWx0123456789YzAbCd",
    "key of W&B": "0f1e2d3c4b5a69788796a5b4c3d2e1f0",
    "key in a query": "qry-Za9Yb8Xc7Wd6",
    "password in an address": "pw-Ve5@Uf4/Tg3Sh2",
    "key given as the name of a variable": "skRi1Qj0Pk9Ol8Nm7Mn6Lo5",
}
TEACHER, JUDGE, HUB, WANDB, QUERY, PASSWORD, NAME = SECRETS.values()
KEYS = {
    "TEACHER_ACCESS": TEACHER,
    "JUDGE_KEY": JUDGE,
    "HF_TOKEN": HUB,
    "WANDB_API_KEY": WANDB,
}

RUN = """
import os, sys
from preceptor.cli import app
from preceptor.engines.chat import client

client._FIRST_DELAY_S = 0.02

@app.cli.command("fail")
def fail():
    raise RuntimeError(f"said {os.environ['HF_TOKEN']} and {os.environ['WANDB_API_KEY']}")

def each():
    for words in eval(sys.argv[1]):
        sys.argv[1:] = words
        try:
            app.cli()
        except SystemExit as ended:
            print("ended with", ended.code)

app.prepare()
each()
app.cli(["fail"])
"""


def forms(secret: str) -> Iterator[bytes]:
    """Yield the secret as it is and as JSON, addresses, HTML and base64 may hold it."""
    raw = secret.encode()
    escaped = json.dumps(secret)[1:-1]
    yield from (raw, raw[:12], raw[-12:], escaped.replace("/", "\\/").encode())
    yield from (
        quote(secret, safe="").encode(),
        quote(secret).encode(),
        quote_plus(secret).encode(),
    )
    yield secret.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;").encode()
    yield raw.hex().encode()
    for before, encode in itertools.product(range(3), (base64.b64encode, base64.urlsafe_b64encode)):
        inside = (before and before + 1, (before + len(raw)) * 8 // 6)
        yield encode(bytes(before) + raw)[slice(*inside)]


def echoing(handler: Handler, asked: dict[str, Any]) -> None:
    """Answer by turns as usual, with the key in the answer, and with it in errors of every kind."""
    told: Told = handler.server.told  # type: ignore[attr-defined]
    header = handler.headers["Authorization"]
    encoded = f"{header} {base64.b64encode(header.encode()).decode()} {quote(header, safe='')}"
    judged = "number alone" in asked["messages"][-1]["content"]
    turn = len(told.requests) % 12
    said = (
        "7"
        if judged
        else f"It is good for counting {len(told.requests)} things. {encoded * (turn == 1)}"
    )
    bodies = {
        3: (400, json.dumps({"error": {"message": f"no entry with {encoded}"}}).encode()),
        6: (500, f"<html><title>{encoded}</title>{encoded}</html>".encode()),
        9: (200, f"<html><title>{encoded}</title></html>".encode()),
    }
    status, body = bodies.get(turn, (200, completion(said)))
    handler.send(status, body, {"X-Seen": header})


def study_file(folder: Path, url: str) -> Path:
    questions = [{"instruction": f"What is number {place} good for?"} for place in range(24)]
    write_rows(folder / "questions.jsonl", questions)
    at = f'url = "{url}"\npatience_s = 2.0\nconcurrency = 1\napi_key_env ='
    path = folder / "study.toml"
    path.write_text(
        f"""
        no_student = true
        data.instructions = ["{folder}/questions.jsonl"]
        reward = {{ kind = "judge", model = "judge", logprobs = false }}
        metrics = ["reward"]
        [[teachers]]
        model = "one"
        engine = "openai"
        [[teachers]]
        model = "two"
        engine = "openai"
        [runtime]
        store = "{folder}/store"
        device = "cpu"
        [runtime.endpoints.one]
        {at} "TEACHER_ACCESS"
        [runtime.endpoints.two]
        {at} "TEACHER_ACCESS"
        [runtime.endpoints.judge]
        {at} "JUDGE_KEY"
        """,
        encoding="utf-8",
    )
    return path


def commands(folder: Path, study: Path, told: Told) -> list[list[str]]:
    out, own = str(folder / "out"), str(study)
    asked = [
        "generate",
        str(folder / "questions.jsonl"),
        "--teacher",
        "m",
        "--output",
        f"{out}.jsonl",
    ]
    wrong = folder / "wrong.toml"
    wrong.write_text(study.read_text().replace("/v1", f"/v1?api_key={QUERY}"))
    return [
        ["-v", "plan", own],
        ["-v", "run", own, "--json", f"{out}.json", "--csv", f"{out}.csv", "--html", f"{out}.html"],
        ["-v", "run", own, "--json", f"{out}.json", "--csv", f"{out}.csv", "--html", f"{out}.html"],
        ["report", own, "--html", f"{out}2.html", "--markdown", f"{out}.md"],
        ["export", own, "--output", f"{out}-data"],
        ["store", "check", "--store", str(folder / "store")],
        ["plan", str(wrong)],
        [*asked, "--url", f"http://127.0.0.1:{told.port}/v1?k={QUERY}"],
        [*asked, "--url", f"http://me:{PASSWORD}@127.0.0.1:{told.port}/v1"],
        [*asked, "--url", told.url, "--key-env", NAME],
        [*asked, "--url", "http://192.0.2.1/v1", "--key-env", "JUDGE_KEY"],
        ["rank", f"https://me:{PASSWORD}@example.org/x.jsonl?token={QUERY}", "--no-student"],
    ]


def everything_in(folder: Path) -> Iterator[tuple[str, bytes]]:
    """Yield every file's name and bytes; of Parquet also what it holds, unpacked."""
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            yield str(path), str(path).encode() + path.read_bytes()
        if path.suffix == ".parquet":
            table = pq.read_table(path)
            yield f"{path} unpacked", repr((table.to_pylist(), table.schema.metadata)).encode()


def test_no_secret_is_left_in_anything_that_a_run_prints_or_writes(tmp_path: Path):
    places = {name: str(tmp_path / "home") for name in ("HOME", "PRECEPTOR_CACHE", "HF_HOME")}
    with serving(otherwise=echoing) as told:
        study = study_file(tmp_path, told.url)
        words = commands(tmp_path, study, told)
        ended = subprocess.run(
            [sys.executable, "-c", RUN, repr(words)],
            env={**os.environ, **KEYS, **places, "HF_HUB_OFFLINE": "1", "COLUMNS": "500"},
            capture_output=True,
            timeout=300,
            check=False,
        )
    (tmp_path / "wrong.toml").unlink()  # the user's own, with what was planted in it
    codes = [
        line.split()[-1] for line in ended.stdout.decode().splitlines() if "ended with" in line
    ]
    assert codes == ["0"] * 6 + ["1"] * 6, ended.stderr.decode()[:6000]
    assert {head.get("Authorization") for head in told.headers} == {
        f"Bearer {TEACHER}",
        f"Bearer {JUDGE}",
    }
    assert b"RuntimeError: said [redacted] and [redacted]" in ended.stderr
    assert ended.stderr.count(b"key into an environment variable") >= 3
    found = {"stdout": ended.stdout, "stderr": ended.stderr, **dict(everything_in(tmp_path))}
    assert sum(b"[redacted]" in held for held in found.values()) >= 4
    assert {Path(name).suffix for name in found} >= {
        ".json",
        ".csv",
        ".html",
        ".md",
        ".jsonl",
        ".parquet",
    }
    for kind, secret in SECRETS.items():
        for form in forms(secret):
            assert [name for name, held in found.items() if form in held] == [], (kind, form)


@pytest.mark.parametrize("secret", SECRETS.values(), ids=SECRETS)
def test_the_search_would_find_a_secret(secret: str):
    for spelled in (secret, json.dumps(secret), quote(secret, safe="")):
        assert any(form in spelled.encode() for form in forms(secret))
        encoded = base64.b64encode(f"Bearer {secret}".encode())
        assert any(form in encoded for form in forms(secret))
