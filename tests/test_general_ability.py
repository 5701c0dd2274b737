"""General ability through the harness: values, errors, and the paired change between two models."""

import json
import math
import shutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest

from preceptor.benchmarks.general_ability import Ability, ability_changes, read_results
from preceptor.errors import StudyError
from small_study import preceptor

needs_harness = pytest.mark.skipif(
    find_spec("lm_eval") is None, reason="needs the package lm-eval, which is not installed"
)

DOCUMENTS = [{"question": f"{n} plus one is", "right": n % 2} for n in range(12)]

TASK = """\
task: tiny_sums
dataset_path: json
dataset_kwargs:
  data_files:
    test: {file}
test_split: test
output_type: multiple_choice
doc_to_text: "{{{{question}}}}"
doc_to_choice: [" even", " odd"]
doc_to_target: right
metric_list:
  - metric: acc
    aggregation: mean
    higher_is_better: true
metadata:
  version: 1.0
"""


def ability(values: list[float], *, task: str = "t", named: str = "d") -> Ability:
    documents = {f"{named}{place}": value for place, value in enumerate(values)}
    error = float(np.std(values, ddof=1)) / len(values) ** 0.5
    return Ability(
        task, "acc,none", float(np.mean(values)), error, len(values), documents=documents
    )


def test_the_change_is_paired_by_document_and_narrower_than_two_rates_apart():
    rng = np.random.default_rng(0)
    base = (rng.random(200) < 0.5).astype(float)
    tuned = base.copy()
    tuned[:10] = 0.0  # the tuned model loses a few documents and gains none
    (paired,) = ability_changes([ability(base.tolist())], [ability(tuned.tolist())])
    (apart,) = ability_changes([ability(base.tolist())], [ability(tuned.tolist(), named="other")])
    assert paired.paired and not apart.paired
    assert paired.difference.value == pytest.approx(tuned.mean() - base.mean())
    assert paired.difference.value < 0
    width = paired.difference.high - paired.difference.low
    assert width < 0.4 * (apart.difference.high - apart.difference.low)


def test_models_without_a_common_metric_are_refused():
    with pytest.raises(StudyError, match="no metric in common"):
        ability_changes([ability([0.0, 1.0])], [ability([0.0, 1.0], task="u")])


def test_a_result_of_the_harness_is_read_without_its_other_columns():
    found = {
        "results": {
            "t": {"alias": "t", "acc,none": 0.5, "acc_stderr,none": "N/A", "sample_len": 2}
        },
        "samples": {
            "t": [
                {"doc_id": 0, "doc_hash": "a", "filter": "none", "acc": 1.0},
                {"doc_id": 1, "doc_hash": "b", "filter": "none", "acc": 0.0},
                {"doc_id": 1, "doc_hash": "b", "filter": "strict", "acc": 1.0},
            ]
        },
        "higher_is_better": {"t": {"acc": True}},
    }
    (one,) = read_results(found)
    assert (one.metric, one.value, one.n) == ("acc,none", 0.5, 2)
    assert one.standard_error == pytest.approx(0.5)
    assert math.isnan(read_results({"results": {"t": {"acc,none": 0.5}}})[0].standard_error)


@needs_harness
def test_a_local_task_really_runs_and_two_equal_models_differ_by_nothing(tmp_path, model_folder):
    # In a process of its own: the harness warns, logs and sets seeds of whole libraries.
    data = tmp_path / "sums.jsonl"
    data.write_text("".join(json.dumps(row) + "\n" for row in DOCUMENTS))
    tasks = tmp_path / "tasks"
    tasks.mkdir()
    (tasks / "tiny.yaml").write_text(TASK.format(file=data))
    copy = tmp_path / "copy"
    shutil.copytree(model_folder, copy)
    code = f"""
import json
from preceptor.benchmarks.general_ability import *
from preceptor.errors import StudyError
options = AbilityOptions(task_folder={str(tasks)!r}, batch_size=4, limit=10)
base, tuned = (measure_ability(m, ["tiny_sums"], options) for m in {[str(model_folder), str(copy)]!r})
(change,) = ability_changes(base, tuned, draws=50)
try:
    measure_ability({str(copy)!r}, ["tiny_sum"], options)
except StudyError as error:
    said = str(error)
one = base[0]
print("RESULT" + json.dumps([one.task, one.metric, one.value, one.standard_error, one.n,
    sorted(one.documents.values()), change.difference.value, change.difference.low, change.paired, said]))
"""
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        env={
            "PYTHONPATH": str(Path(__file__).parents[1] / "src"),
            "PATH": "",
            "HF_HUB_OFFLINE": "1",
            "HF_DATASETS_OFFLINE": "1",
            "HF_HOME": str(tmp_path / "hub"),
            "OMP_NUM_THREADS": "1",
        },
    )
    assert done.returncode == 0, done.stderr[-2000:]
    line = next(line for line in done.stdout.splitlines() if line.startswith("RESULT"))
    task, metric, value, error, n, documents, gap, low, paired, said = json.loads(line[6:])
    assert (task, metric, n) == ("tiny_sums", "acc,none", 10)
    assert value == pytest.approx(sum(documents) / 10)
    assert error == pytest.approx(np.std(documents, ddof=1) / 10**0.5, rel=0.06)
    assert (gap, low, paired) == (0.0, 0.0, True)
    assert "Did you mean 'tiny_sums'?" in said


@pytest.mark.parametrize(
    "given",
    [("--limit", "0"), ("--batch-size", "0"), ("--seed", "-1"), ("--task-folder", "nowhere")],
)
def test_what_cannot_be_measured_is_a_wrong_use(given):
    shown = preceptor("ability", "m", "--task", "t", *given)
    assert shown.exit_code == 2 and f"Invalid value for '{given[0]}'" in shown.output
