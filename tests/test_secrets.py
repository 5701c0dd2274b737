"""No secret is left in anything that is printed or written, however it is spelled there."""

import base64
import html
import json
import re
from pathlib import Path
from urllib.parse import quote, quote_plus

import pytest

from preceptor.config.secrets import REDACTED, without_keys, without_secrets
from preceptor.report.charts.figures import script_bundle
from preceptor.store.files import write_json

KEY = 'sk-0a1b/2c+3d"<4e>&5f=='


@pytest.fixture(autouse=True)
def key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PLANTED_API_KEY", KEY)


SPELLED = {
    "as it is": KEY,
    "in JSON": json.dumps(KEY)[1:-1],
    "in JSON with slashes escaped": json.dumps(KEY)[1:-1].replace("/", "\\/"),
    "in HTML": html.escape(KEY),
    "in a path": quote(KEY, safe=""),
    "in a query": quote_plus(KEY),
    "in base64": base64.b64encode(KEY.encode()).decode(),
    "in base64 after others": base64.b64encode(f"a:{KEY}".encode()).decode(),
    "in base64 before others": base64.urlsafe_b64encode(f"a{KEY}:c".encode()).decode(),
}


@pytest.mark.parametrize("spelling", SPELLED)
def test_a_key_is_removed_however_it_is_spelled(spelling: str):
    cut = without_keys(f"<{SPELLED[spelling]}>")
    assert REDACTED in cut
    assert len(cut) <= len(REDACTED) + 10


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("see https://me:p@ss@host/v1 there", f"see https://{REDACTED}@host/v1 there"),
        ("https:/me:p/ss@host/x", f"https:/{REDACTED}@host/x"),
        ("http://host:80/@user and C:/a/me@b", "http://host:80/@user and C:/a/me@b"),
        ("s3://id:secret@bucket/x", f"s3://{REDACTED}@bucket/x"),
        ("http://h/v1?a=1&api_key=abc&b=2", f"http://h/v1?a=1&api_key={REDACTED}&b=2"),
        ("h/v1?X-Amz-Signature=abc'", f"h/v1?X-Amz-Signature={REDACTED}'"),
        ("https://medium.com/@user/post?q=a", "https://medium.com/@user/post?q=a"),
        ("mail me@host, a < b && key = 3", "mail me@host, a < b && key = 3"),
    ],
)
def test_users_and_keys_in_addresses_are_removed_and_nothing_else(text: str, shown: str):
    assert without_secrets(text) == shown
    assert without_keys(text) == text


@pytest.mark.parametrize(
    ("name", "value"),
    [("MY_KEY", "EMPTY"), ("DISABLE_TOKEN", "true"), ("CASE_KEY", "lowercase"), ("A_KEY", "/tmp")],
)
def test_words_switches_and_paths_are_no_secrets(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str
):
    monkeypatch.setenv(name, value)
    assert without_secrets(f"a {value} b") == f"a {value} b"


def test_a_file_that_is_written_holds_no_key(tmp_path):
    write_json(tmp_path / "x.json", {"said": KEY, KEY: 1})
    assert json.loads((tmp_path / "x.json").read_text()) == {"said": REDACTED, REDACTED: 1}


def test_the_scripts_of_a_page_hold_nothing_that_is_removed():
    script = script_bundle()
    assert without_secrets(script) == script


def test_every_claim_of_the_security_page_names_a_test_that_exists():
    root = Path(__file__).parents[1]
    named = re.findall(r"`(tests/\w+\.py)::(\w+)`", (root / "SECURITY.md").read_text("utf-8"))
    assert len(named) > 30
    for file, test in named:
        assert f"def {test}(" in (root / file).read_text("utf-8"), (file, test)
