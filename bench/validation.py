"""Validation at the smallest real size: rank four teachers, fine-tune a student on each, judge, compare.

It shows that the stages join and what each costs; with so few rows, short answers and a small judge it says
nothing of the teachers. Prints JSON. With --kills the same study is carried out once more in a store of its
own, ended by SIGKILL at random moments, resumed, and compared.

    python bench/validation.py --student FOLDER --zoo FOLDER --judge FOLDER --reward-model FOLDER
"""

import argparse
import json
import logging
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from preceptor.api import validate
from preceptor.pipeline.work import Amount
from preceptor.validation.result import ValidationResult

TEACHERS = (
    "Gemma-2-2b-it",
    "Llama-3-8B-Instruct",
    "Phi-3-medium-4k-instruct",
    "Qwen2.5-3B-Instruct",
)
STAGES = {
    "rows": "train",
    "responds": "respond",
    "questions": "judge",
    "likelihood": "score",
    "length": "score",
}
TOLERANCE = 1e-6
"""Likelihoods differ in their last digits when a batch is made up otherwise after a kill."""


class Timed:
    """A progress that adds up the seconds, and the work, of each stage."""

    def __init__(self) -> None:
        self.seconds: Counter[str] = Counter()
        self.computed: Counter[str] = Counter()
        self._stage, self._began = "", 0.0

    def begin(self, step: str, stored: int, missing: Amount) -> None:
        """Note the stage of the step, by the last word of its name."""
        last = step.replace(",", "").split()[-1]
        self._stage, self._began = STAGES.get(last, "score"), time.perf_counter()
        self.computed[self._stage] += missing.responses

    def advance(self, done: Amount) -> None:
        """Nothing to note."""

    def end(self) -> None:
        """Add the seconds."""
        self.seconds[self._stage] += time.perf_counter() - self._began


def main() -> None:
    given = _given()
    logging.getLogger("preceptor").setLevel(logging.ERROR)
    with tempfile.TemporaryDirectory() as folder:
        print(json.dumps(measure(given, Path(given.folder or folder)), indent=2))


def _given() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--student", required=True, help="folder of a base model")
    parser.add_argument("--zoo", required=True, help="folder with one TEACHER.jsonl for each")
    parser.add_argument("--judge", required=True, help="folder of a chat model")
    parser.add_argument("--reward-model", help="folder of a reward model; none ranks without")
    parser.add_argument("--rows", type=int, default=32, help="instructions to rank and train on")
    parser.add_argument("--questions", type=int, default=24)
    parser.add_argument("--max-length", type=int, default=256)
    parser.add_argument("--max-tokens", type=int, default=64)
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--kills", type=int, default=0)
    parser.add_argument("--seconds", type=float, help="of a run, where FOLDER holds one already")
    parser.add_argument("--seed", type=int, default=0, help="of the split and of the kills")
    parser.add_argument("--folder", help="where to keep store and files; by default nowhere")
    return parser.parse_args()


def measure(given: argparse.Namespace, folder: Path) -> dict[str, object]:
    """Return what the validation found and what it cost."""
    write_data(given, folder)
    study = write_study(given, folder, "whole")
    timed, began = Timed(), time.perf_counter()
    result = validate(study, timed)
    seconds = time.perf_counter() - began
    again, began = Timed(), time.perf_counter()
    same = validate(study, again).to_dict() == result.to_dict()
    found = {
        "settings": vars(given),
        "seconds": {"all": round(seconds), **_rounded(timed.seconds)},
        "work": dict(timed.computed),
        "second_run": {
            "seconds": round(time.perf_counter() - began, 1),
            "computed": sum(again.computed.values()),
            "same_result": same,
        },
        **summary_of(result),
    }
    if given.kills:
        found["killed"] = killed(given, folder, given.seconds or seconds, result.to_dict())
    return found


def _rounded(seconds: Mapping[str, float]) -> dict[str, int]:
    return {stage: round(count) for stage, count in seconds.items()}


def write_data(given: argparse.Namespace, folder: Path) -> None:
    """Write the questions, and the teachers' responses to all other instructions."""
    rows: dict[str, list[dict[str, Any]]] = {}
    for teacher in TEACHERS:
        lines = Path(given.zoo, f"{teacher}.jsonl").read_text(encoding="utf-8").splitlines()
        rows[teacher] = list(map(json.loads, lines))
    known = [{row["instruction"] for row in own} for own in rows.values()]
    order = sorted(set.intersection(*known))
    random.Random(given.seed).shuffle(order)
    asked = set(order[: given.questions])
    folder.mkdir(parents=True, exist_ok=True)
    _write(folder / "questions.jsonl", [{"instruction": text} for text in sorted(asked)])
    for teacher, own in rows.items():
        kept = [row for row in own if row["instruction"] not in asked]
        _write(folder / f"{teacher}.jsonl", kept)


def _write(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def write_study(given: argparse.Namespace, folder: Path, name: str) -> Path:
    """Write the study file of the store `name`."""
    files = [str(folder / f"{teacher}.jsonl") for teacher in TEACHERS]
    reward = ["[reward]", 'kind = "model"', f"model = {json.dumps(given.reward_model)}"]
    reward += ["max_length = 512", "[ranking]", 'transform = "sigmoid"']
    lines = [
        "[data]",
        f"responses = {json.dumps(files)}",
        f"limit = {given.rows}",
        "[[students]]",
        f"model = {json.dumps(given.student)}",
        'chat_template = "gemma"',
        f"max_length = {given.max_length}",
        *(reward if given.reward_model else []),
        "[train]",
        f"rows = {given.rows}",
        f"max_length = {given.max_length}",
        f"epochs = {given.epochs}",
        f"batch_size = {given.batch}",
        "learning_rate = 2e-4",
        "warmup_ratio = 0.1",
        "save_steps = 2",
        "gradient_checkpointing = false",
        "[train.lora]",
        "[evaluate]",
        f"questions = {json.dumps(str(folder / 'questions.jsonl'))}",
        f"max_tokens = {given.max_tokens}",
        'baseline = "student"',
        "[evaluate.judge]",
        'kind = "chat"',
        f"model = {json.dumps(given.judge)}",
        "[runtime]",
        'device = "cpu"',
        "batch_size = 8",
        f"store = {json.dumps(str(folder / name))}",
    ]
    path = folder / f"{name}.toml"
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def summary_of(result: ValidationResult) -> dict[str, object]:
    """Return orders with intervals, agreement with its interval, and how the students answered."""
    table = result.agreement
    cells = [cell.record() for row in table.cells for cell in row] if table else []
    shown = ("column", "rho", "ends_low", "ends_high", "permutation_p")
    return {
        "predicted": _order(result.predicted[0]),
        "observed": _order(result.observed[0]),
        "agreement": [{name: cell[name] for name in shown} for cell in cells],
        "verdict": result.sentences(),
        "answers": {
            **{one.teacher: vars(one.answered) for one in result.finetuned},
            **{f"{name}, untuned": vars(one) for name, one in result.untuned.items()},
        },
        "losses": {one.teacher: (one.first_loss, one.last_loss) for one in result.finetuned},
        "warnings": [warning.text for warning in result.observed[0].warnings],
    }


def _order(ranking: Any) -> list[dict[str, object]]:
    by = ranking.by
    return [
        {
            "teacher": one.teacher,
            by: round(one.estimates[by].value, 4),
            "low": round(one.estimates[by].low, 4),
            "high": round(one.estimates[by].high, 4),
            "p_best": round(one.p_best, 3),
        }
        for one in ranking.teachers
    ]


def killed(
    given: argparse.Namespace, folder: Path, seconds: float, expected: Mapping[str, Any]
) -> dict[str, object]:
    """Validate under kills, and compare what comes of it."""
    study, output = write_study(given, folder, "killed"), folder / "killed.json"
    words = [sys.executable, "-m", "preceptor", "run", str(study), "--json", str(output)]
    moments, struck, began = random.Random(given.seed), 0, time.perf_counter()
    for _ in range(given.kills):
        process = _start(words)
        try:
            # Long enough to get past loading, and short enough that none goes through it all.
            process.wait(timeout=moments.uniform(0.05, 2.0) * seconds / (given.kills + 1))
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGKILL)
            process.wait()
            struck += 1
    last = _start(words).wait()
    found = json.loads(output.read_text(encoding="utf-8"))
    differing = differences(json.loads(json.dumps(expected)), found)
    return {
        "kills": struck,
        "exit_status": last,
        "seconds": round(time.perf_counter() - began),
        "same_result": not differing,
        "differing": differing[:10],
    }


def _start(words: Sequence[str]) -> "subprocess.Popen[bytes]":
    return subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def differences(one: Any, other: Any, at: str = "result") -> list[str]:
    """Return where two results differ by more than rounding; paths of the stores do not count."""
    if isinstance(one, dict) and isinstance(other, dict) and one.keys() == other.keys():
        return [d for name in one for d in differences(one[name], other[name], f"{at}.{name}")]
    if isinstance(one, list) and isinstance(other, list) and len(one) == len(other):
        pairs = enumerate(zip(one, other, strict=True))
        return [d for place, pair in pairs for d in differences(*pair, f"{at}[{place}]")]
    if isinstance(one, float) and isinstance(other, float):
        near = abs(one - other) <= TOLERANCE * max(1.0, abs(one))
        return [] if near else [f"{at}: {one} and {other}"]
    return [] if one == other else [f"{at}: {one!r:.60} and {other!r:.60}"]


if __name__ == "__main__":
    main()
