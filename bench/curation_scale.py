"""Rows per second and memory of choosing instructions from one large file of synthetic rows.

Run it with `python bench/curation_scale.py`; `--rows` changes the size. Rows have the columns of
Magpie's data (a third as long as there); a fifth are exact and a fifth near duplicates of others. A hundredth
of them are excluded as evaluation questions in the last way, beside as many that are nowhere. Each
line of JSON is one way to choose, in a process of its own: `times_reading` is its processor
time over that of reading the same file once with `PromptSource`.
"""

import argparse
import json
import multiprocessing
import resource
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from preceptor.config.curation import Curation, Where
from preceptor.data.curation import curate
from preceptor.data.instructions import PromptSource, write_prompts

_WORDS = [f"word{number}" for number in range(20_000)]


def write_rows(path: Path, rows: int) -> None:
    """Write rows in the layout of Magpie's data."""
    rng = np.random.default_rng(0)
    texts: list[str] = []
    with path.open("w", encoding="utf-8") as file:
        for place in range(rows):
            kind = rng.random() if place > 100 else 1.0
            text = texts[int(rng.integers(place))] if kind < 0.4 else _sentence(rng, 10, 100)
            if 0.2 <= kind < 0.4:
                text += f" {_sentence(rng, 1, 3)}"
            texts.append(text)
            file.write(json.dumps(_row(text, rng)) + "\n")


def write_questions(path: Path, rows: Path) -> None:
    """Write every hundredth question of the rows in capitals, and as many others."""
    rng = np.random.default_rng(1)
    with rows.open(encoding="utf-8") as file, path.open("w", encoding="utf-8") as output:
        for place, line in enumerate(file):
            if place % 100 == 0:
                asked = json.loads(line)["instruction"].upper(), _sentence(rng, 10, 100)
                output.writelines(json.dumps({"instruction": text}) + "\n" for text in asked)


def _sentence(rng: np.random.Generator, low: int, high: int) -> str:
    return " ".join(_WORDS[at] for at in rng.integers(len(_WORDS), size=rng.integers(low, high)))


def _row(text: str, rng: np.random.Generator) -> dict[str, object]:
    answer = _sentence(rng, 50, 150)
    turns = [{"from": "human", "value": text}, {"from": "gpt", "value": answer}]
    return {
        "instruction": text,
        "response": answer,
        "conversations": turns,
        "task_category": ("Math", "Coding & Debugging", "Editing")[rng.integers(3)],
        "input_quality": ("poor", "good", "excellent")[rng.integers(3)],
        "difficulty": "easy",
        "language": "EN",
        "min_neighbor_distance": float(rng.random()),
    }


def measured(path: Path, options: Curation | None) -> dict[str, object]:
    """Return the time and peak memory of reading the file once, or of choosing and writing."""
    before, start, busy = peak_megabytes(), time.perf_counter(), time.process_time()
    kept = 0
    source = PromptSource.open([path])
    if options is None:
        kept = sum(1 for _ in source)
    else:
        kept = write_prompts(curate(source, options), path.with_suffix(".chosen.jsonl"))
    return {
        "kept": kept,
        "seconds": round(time.perf_counter() - start, 2),
        "processor_seconds": round(time.process_time() - busy, 2),
        "extra_megabytes": round(peak_megabytes() - before),
    }


def peak_megabytes() -> float:
    """Return the peak resident memory of this process so far."""
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e6


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=100_000)
    rows = parser.parse_args().rows
    quality = (Where(columns=("input_quality",), values=("good", "excellent")),)
    ways: dict[str, Curation | None] = {
        "read once": None,
        "draw a thirtieth": Curation(count=rows // 30, where=quality),
        "draw a thirtieth, exact duplicates only": Curation(
            count=rows // 30, where=quality, near_duplicates=0
        ),
        "keep all, exact duplicates only": Curation(near_duplicates=0),
        "keep all": Curation(),
    }
    reading = 0.0
    with tempfile.TemporaryDirectory() as folder:
        path, questions = Path(folder) / "rows.jsonl", Path(folder) / "questions.jsonl"
        apart(write_rows, path, rows)
        apart(write_questions, questions, path)
        ways["keep all, exact duplicates only, exclude questions"] = Curation(
            near_duplicates=0, exclude=(str(questions),)
        )
        for way, options in ways.items():
            found = apart(measured, path, options)
            seconds = found["processor_seconds"]
            reading = reading or seconds
            found["rows_per_second"] = round(rows / seconds)
            found["times_reading"] = round(seconds / reading, 2)
            print(json.dumps({"way": way, "rows": rows, **found}))


def apart(function: Callable[..., Any], *arguments: object) -> Any:
    """Call a function in a fresh process, whose peak of memory is its own."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(function, arguments)


if __name__ == "__main__":
    main()
