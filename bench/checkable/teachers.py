"""Teachers of small tasks: eight ways of answering written here, and samples of real small models."""

import json
import random
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from checkable.tasks import WORDS, Task
from preceptor import api

Way = Callable[[Task, str], str]


def terse(task: Task, answer: str) -> str:
    """Return the answer alone."""
    return answer


def direct(task: Task, answer: str) -> str:
    """Return one sentence with the answer."""
    return f"The answer is {answer}."


def short_steps(task: Task, answer: str) -> str:
    """Return one line of working and the answer."""
    return f"{task.short.format(answer)} {direct(task, answer)}"


def long_steps(task: Task, answer: str) -> str:
    """Return all of the working and the answer."""
    return f"{task.long.format(answer)} {direct(task, answer)}"


def verbose(task: Task, answer: str) -> str:
    """Return the same as one line of working among many words that say nothing."""
    return (
        "That is a very good question, and I am happy to help you with it! Let us look at it calmly and "
        f"with care. {task.short.format(answer)} I hope that this makes everything clear. "
        f"{direct(task, answer)}"
    )


def code(task: Task, answer: str) -> str:
    """Return a program, and what it prints."""
    return f"```python\n{task.code}\n```\nAnswer: {answer}"


WAYS: Mapping[str, tuple[Way, float]] = {
    "direct": (direct, 0.0),
    "short-steps": (short_steps, 0.0),
    "long-steps": (long_steps, 0.0),
    "verbose": (verbose, 0.0),
    "code-like": (code, 0.0),
    "noisy-10": (short_steps, 0.1),
    "noisy-30": (short_steps, 0.3),
    "terse": (terse, 0.0),
}
"""Teacher: how it answers, and which share of its answers is wrong, working and all."""


def wrong(answer: str, rng: random.Random) -> str:
    """Return another answer of the same kind."""
    if answer.isdigit():
        return str(max(0, int(answer) + rng.choice((-10, -2, -1, 1, 2, 10))) or int(answer) + 3)
    parts = answer.split() if " " in answer else list(answer)
    turned = parts[1:] + parts[:1]
    joined = (" " if " " in answer else "").join(turned)
    return joined if joined != answer else rng.choice([word for word in WORDS if word != answer])


def answers(teacher: str, asked: Sequence[Task], seed: int) -> list[str]:
    """Return a teacher's answers; the share that is wrong is exact, and drawn by the seed."""
    way, share = WAYS[teacher]
    rng = random.Random(f"{seed} {teacher}")
    bad = set(rng.sample(range(len(asked)), round(share * len(asked))))
    return [
        way(task, wrong(task.answer, rng) if place in bad else task.answer)
        for place, task in enumerate(asked)
    ]


def write_rows(path: Path, rows: Sequence[Mapping[str, object]]) -> None:
    """Write JSON Lines whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    written = path.with_suffix(".writing")
    written.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    written.replace(path)


def write_teacher(folder: Path, teacher: str, asked: Sequence[Task], texts: Sequence[str]) -> Path:
    """Write one teacher's responses with what they are checked against."""
    rows = [
        {"instruction": task.question, "output": text, "reference": task.reference}
        for task, text in zip(asked, texts, strict=True)
    ]
    path = folder / f"{teacher}.jsonl"
    write_rows(path, rows)
    return path


def sampled(folder: Path, label: str, model: str, asked: Sequence[Task], store: str) -> Path:
    """Write a real model's own samples, drawn at temperature 0.7; what is stored is not drawn again."""
    questions, drawn = folder / "instructions.jsonl", folder / "drawn" / f"{label}.jsonl"
    write_rows(questions, [{"instruction": task.question} for task in asked])
    drawn.parent.mkdir(parents=True, exist_ok=True)
    api.generate(
        questions,
        teacher=model,
        output=drawn,
        temperature=0.7,
        max_tokens=48,
        seed=0,
        batch_size=50,
        device="cpu",
        store=store,
        progress=False,
    )
    rows = map(json.loads, drawn.read_text(encoding="utf-8").splitlines())
    by_question = {str(row["prompt"]): str(row["completion"]) for row in rows if row["completion"]}
    known = [task for task in asked if task.question in by_question]
    return write_teacher(folder, label, known, [by_question[task.question] for task in known])
