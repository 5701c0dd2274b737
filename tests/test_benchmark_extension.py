"""A benchmark of another package: one class in one file, judged, scored, ranked, and named in a study."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from chat_server import serving
from plugin_package import EXTENSIONS, install
from preceptor.benchmarks.average_performance import student_results
from preceptor.benchmarks.observed import observed_ranking, ranking_of_results
from preceptor.benchmarks.pairwise import ChoiceJudge, served_model
from preceptor.benchmarks.registry import benchmark_named
from preceptor.config.runtime import Endpoint
from preceptor.errors import StudyError
from preceptor.store.store import Store
from preceptor.validation.questions import evaluation_sets_of
from small_study import preceptor
from small_validation import runtime_at, study_of, tables
from test_pairwise import prefers

COUNT = 40


@pytest.fixture(autouse=True)
def capitals(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    site = tmp_path / "site"
    site.mkdir()
    monkeypatch.syspath_prepend(site)
    install(site, "preceptor-capitals", "capitals", {"benchmarks": {"capitals": "Capitals"}})
    shutil.copy(EXTENSIONS / "capitals.py", site)


def rows_of(model: str) -> list[dict[str, Any]]:
    return [{"model": model, "country": f"c{n}", "city": f"{model} {n}"} for n in range(COUNT)]


def test_it_is_judged_scored_and_ranked_like_any_other(tmp_path: Path):
    benchmark = benchmark_named("capitals")
    answers = benchmark.read_answers([*rows_of("good"), *rows_of("poor")], "answers.json")
    with serving(otherwise=prefers("good", 0.9)) as told:
        judge = ChoiceJudge(served_model("served", Endpoint(url=told.url)))
        judged = benchmark.judge(answers, benchmark.questions(), judge, Store(tmp_path / "store"))
    results = benchmark.score(judged.verdicts).results
    by_measure = ranking_of_results(student_results(results), student="s", settings={})
    by_wins = observed_ranking(judged.verdicts, student="s")
    assert (by_measure.by, by_wins.by) == ("CAP", "win_rate")
    for ranking in (by_measure, by_wins):
        assert [one.teacher for one in ranking.teachers] == ["good", "poor"]
        assert ranking.teachers[0].estimates[ranking.by].value == pytest.approx(90)
        assert ranking.teachers[0].n == COUNT


def test_the_command_reads_judges_and_prints_it(tmp_path: Path):
    file = tmp_path / "answers.json"
    file.write_text(json.dumps(rows_of("good")))
    with serving(otherwise=prefers("good", 0.8)) as told:
        given = ["--judge", "served", "--judge-url", told.url, "--store", tmp_path / "store"]
        found = preceptor("evaluate", file, *given, "--json", "-")
        shown = preceptor("evaluate", file, *given)
    (row,) = json.loads(found.stdout)["results"]
    assert (row["CAP"], row["capitals_n"], row["AP"]) == (pytest.approx(80), COUNT, None)
    assert "CAP [95% interval]" in shown.stdout and "CAP: Capitals, win rate" in shown.stdout


def test_a_study_names_it(tmp_path: Path, model_folder: Path):
    given = tables(tmp_path, model_folder)
    del given["evaluate"]["questions"]
    given["evaluate"]["benchmarks"] = ["capitals"]
    (found,) = evaluation_sets_of(study_of(given), runtime_at(tmp_path / "store"))
    (task,) = found.tasks
    assert (task.benchmark.title, len(task.questions.instructions)) == ("Capitals", COUNT)
    given["evaluate"]["benchmarks"] = ["capital"]
    with pytest.raises(StudyError, match=r"No benchmark is called 'capital'.*mean 'capitals'"):
        evaluation_sets_of(study_of(given), runtime_at(tmp_path / "store"))
