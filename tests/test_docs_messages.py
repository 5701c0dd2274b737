"""The page of troubleshooting quotes messages as the source has them."""

import ast
import re
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "reference" / "troubleshooting.md"
TITLES = [
    title
    for title in re.findall(r"^### (.+)$", PAGE.read_text(encoding="utf-8"), re.M)
    if "…" in title or title.endswith(".") or " " in title
]


def words(node: ast.expr) -> str:
    """Return a text as it stands in the source, with … for what is filled in."""
    match node:
        case ast.Constant(value=str(text)):
            return text
        case ast.JoinedStr(values=values):
            return "".join(words(one) if isinstance(one, ast.Constant) else "…" for one in values)
        case ast.BinOp(left=left, op=ast.Add(), right=right):
            return words(left) + words(right)
    return "…"


@cache
def texts() -> list[str]:
    """Return every text of the source."""
    return [
        words(node)
        for path in sorted(ROOT.glob("src/preceptor/**/*.py"))
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Constant | ast.JoinedStr | ast.BinOp)
    ]


def is_said(title: str) -> bool:
    """Tell whether some text of the source has all fixed parts of a message, in their order."""
    parts = [part.strip(" '") for part in title.split("…")]
    fixed = [re.escape(part) for part in parts if len(part) > 2]
    pattern = re.compile(".*".join(fixed), re.S)
    return any(pattern.search(text) for text in texts())


@pytest.mark.parametrize("title", TITLES)
def test_a_message_stands_in_the_source(title: str):
    assert is_said(title)


def test_what_is_said_nowhere_is_seen():
    assert len(TITLES) > 25
    assert not is_said("'…' is not valid YAML: …")
