"""Every JSON that a command writes is of a published form, and no form loses what programs may rely on.

`written/json-forms-1.txt` has every field of version 1 with what it may hold. A line may be added; one that
is gone or holds more breaks who reads it, and needs another `SCHEMA_VERSION`, with a file of its own.
"""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from json_form import SCHEMAS, check
from preceptor.benchmarks.general_ability import Ability, ability_changes
from preceptor.cli.ability import _change_record, _record
from preceptor.cli.app import NAMES, cli
from preceptor.ranking.schema import SCHEMA_VERSION, versioned
from small_study import preceptor, write_teachers

pytestmark = pytest.mark.usefixtures("private_cache", "one_thread")

FROZEN = Path(__file__).parent / "written" / f"json-forms-{SCHEMA_VERSION}.txt"
STUDY = """
no_student = true
data = { responses = ["alpha.jsonl", "beta.jsonl", "gamma.jsonl"] }
reward = { kind = "column", column = "reward" }
"""
FILES = ("alpha.jsonl", "beta.jsonl", "gamma.jsonl")
WRITTEN: Mapping[str, tuple[tuple[str, ...], ...]] = {
    "ranking": (("rank", *FILES, "--reward-column", "reward"),),
    "race": (("rank", *FILES, "--reward-column", "reward", "--race"),),
    "plan": (("plan", "study.toml"),),
    "agreement": (
        ("agreement", "rsr2026", "--n-resamples", "100"),
        (
            *("agreement", "rsr2026", "--n-resamples", "100", "--by-family", "--calibrate"),
            *("--baseline", "prior"),
        ),
    ),
    "studies": (("studies", "list"),),
    "findings": (("studies", "show", "xu2024"), ("studies", "show", "rsr2026")),
    "record": (("studies", "record"), ("studies", "record", "--by-student")),
    "store": (("store", "list"),),
    "teachers": (("list", "teachers"),),
}
ELSEWHERE = {
    "ability": "below",
    "evaluation": "tests/test_evaluate_command.py",
    "instructions": "tests/test_instructions_command.py",
    "judge": "tests/test_evaluate_judging.py",
    "tokens": "tests/test_tokens_command.py",
    "validation": "tests/test_dimensions.py",
}
"""Forms that need a model or more files are held where there are some."""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Three teachers and a study file in the working directory."""
    monkeypatch.chdir(tmp_path)
    write_teachers(tmp_path, teachers=3, instructions=60)
    Path("study.toml").write_text(STUDY, encoding="utf-8")
    return tmp_path


@pytest.mark.parametrize("name", WRITTEN)
def test_what_a_command_writes_is_of_its_form(name: str, folder: Path):
    for words in WRITTEN[name]:
        if name == "store":
            assert preceptor(*WRITTEN["ranking"][0]).exit_code == 0
        result = preceptor(*words, "--json", "-")
        assert result.exit_code == 0, result.output
        found = json.loads(result.stdout)
        assert found
        check(name, found)


def test_general_ability_is_of_its_form():
    def ability(values: list[float], error: float) -> Ability:
        documents = {str(place): value for place, value in enumerate(values)}
        return Ability("t", "acc,none", sum(values) / 4, error, 4, documents=documents)

    found = [ability([1.0, 0.0, 1.0, 1.0], 0.25)]
    changes = ability_changes([ability([0.0, 0.0, 1.0, 1.0], float("nan"))], found)
    record = {
        "abilities": list(map(_record, found)),
        "changes": list(map(_change_record, changes)),
    }
    check("ability", json.loads(json.dumps(versioned(record), allow_nan=False)))


def test_every_form_is_held_to_what_is_written_and_every_command_with_json_has_one():
    assert {*WRITTEN, *ELSEWHERE} == set(SCHEMAS)
    root = Path(__file__).parents[1]
    for name, path in ELSEWHERE.items():
        if path != "below":
            assert f'check("{name}", ' in (root / path).read_text(encoding="utf-8"), name
    page = (root / "docs" / "reference" / "json.md").read_text(encoding="utf-8")
    for words in _with_json():
        assert f"`{words}" in page or f"`preceptor {words}" in page, words


def _with_json() -> Iterator[str]:
    """Yield every command that has the option --json."""
    for name in NAMES:
        command = cli.commands[name]
        inner: Mapping[str, Any] = getattr(command, "commands", {"": command})
        for part, one in inner.items():
            context = one.make_context(part, [], resilient_parsing=True)
            if any("--json" in option.opts for option in one.get_params(context)):
                yield f"{name} {part}".strip()


@pytest.mark.parametrize("name", SCHEMAS)
def test_a_schema_is_one_and_refuses_what_it_is_not(name: str):
    jsonschema.Draft202012Validator.check_schema(SCHEMAS[name])
    with pytest.raises(jsonschema.ValidationError, match="'schema_version' is a required"):
        check(name, {})


def fields(schema: Mapping[str, Any]) -> dict[str, set[str]]:
    """Return what each field of a schema may hold, by its path; `[]` is each of a list, `*` each by name."""
    found: dict[str, set[str]] = {}

    def walk(node: Mapping[str, Any], path: str, seen: tuple[str, ...]) -> set[str]:
        if "$ref" in node:
            name = node["$ref"].rpartition("/")[2]
            return {"object"} if name in seen else walk(schema["$defs"][name], path, (*seen, name))
        if "anyOf" in node:
            return set().union(*(walk(one, path, seen) for one in node["anyOf"]))
        if "enum" in node or "const" in node:
            return {json.dumps(one) for one in node.get("enum", [node.get("const")])}
        for name, one in node.get("properties", {}).items():
            place = f"{path}.{name}".lstrip(".")
            # A new code of warnings is an addition, as the page says.
            held = {"string"} if name == "code" else walk(one, place, seen)
            found.setdefault(place, set()).update(held)
            if name not in node.get("required", ()):
                found[place].add("nothing")
        inner = [(f"{path}[]", one) for one in node.get("prefixItems", ())]
        inner += [(f"{path}[]", node["items"])] if isinstance(node.get("items"), dict) else []
        more = node.get("additionalProperties")
        inner += [(f"{path}.*", more)] if isinstance(more, dict) else []
        for place, one in inner:
            found.setdefault(place, set()).update(walk(one, place, seen))
        kind = node.get("type", "anything")
        return set(kind) if isinstance(kind, list) else {kind}

    walk(schema, "", ())
    return found


def breaks(before: Mapping[str, set[str]], now: Mapping[str, set[str]]) -> list[str]:
    """Return what breaks who relies on how it was: a field that is gone, or that may hold more."""
    gone = [f"{path} is gone" for path in before if path not in now]
    more = {path: now[path] - held for path, held in before.items() if path in now}
    # A whole number is a number.
    wider = [
        f"{path} may hold {', '.join(sorted(new))}"
        for path, new in more.items()
        if new - ({"integer"} if "number" in before[path] else set())
    ]
    return gone + wider


def test_no_form_loses_what_its_version_promised():
    kept: dict[str, set[str]] = {}
    for line in FROZEN.read_text(encoding="utf-8").splitlines():
        path, _, held = line.partition("\t")
        kept[path] = set(held.split(" | "))
    now = {
        f"{name}: {path}": held
        for name, schema in SCHEMAS.items()
        for path, held in fields(schema).items()
    }
    assert not breaks(kept, now)
    new = [f"{path}\t{' | '.join(sorted(now[path]))}" for path in now if path not in kept]
    assert not new, f"add to {FROZEN.name}:\n" + "\n".join(new)


def test_a_break_is_seen_and_an_addition_is_none():
    before = {"a": {"integer"}, "b": {"number", "null"}, "c": {"string"}}
    assert not breaks(before, {**before, "d": {"string"}, "b": {"integer", "null"}})
    assert breaks(before, {"a": {"integer"}, "b": {"number", "null"}}) == ["c is gone"]
    assert breaks(before, {**before, "a": {"integer", "null"}}) == ["a may hold null"]
