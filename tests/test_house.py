"""The house rules that a machine can check."""

import ast
import importlib
import importlib.util
import re
import subprocess
import sys
import tomllib
from collections.abc import Collection
from functools import cache
from pathlib import Path

import pytest

import preceptor
from preceptor.config.base import checked
from preceptor.config.runtime import Runtime
from preceptor.config.study import Study

ROOT = Path(__file__).parents[1]
HELP = """
from preceptor.cli.app import cli
try:
    cli(['{}', '--help'])
except SystemExit:
    pass
"""
HEAVY = (
    "torch",
    "transformers",
    "datasets",
    "pyarrow",
    "pandas",
    "numpy",
    "pydantic",
    "rich",
    "tomllib",
)


def tracked(*patterns: str) -> list[Path]:
    return [path for pattern in patterns for path in sorted(ROOT.glob(pattern))]


def loaded_after(code: str) -> set[str]:
    """Run code in a fresh interpreter; return the top-level modules it left loaded."""
    script = f"{code}\nimport sys; print('\\n'.join(sorted(sys.modules)))"
    done = subprocess.run(
        [sys.executable, "-c", script],
        capture_output=True,
        text=True,
        check=True,
        env={"PYTHONPATH": str(ROOT / "src"), "PATH": ""},
    )
    return {line.partition(".")[0] for line in done.stdout.splitlines()}


def test_public_names_are_all_there_and_sorted():
    assert preceptor.__all__ == sorted(preceptor.__all__)
    for name in preceptor.__all__:
        assert getattr(preceptor, name) is not None
    with pytest.raises(AttributeError, match="nothing_like_it"):
        preceptor.nothing_like_it  # noqa: B018


def test_a_public_name_survives_the_import_of_every_module():
    # A module of the same name would silently replace a lazily loaded function.
    for path in tracked("src/preceptor/**/*.py"):
        parts = path.relative_to(ROOT / "src").with_suffix("").parts
        if path.name == "triton_fold.py" and importlib.util.find_spec("triton") is None:
            continue
        if "__main__" not in parts:
            importlib.import_module(".".join(part for part in parts if part != "__init__"))
    assert callable(preceptor.rank)
    assert callable(preceptor.run)


@pytest.mark.parametrize(
    "code",
    [
        "import preceptor",
        "import preceptor.cli.app",
        HELP.replace("'{}', ", ""),
    ],
)
def test_nothing_heavy_is_loaded_to_answer_a_question_about_usage(code: str):
    assert loaded_after(code).isdisjoint(HEAVY)


@pytest.mark.parametrize(
    "command", ["rank", "generate", "train", "evaluate", "export", "demo", "instructions"]
)
def test_the_options_of_a_command_load_pydantic_and_nothing_else_that_is_heavy(command: str):
    # Options are made of the tables' fields, and the tables are pydantic's.
    assert loaded_after(HELP.format(command)).isdisjoint(set(HEAVY) - {"pydantic"})


@pytest.mark.parametrize("module", ["config.catalogue", "studies"])
def test_data_of_the_package_load_nothing_heavy_but_their_reader(module: str):
    assert loaded_after(f"import preceptor.{module}").isdisjoint({*HEAVY} - {"tomllib"})


def test_the_tables_of_a_study_load_pydantic_and_nothing_else_that_is_heavy():
    loaded = loaded_after("import preceptor.config.study")
    assert loaded.isdisjoint(set(HEAVY) - {"pydantic"})


@pytest.mark.parametrize("path", tracked("examples/*.toml"), ids=lambda path: path.name)
def test_every_example_study_parses(path: Path):
    check_study(path.read_text(encoding="utf-8"))


def test_every_study_in_the_documents_parses():
    blocks = [
        block
        for path in tracked("README.md", "docs/**/*.md")
        for block in re.findall(r"```toml\n(.*?)```", path.read_text(encoding="utf-8"), re.S)
        if not block.startswith("[project")
    ]
    assert blocks
    for block in blocks:
        check_study(block)


def check_study(text: str) -> None:
    tables = tomllib.loads(text)
    checked(Runtime, tables.pop("runtime", {}), where="runtime")
    checked(Study, tables, where="study")


def test_no_file_is_longer_than_500_lines():
    long = {
        str(path.relative_to(ROOT)): lines
        for path in tracked("src/**/*.py", "tests/*.py", "bench/*.py")
        if (lines := len(path.read_text(encoding="utf-8").splitlines())) > 500
    }
    assert not long


def test_every_source_file_says_what_it_is_for():
    for path in tracked("src/**/*.py", "tests/*.py", "bench/*.py"):
        assert re.match(r'r?"""', path.read_text(encoding="utf-8")), path


def test_no_text_names_a_path_of_some_machine():
    local = re.compile(r"/(?:work|root|home/\w+)/|/tmp/\w")
    for path in tracked(
        "src/**/*.py", "bench/*.py", "docs/**/*.md", "docs/*.py", "*.md", "examples/*", "Makefile"
    ):
        if path.is_file():
            found = local.search(path.read_text(encoding="utf-8"))
            assert found is None, f"{path}: {found and found.group()}"


KINDS = {"Scorer", "TeacherBackend", "Source", "PairJudge", "Benchmark", "Computed"}
"""The protocols, and the tables of rewards, whose implementations are told apart by their members alone."""


def imported(tree: ast.Module) -> dict[str, str]:
    """Return the modules that names of a module come from."""
    return {
        alias.asname or alias.name: node.module or ""
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }


def test_nobody_asks_for_a_concrete_kind_outside_its_own_folder():
    trees = {path: ast.parse(path.read_text("utf-8")) for path in tracked("src/preceptor/**/*.py")}
    bases: dict[str, set[str]] = {}
    for tree in trees.values():
        for node in ast.walk(tree):
            if isinstance(node, ast.ClassDef):
                own = {ast.unparse(base).partition("[")[0] for base in node.bases}
                bases.setdefault(node.name, set()).update(own)
    concrete = set(KINDS)
    while more := {name for name, own in bases.items() if own & concrete} - concrete:
        concrete |= more
    found = []
    for path, tree in trees.items():
        folder = ".".join(path.relative_to(ROOT / "src").parts[:2])
        origin = imported(tree)
        for node in ast.walk(tree):
            if isinstance(node, ast.Call) and ast.unparse(node.func) in (
                "isinstance",
                "issubclass",
            ):
                asked = {one.id for one in ast.walk(node.args[1]) if isinstance(one, ast.Name)}
                outside = {
                    name
                    for name in asked & concrete
                    if name in origin and not origin[name].startswith(folder)
                }
                found += [f"{path.name}:{node.lineno} {name}" for name in outside]
    assert {"LikelihoodScorer", "PluginReward", "AlpacaEval"} <= concrete
    assert not found


def test_the_line_is_one_page():
    page = ROOT / "src" / "preceptor" / "pipeline" / "pipeline.py"
    assert len(page.read_text(encoding="utf-8").splitlines()) < 150


def test_the_root_holds_what_a_user_imports():
    names = {path.name for path in tracked("src/preceptor/*.py")}
    assert names == {"__init__.py", "__main__.py", "api.py", "errors.py", "types.py"}


def test_no_chain_of_imports_is_longer_than_12_modules():
    """Counted over what is imported when a module is: not for types alone, not inside functions."""
    files = {module_of(path): path for path in tracked("src/**/*.py")}
    arrows = {name: imports_of(path, files.keys()) - {name} for name, path in files.items()}

    @cache
    def chain(name: str) -> tuple[str, ...]:
        return (name, *max((chain(below) for below in arrows[name]), key=len, default=()))

    longest = max(map(chain, files), key=len)
    assert len(longest) <= 12, " > ".join(longest)


def module_of(path: Path) -> str:
    parts = path.relative_to(ROOT / "src").with_suffix("").parts
    return ".".join(part for part in parts if part != "__init__")


def imports_of(path: Path, known: Collection[str]) -> set[str]:
    """Return the modules of the package that importing this file imports, the package itself left out."""
    found: set[str] = set()
    waiting: list[ast.stmt] = list(ast.parse(path.read_text()).body)
    while waiting:
        match waiting.pop():
            case ast.ImportFrom(module=str(module), names=names):
                found |= {f"{module}.{one.name}" for one in names} & known or {module} & known
            case ast.If(test=test, body=body, orelse=other):
                waiting += other if ast.unparse(test) == "TYPE_CHECKING" else [*body, *other]
            case ast.Try(body=body):
                waiting += body
    return found - {"preceptor"}
