"""Tasks of lm-eval as a dimension: scored by the harness itself, stored once, refused where it is lacking."""

import json
import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from preceptor.benchmarks.harness import benchmark
from preceptor.config.base import checked
from preceptor.config.finetune import Evaluate
from preceptor.errors import StudyError
from small_study import command, preceptor
from small_validation import tables, write_study
from test_general_ability import DOCUMENTS, TASK

needs_harness = pytest.mark.skipif(
    find_spec("lm_eval") is None, reason="needs the package lm-eval, which is not installed"
)


def write_task(folder: Path) -> Path:
    """Write a task of twelve questions of two choices, of which examples are drawn from the same."""
    folder.mkdir()
    data = folder / "sums.jsonl"
    data.write_text("".join(json.dumps(row) + "\n" for row in DOCUMENTS))
    (folder / "tiny.yaml").write_text(TASK.format(file=data))
    return folder


def study_at(tmp_path: Path, model: Path, **more: Any) -> Path:
    """Write a study of one judged dimension and one of the task."""
    given = tables(tmp_path, model)
    harness = {"benchmarks": "lm-eval", "tasks": "tiny_sums", "name": "sums", **more}
    given["evaluate"] = [{**given["evaluate"], "name": "preference"}, harness]
    return write_study(tmp_path / "study.toml", given, tmp_path / "store")


# In a process of its own: the harness warns, logs and sets seeds of whole libraries.
CHECK = """
import json, sys
from pathlib import Path
from preceptor.benchmarks.general_ability import measure_ability
from preceptor.config.ability import AbilityOptions
from preceptor.config.runtime import Runtime
options = AbilityOptions(task_folder=sys.argv[2], num_fewshot=2)
found = {}
for folder in sorted(Path(sys.argv[1]).iterdir()):
    if folder.is_dir():
        (one,) = measure_ability(folder, ["tiny_sums"], options, Runtime(device="cpu"))
        found[folder.name] = [one.value, one.n]
print("RESULT" + json.dumps(found))
"""


@needs_harness
def test_a_task_is_a_dimension_whose_scores_are_those_of_the_harness_itself(
    tmp_path: Path, model_folder: Path
):
    tasks = write_task(tmp_path / "tasks")
    study = study_at(tmp_path, model_folder, task_folder=str(tasks), num_fewshot=2)
    environment = {
        **os.environ,
        "PYTHONPATH": str(Path(__file__).parents[1] / "src"),
        "HF_HUB_OFFLINE": "1",
        "HF_DATASETS_OFFLINE": "1",
        "HF_HOME": str(tmp_path / "hub"),
        "PRECEPTOR_CACHE": str(tmp_path / "cache"),
    }

    def run(*words: object) -> str:
        done = subprocess.run([*map(str, words)], capture_output=True, text=True, env=environment)
        assert done.returncode == 0, done.stderr[-3000:] + done.stdout[-2000:]
        return done.stdout

    output = tmp_path / "result.json"
    shown = run(*command("run", study, "--json", output))
    found = json.loads(output.read_text())
    observed = found["observed"][1]
    assert (observed["by"], observed["settings"]["dimension"]) == ("LM", "sums")
    assert observed["settings"]["judge"] == "lm-eval"
    models = {
        one["teacher"]: one["model"] for one in found["finetuned"] if one["dimension"] == "sums"
    }
    line = run(sys.executable, "-c", CHECK, tmp_path / "store" / "models", tasks)
    alone = json.loads(line[line.index("RESULT") + 6 :])
    for teacher in observed["teachers"]:
        value, n = alone[models[teacher["teacher"]]]
        assert teacher["estimates"]["LM"]["value"] == pytest.approx(100 * value)
        assert teacher["n"] == n == len(DOCUMENTS)
    figures = [one["answered"] for one in found["finetuned"] if one["dimension"] == "sums"]
    assert all((one["answers"], one["tokens"]) == (12, None) for one in figures)
    text = " ".join(shown.split())
    assert "LM in lm-eval, checked by lm-eval" in text and "tiny_sums by acc" in text
    # Nothing is left to do: the scores are stored.
    planned = [line for line in run(*command("plan", study)).splitlines() if "alpha" in line]
    assert any(" done " in line and line.split()[-2:] == ["16", "0"] for line in planned), planned


def test_scores_of_another_version_of_a_task_or_of_the_harness_are_others(
    monkeypatch: pytest.MonkeyPatch,
):
    def identity(task_version: float, harness: str, **metadata: str) -> str:
        held = {"metadata": {"version": task_version, **metadata}, "num_fewshot": 0}
        task = SimpleNamespace(dump_config=lambda: held, higher_is_better=lambda: {"acc": True})
        monkeypatch.setattr(benchmark, "found_tasks", lambda *_: {"tiny": {"tiny": task}})
        monkeypatch.setattr(benchmark, "version", lambda _: harness)
        measured = benchmark.Harness(tasks=("tiny",)).identity({"model": "m"}, (), dtype="float32")
        return measured.digest

    first = identity(1.0, "0.4.13")
    assert identity(1.0, "0.4.13", pretrained="elsewhere") == first
    assert len({first, identity(2.0, "0.4.13"), identity(1.0, "0.4.14")}) == 3


@pytest.mark.parametrize("missing", ["lm_eval"])
def test_a_study_that_needs_the_harness_is_refused_when_it_is_planned(
    missing: str, tmp_path: Path, model_folder: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setitem(sys.modules, missing, None)
    shown = preceptor("plan", study_at(tmp_path, model_folder))
    assert shown.exit_code != 0
    assert "pip install 'preceptor[ability]'" in shown.output


@pytest.mark.parametrize(
    ("table", "said"),
    [
        ({"benchmarks": "lm-eval"}, "lm-eval needs tasks"),
        ({"benchmarks": "ifeval", "tasks": "mmlu"}, "tasks is for the benchmark lm-eval"),
        ({"questions": "q.jsonl", "num_fewshot": 5}, "num_fewshot is for the benchmark lm-eval"),
        (
            {"benchmarks": "lm-eval", "tasks": "mmlu", "max_tokens": 5, "baseline": "student"},
            "leave baseline, max_tokens out",
        ),
        (
            {"benchmarks": "lm-eval", "tasks": "mmlu", "judge": {"kind": "chat", "model": "m"}},
            "leave judge out",
        ),
    ],
)
def test_what_the_harness_cannot_take_is_refused(table: dict[str, Any], said: str):
    with pytest.raises(StudyError) as caught:
        checked(Evaluate, table, where="here")
    assert said in str(caught.value)
