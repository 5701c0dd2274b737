"""The version in the JSON that is written: always there, old files are read, and newer ones refused in words.

`written/ranking-1.json` is a file that version 1 wrote. It stays as it is; a form that it cannot be read as
gets a version, a file and a reader of its own.
"""

import json
from pathlib import Path

import pytest

from preceptor import DataError
from preceptor.ranking.race.result import RaceResult
from preceptor.ranking.result import Ranking
from preceptor.ranking.schema import SCHEMA_VERSION
from small_study import preceptor, write_teachers

pytestmark = pytest.mark.usefixtures("private_cache", "one_thread")

FIRST = Path(__file__).parent / "written" / "ranking-1.json"
OUTCOMES = "teacher,student,AP\nalpha,any student,1\nbeta,any student,3\ngamma,any student,2\n"
STUDY = """
no_student = true
data = { responses = ["alpha.jsonl", "beta.jsonl", "gamma.jsonl"] }
reward = { kind = "column", column = "reward" }
"""


@pytest.fixture(autouse=True)
def at_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Three teachers and outcomes of theirs in the working directory."""
    monkeypatch.chdir(tmp_path)
    write_teachers(tmp_path, teachers=3)
    (tmp_path / "outcomes.csv").write_text(OUTCOMES)


def written_as(version: object) -> Path:
    """Write the file of version 1 under another version."""
    (ranking,) = json.loads(FIRST.read_text(encoding="utf-8"))
    path = Path("other.json")
    path.write_text(json.dumps([ranking | {"schema_version": version}]), encoding="utf-8")
    return path


def test_a_ranking_of_version_1_is_read_with_every_field_as_it_was_written():
    (found,) = json.loads(FIRST.read_text(encoding="utf-8"))
    ranking = Ranking.from_json(FIRST.read_text(encoding="utf-8"))
    assert ranking.best.teacher == "beta" and ranking["beta"].estimates["reward"].n == 6
    again = ranking.to_dict()
    # How the verdict is worded may change; what it is may not.
    assert again.pop("verdict")["claim"] == found.pop("verdict")["claim"]  # type: ignore[index]
    assert {name: again[name] for name in found} == found


def test_a_ranking_of_version_1_is_a_prediction_and_an_outcome():
    for words in ((FIRST, "--observed", "outcomes.csv"), (FIRST, "--observed", FIRST)):
        result = preceptor("agreement", *words, "--json", "agreement.json")
        assert result.exit_code == 0, result.output
        found = json.loads(Path("agreement.json").read_text())
        assert sorted(found["teachers"]) == ["alpha", "beta", "gamma"]


def test_a_report_compares_with_outcomes_of_version_1():
    Path("study.toml").write_text(STUDY)
    assert preceptor("run", "study.toml").exit_code == 0
    result = preceptor("report", "study.toml", "--observed", FIRST)
    assert result.exit_code == 0, result.output
    refused = preceptor("report", "study.toml", "--observed", written_as(SCHEMA_VERSION + 1))
    assert refused.exit_code == 1 and "A newer one wrote it" in refused.stderr


def test_what_a_newer_version_wrote_is_refused_wherever_it_is_read():
    newer = written_as(SCHEMA_VERSION + 1)
    expected = (
        f"schema_version {SCHEMA_VERSION + 1}, and this Preceptor reads up to {SCHEMA_VERSION}"
    )
    for words in (
        ("agreement", newer, "--observed", "outcomes.csv"),
        ("agreement", FIRST, "--observed", newer),
        ("studies", "show", newer),
    ):
        result = preceptor(*words)
        assert result.exit_code == 1 and expected in result.stderr
        assert "pip install --upgrade preceptor" in result.stderr
    for reader in (Ranking, RaceResult):
        with pytest.raises(DataError, match=expected):
            reader.from_json(newer.read_text())


@pytest.mark.parametrize("version", ["1", 0, True, None, 1.0])
def test_what_is_no_version_is_refused(version: object):
    with pytest.raises(DataError, match="expected a whole number from 1"):
        Ranking.from_json(written_as(version).read_text())


def test_every_json_says_its_version_first():
    files = [f"{name}.jsonl" for name in ("alpha", "beta", "gamma")]
    ranked = ("rank", *files, "--reward-column", "reward")
    for words in (
        ranked,
        (*ranked, "--race"),
        ("agreement", FIRST, "--observed", "outcomes.csv"),
        ("studies", "list"),
        ("studies", "show", "rsr2026"),
        ("studies", "record"),
        ("list", "teachers"),
        ("store", "list"),
    ):
        result = preceptor(*words, "--json", "-")
        assert result.exit_code == 0, result.output
        found = json.loads(result.stdout)
        for one in found if isinstance(found, list) else [found]:
            assert next(iter(one.items())) == ("schema_version", SCHEMA_VERSION), words
