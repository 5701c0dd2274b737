"""Python in the documents parses, and what it imports or names of the package is there."""

import ast
import importlib
import inspect
import re
from pathlib import Path

import pytest

import preceptor
from preceptor.config.keywords import RANK

ROOT = Path(__file__).parents[1]
BLOCKS = [
    pytest.param(block, id=f"{path.relative_to(ROOT)}:{place}")
    for path in (ROOT / "README.md", *sorted(ROOT.glob("docs/**/*.md")))
    if path.name != "python.md"  # signatures, made of the code
    for place, block in enumerate(
        re.findall(r"```python[^\n]*\n(.*?)```", path.read_text(encoding="utf-8"), re.S)
    )
]


TABLES = {
    "rank": {word for group in RANK.values() for word in group},
    "rank_all": {word for group in RANK.values() for word in group},
    "train": {*preceptor.Recipe.model_fields, "device"},
}
"""What the options of functions may be called."""


def missing(block: str) -> list[str]:
    """Return the names of the package that a block uses and that are not there."""
    gone = []
    for node in ast.walk(ast.parse(block)):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("preceptor"):
            module = importlib.import_module(str(node.module))
            gone += [
                f"{node.module}.{one.name}" for one in node.names if not hasattr(module, one.name)
            ]
        elif (
            isinstance(node, ast.Attribute)
            and isinstance(node.value, ast.Name)
            and node.value.id == "preceptor"
            and node.attr not in preceptor.__all__
            and not hasattr(preceptor, node.attr)
        ):
            gone.append(f"preceptor.{node.attr}")
        elif isinstance(node, ast.Call) and ast.unparse(node.func).startswith("preceptor."):
            gone += unknown_keywords(node)
    return gone


def unknown_keywords(call: ast.Call) -> list[str]:
    """Return the keywords that a public function does not take, by itself or as fields of tables."""
    name = ast.unparse(call.func).removeprefix("preceptor.")
    function = getattr(preceptor, name, None)
    if function is None:
        return []
    known = set(inspect.signature(function).parameters)
    if "options" in known:
        tables = TABLES.get(name)
        if tables is None:
            return []
        known |= tables
    return [f"{name}({one.arg}=)" for one in call.keywords if one.arg and one.arg not in known]


@pytest.mark.parametrize("block", BLOCKS)
def test_what_an_example_names_is_there(block: str):
    assert not missing(block)


def test_what_is_not_there_is_seen():
    assert missing("import preceptor\npreceptor.rnak()") == ["preceptor.rnak"]
    assert missing("import preceptor\npreceptor.rank_all('x', student='y', limit=3)") == [
        "rank_all(student=)"
    ]
    assert missing("from preceptor.types import Nothing") == ["preceptor.types.Nothing"]
