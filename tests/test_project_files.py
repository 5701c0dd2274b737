"""The files for those who join: workflows that parse, run what exists, and have few rights."""

import re
import sys
import tomllib
from collections.abc import Iterator
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[1]
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
FORMS = sorted((ROOT / ".github" / "ISSUE_TEMPLATE").glob("[!c]*.yml"))
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]


def read(path: Path) -> dict[Any, Any]:
    found = yaml.safe_load(path.read_text(encoding="utf-8"))
    assert isinstance(found, dict)
    return found


def steps(path: Path) -> Iterator[dict[str, Any]]:
    for job in read(path)["jobs"].values():
        yield from job["steps"]


def named(path: Path) -> str:
    return path.name


@pytest.mark.parametrize("path", WORKFLOWS, ids=named)
def test_a_workflow_runs_pinned_actions_with_few_rights_and_an_end(path: Path):
    found = read(path)
    assert found["permissions"] in ({}, {"contents": "read"})
    for job in found["jobs"].values():
        assert 0 < job["timeout-minutes"] <= 120
        assert set(job.get("permissions", {})) <= {"contents", "id-token", "pages"}
        assert job.get("permissions", {}).get("contents", "read") == "read"
    for step in steps(path):
        if "uses" in step:
            assert re.fullmatch(r"[\w./-]+@[0-9a-f]{40}", step["uses"]), step
        if step.get("uses", "").startswith("actions/checkout@"):
            assert step["with"]["persist-credentials"] is False
        assert "secrets." not in str(step)


@pytest.mark.parametrize("path", WORKFLOWS, ids=named)
def test_what_a_workflow_runs_exists(path: Path):
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.M))
    said = "\n".join(step.get("run", "") for step in steps(path))
    assert set(re.findall(r"\bmake ([a-z]+)", said)) <= targets
    for test in re.findall(r"tests/\w+\.py", said):
        assert (ROOT / test).is_file()


def test_every_python_that_the_package_names_is_tested():
    versions = {
        line.rpartition(" ")[2] for line in PROJECT["classifiers"] if re.search(r":: 3\.\d+$", line)
    }
    jobs = read(ROOT / ".github" / "workflows" / "test.yml")["jobs"]
    matrices = [job["strategy"]["matrix"]["python"] for job in jobs.values() if "strategy" in job]
    assert matrices and all(set(one) == versions for one in matrices)


@pytest.mark.parametrize("path", FORMS, ids=named)
def test_a_form_asks_under_names_that_differ(path: Path):
    form = read(path)
    assert {"name", "description", "body"} <= set(form)
    ids = [one["id"] for one in form["body"]]
    assert len(ids) == len(set(ids)) and all(one["type"] == "textarea" for one in form["body"])
    assert all(one["attributes"]["label"] for one in form["body"])


def test_the_hooks_before_a_commit_are_those_of_make_check():
    (repository,) = read(ROOT / ".pre-commit-config.yaml")["repos"]
    check = (ROOT / "Makefile").read_text(encoding="utf-8")
    assert repository["repo"] == "local"
    for hook in repository["hooks"]:
        tool = hook["entry"].removeprefix(".venv/bin/").split()[0]
        assert f"$(BIN)/{tool}" in check


@pytest.mark.parametrize("name", ["Dockerfile", "Dockerfile.cuda"])
def test_an_image_installs_extras_that_exist_and_runs_as_nobody_special(name: str):
    text = (ROOT / name).read_text(encoding="utf-8")
    (extras,) = re.findall(r"\.whl\)\[([a-z,]+)\]", text)
    assert set(extras.split(",")) <= set(PROJECT["optional-dependencies"])
    assert text.index("USER preceptor") < text.index("ENTRYPOINT")
    for line in re.findall(r"^COPY (?!--from)(\S+)", text, re.M):
        assert (ROOT / line).exists()


def test_what_is_shipped_as_source_is_named_and_exists():
    build = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["hatch"]
    named_paths = build["build"]["targets"]["sdist"]["only-include"]
    assert all((ROOT / one).exists() for one in named_paths)
    assert not {".ci", "shared", "dist"}.intersection(named_paths)
    assert (ROOT / "src" / "preceptor" / "py.typed").is_file()


@pytest.fixture
def hook(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The hook of the build, for which the builder itself need not be installed."""
    class_alone = SimpleNamespace(MetadataHookInterface=object)
    for name in ("hatchling", "hatchling.metadata", "hatchling.metadata.plugin"):
        monkeypatch.setitem(sys.modules, name, ModuleType(name))
    monkeypatch.setitem(sys.modules, "hatchling.metadata.plugin.interface", class_alone)
    spec = spec_from_file_location("hatch_build", ROOT / "hatch_build.py")
    assert spec is not None and spec.loader is not None
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def metadata_of(hook: ModuleType) -> dict[str, Any]:
    found: dict[str, Any] = {"version": "1.2.3"}
    made = hook.Repository()
    made.root = str(ROOT)
    made.update(found)
    return found


def test_a_release_links_to_the_files_of_its_tag(hook: ModuleType, monkeypatch: pytest.MonkeyPatch):
    home = "https://example.org/owner/name"
    monkeypatch.setenv("PRECEPTOR_REPOSITORY", f"{home}/")
    found = metadata_of(hook)
    text = found["readme"]["text"]
    targets = re.findall(r"\]\(([^)]+)\)|src=\"([^\"]+)\"", text)
    assert len(targets) > 5
    for link, image in targets:
        start = f"{home}/raw/v1.2.3/" if image else f"{home}/blob/v1.2.3/"
        path = (image or link).removeprefix(start)
        assert (ROOT / path).is_file(), path
    assert found["urls"]["Repository"] == home
    assert {one.rpartition("main/")[2] for one in found["urls"].values() if "/blob/" in one} == {
        "docs/index.md",
        "CHANGELOG.md",
    }
    monkeypatch.setenv("PRECEPTOR_REPOSITORY", "owner/name")
    with pytest.raises(ValueError, match="expected https://"):
        metadata_of(hook)


def test_a_build_that_knows_no_address_takes_the_readme_as_it_is(
    hook: ModuleType, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.delenv("PRECEPTOR_REPOSITORY", raising=False)
    found = metadata_of(hook)
    assert found["readme"]["text"] == (ROOT / "README.md").read_text(encoding="utf-8")
    assert found["urls"] == {}
    assert set(PROJECT["dynamic"]) == {"readme", "urls"}
