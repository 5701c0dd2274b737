"""A closed loop whose outcomes are checked, and no judge: teachers of small tasks, students tuned on each.

Eight teachers are written here and two more are real small models' samples. All answer the same
instructions; a student is tuned on each teacher's answers, and its outcome is the share of held-out
questions it answers right. Every metric, formed before, is held against that. The frame is declared in
`docs/explanation/closed-loop.md`.

    python bench/closed_loop.py --folder FOLDER --student SMOLLM2 --student GEMMA \
        --sampler smollm2-135m-instruct=SMOLLM2 --sampler gemma-3-270m=GEMMA

The first student is also tuned at equal target tokens. The same command goes on after a kill, and computes
nothing once all is there. FOLDER then holds `result.json`, `tables.md`, and for each amount an
`outcomes-*.csv` that `preceptor studies add` reads. `--small` is four teachers, 24 instructions and 12
questions for the first student.

Models take 0.6 and 1.2 GB each, 20 GB in all; `FOLDER/store/models` may be deleted once a study is complete.
"""

import argparse
import itertools
import json
import time
from pathlib import Path
from typing import Any

from checkable.study import Design, write_study
from checkable.tables import agreement, markdown, outcomes, races, write_csv
from checkable.tasks import Task, tasks
from checkable.teachers import WAYS, answers, sampled, write_rows, write_teacher
from preceptor import api
from preceptor.validation.result import ValidationResult

SMALL = Design(rows=24, questions=12, max_tokens=24)
OF_SMALL = ("direct", "short-steps", "long-steps", "noisy-30")
AT_EQUAL_TOKENS = ("direct", "short-steps", "long-steps", "verbose", "code-like")
"""All are right and differ in length: what differs at equal tokens is not that one taught longer."""


def main() -> None:
    given = _given()
    design = SMALL if given.small else Design(given.rows, given.questions)
    design = Design(**{**vars(design), "seeds": given.seeds, "epochs": given.epochs})
    folder, began = Path(given.folder).resolve(), time.perf_counter()
    asked, questions = drawn(design)
    folder.mkdir(parents=True, exist_ok=True)
    write_rows(
        folder / "questions.jsonl",
        [{"instruction": task.question, "reference": task.reference} for task in questions],
    )
    files = teachers(folder, asked, given)
    found = run(folder, files, given, design)
    found["seconds_of_this_run"] = round(time.perf_counter() - began)
    (folder / "result.json").write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    (folder / "tables.md").write_text("\n".join(markdown(found)) + "\n", encoding="utf-8")
    print((folder / "tables.md").read_text(encoding="utf-8"))


def _given() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--folder", required=True, help="of all files and the store")
    parser.add_argument("--student", action="append", required=True, help="id, folder or GGUF")
    parser.add_argument("--sampler", action="append", default=[], metavar="LABEL=MODEL")
    parser.add_argument("--rows", type=int, default=Design.rows)
    parser.add_argument("--questions", type=int, default=Design.questions)
    parser.add_argument("--epochs", type=int, default=Design.epochs)
    parser.add_argument("--seeds", type=int, default=1, help="runs per teacher")
    parser.add_argument("--small", action="store_true", help="the whole chain in a few minutes")
    return parser.parse_args()


def drawn(design: Design) -> tuple[list[Task], list[Task]]:
    """Return instructions to train on, and questions that are held out."""
    every = list(itertools.islice(tasks(design.seed), design.rows + design.questions))
    # Of each kind the same share is held out: kinds come in turn.
    return every[design.questions :], every[: design.questions]


def teachers(folder: Path, asked: list[Task], given: argparse.Namespace) -> list[Path]:
    """Write every teacher's responses; real models are asked for what the store lacks."""
    at = folder / "teachers"
    written = [
        write_teacher(at, name, asked, answers(name, asked, Design.seed))
        for name in (OF_SMALL if given.small else WAYS)
    ]
    named = (one.partition("=") for one in given.sampler)
    store = str(folder / "store")
    return written + [sampled(at, label, model, asked, store) for label, _, model in named]


def run(
    folder: Path, files: list[Path], given: argparse.Namespace, design: Design
) -> dict[str, Any]:
    """Return all that came out: outcomes, agreement and races."""
    students = given.student[:1] if given.small else given.student
    evaluate = {"questions": str(folder / "questions.jsonl"), "max_tokens": design.max_tokens}
    longer = [file.stem for file in files if file.stem in AT_EQUAL_TOKENS]
    amounts = {
        "equal rows": (students, design.train()),
        "equal tokens": (students[:1], design.train(equal="tokens", teachers=longer)),
    }
    studies = {}
    for name, (whose, train) in amounts.items():
        path = folder / f"{name.replace(' ', '-')}.toml"
        result = api.validate(write_study(path, files, whose, train=train, evaluate=evaluate))
        studies[name] = part(result, name)
        write_csv(folder / f"outcomes-{path.stem}.csv", studies[name]["outcomes"])
    raced, start = [], {"start": 20 if given.small else 50}
    # One by one: races of a study share its costs.
    for place, student in enumerate(students, start=1):
        racing = write_study(folder / f"race-{place}.toml", files, [student], race=start)
        raced += races(api.run(racing), studies["equal rows"]["outcomes"])  # type: ignore[arg-type]
    return {"settings": vars(given), "design": vars(design), "studies": studies, "races": raced}


def part(result: ValidationResult, name: str) -> dict[str, Any]:
    """Return one amount's outcomes, its agreement, and the means that the metrics are made of."""
    return {
        "outcomes": outcomes(result, f"small tasks, {name}"),
        "agreement": agreement(result),
        "formed": list(dict.fromkeys(metric for one in result.predicted for metric in one.metrics)),
        "metrics": [
            {"student": one.student, **record}
            for one in result.predicted
            for record in one.to_records()
        ],
        "verdict": result.sentences(),
        "warnings": [warning.text for one in result.observed for warning in one.warnings],
        "run_deviation": {
            one.student: one.settings.get("run_deviation") for one in result.observed
        },
    }


if __name__ == "__main__":
    main()
