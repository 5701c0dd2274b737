"""MT-Bench: 80 questions of two turns, each answer marked from 1 to 10 by a judge (arXiv 2306.05685).

Read from files of its own tool (`FastChat`, `<judge>_single.jsonl`); nothing is judged here, because its
answers are conversations of two turns. The score is the mean over all marks, as the tool has it; a mark of -1
is none. The interval resamples questions, whose two marks hang together.
"""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from preceptor.benchmarks.base import (
    N_RESAMPLES,
    Benchmark,
    BenchmarkResult,
    Scored,
    Verdicts,
    estimate_of,
)
from preceptor.benchmarks.pairwise import JudgeKind
from preceptor.benchmarks.questions import Answers, QuestionSet
from preceptor.benchmarks.rows import ModelRows, Row, fits, listed, text_of
from preceptor.errors import DataError, StudyError
from preceptor.ranking.bootstrap import bootstrap_means

Array = NDArray[np.float64]

QUESTIONS, TURNS = 80, 2
LEAST, MOST = 1, 10
"""The scale of a mark."""

NO_MARK = -1
"""What the benchmark's tool writes where the judge stated no mark."""


@dataclass(frozen=True)
class Marks:
    """One model's marks: `marks` has shape (questions, 2), NaN where there is none; see `Verdicts`."""

    model: str
    keys: tuple[str, ...]
    marks: Array
    judge: str | None = None
    baseline: str | None = None
    dropped: Mapping[str, int] = field(default_factory=dict)

    @property
    def points(self) -> Array:
        """The sum of a question's marks, shape (questions,)."""
        sums: Array = np.nansum(self.marks, axis=1)
        return sums

    @property
    def weights(self) -> Array:
        """How many marks a question has, shape (questions,)."""
        counts: Array = (~np.isnan(self.marks)).sum(axis=1).astype(np.float64)
        return counts


@dataclass
class _Tally(ModelRows):
    """One model's marks by question and turn while a file is read."""

    marks: dict[str, list[float]] = field(default_factory=dict)
    seen: set[tuple[str, int]] = field(default_factory=set)


@dataclass(frozen=True)
class MTBench(Benchmark):
    """MT-Bench from ready judgements."""

    name: ClassVar[str] = "mt_bench"
    title: ClassVar[str] = "MT-Bench"
    measures: ClassVar[Mapping[str, str]] = {
        "MT": "mean mark of 1 to 10",
        "MT_1": "mean mark, first turn",
        "MT_2": "mean mark, second turn",
    }
    judge_kinds: ClassVar[tuple[JudgeKind, ...]] = ()
    published: ClassVar[bool] = True

    def questions(
        self,
        limit: int | None = None,
        *,
        baseline: Answers | None = None,
        answers: Sequence[Answers] = (),
    ) -> QuestionSet:
        """Raise StudyError: nothing is asked here."""
        raise StudyError(
            "MT-Bench is not judged here: its answers have two turns. Judge them with FastChat's "
            "llm_judge, and give its <judge>_single.jsonl to preceptor evaluate."
        )

    def read(self, rows: Sequence[Row] | Row, path: str) -> Sequence[Verdicts] | None:
        """Return the marks of each model, from rows of `question_id`, `model`, `turn` and `score`."""
        if not fits(rows, ("question_id", "model", "turn", "score")):
            return None
        return _marks(listed(rows), path)

    def score(self, verdicts: Sequence[Verdicts], *, seed: int = 0) -> Scored:
        """Return each model's mean mark, over all marks and by turn, with 95% intervals over questions."""
        judged = [one for one in verdicts if isinstance(one, Marks)]
        return Scored([_result(one, seed=seed) for one in judged], [])


def _marks(rows: Sequence[Row], path: str) -> list[Marks]:
    tallies: dict[str, _Tally] = {}
    for place, row in enumerate(rows, start=1):
        where = f"'{path}', row {place}"
        tally = tallies.setdefault(name := text_of(row, "model", where), _Tally(name))
        tally.judges.add(_judge(row))
        key, turn = _question(row, where), _turn(row, where)
        marks = tally.marks.setdefault(key, [math.nan] * TURNS)
        if (key, turn) in tally.seen:
            raise DataError(
                f"{where}: '{name}' is marked twice on question {key}, turn {turn + 1}. Expected one "
                "mark for each turn: drop the repeats."
            )
        tally.seen.add((key, turn))
        mark = _mark(row, where)
        if mark is None:
            tally.dropped["answers without a mark"] += 1
        else:
            marks[turn] = mark
    return [
        Marks(one.model, *_filled(one), judge=one.judge(f"'{path}'"), dropped=Counter(one.dropped))
        for one in tallies.values()
    ]


def _filled(tally: _Tally) -> tuple[tuple[str, ...], Array]:
    """Return questions and marks, without the questions that have no mark at all."""
    kept = {key: marks for key, marks in tally.marks.items() if not all(map(math.isnan, marks))}
    return tuple(kept), np.array(list(kept.values()), dtype=np.float64).reshape(-1, TURNS)


def _judge(row: Row) -> str | None:
    """Return the judge's name, which the tool writes before the name of a question's prompt."""
    judge = row.get("judge")
    judge = judge[0] if isinstance(judge, list) and judge else judge
    return judge if isinstance(judge, str) and judge else None


def _question(row: Row, where: str) -> str:
    key = row.get("question_id")
    if isinstance(key, bool) or not isinstance(key, int | str) or key == "":
        raise DataError(f"{where} has no id in 'question_id': expected a number or a text.")
    return str(key)


def _turn(row: Row, where: str) -> int:
    turn = row.get("turn")
    if isinstance(turn, bool) or turn not in (1, 2):
        raise DataError(f"{where} has the turn {turn!r:.20}: expected 1 or 2.")
    return int(turn) - 1


def _mark(row: Row, where: str) -> float | None:
    mark = row.get("score")
    if mark is None or mark == NO_MARK:
        return None
    if isinstance(mark, bool) or not isinstance(mark, int | float) or not LEAST <= mark <= MOST:
        raise DataError(f"{where} has the mark {mark!r:.20}: expected {LEAST} to {MOST}, or -1.")
    return float(mark)


def _result(marks: Marks, *, seed: int) -> BenchmarkResult:
    n = len(marks.keys)
    if n == 0:
        raise StudyError(f"'{marks.model}' has no mark. Judge its answers first.")
    order = sorted(range(n), key=marks.keys.__getitem__)
    given = marks.marks[order]
    counted = ~np.isnan(given)
    sums = np.where(counted, given, 0.0)
    columns = {"MT": slice(0, TURNS), "MT_1": slice(0, 1), "MT_2": slice(1, TURNS)}
    columns = {name: turns for name, turns in columns.items() if counted[:, turns].any()}
    both = np.stack([part[:, t].sum(1) for t in columns.values() for part in (sums, counted)])
    with np.errstate(invalid="ignore"):
        means = bootstrap_means(both, draws=N_RESAMPLES, rng=np.random.default_rng(seed))
        draws = {name: means[:, 2 * k] / means[:, 2 * k + 1] for k, name in enumerate(columns)}
    values = {
        name: float(given[:, turns][counted[:, turns]].mean()) for name, turns in columns.items()
    }
    return BenchmarkResult(
        benchmark=MTBench.name,
        model=marks.model,
        judge=marks.judge,
        n=n,
        missing=max(0.0, 1 - counted.sum() / (QUESTIONS * TURNS)),
        measures={name: estimate_of(values[name], draws[name], n=n) for name in columns},
        draws=draws,
        warnings=tuple(_warnings(marks)),
    )


def _warnings(marks: Marks) -> list[str]:
    found = []
    if len(marks.keys) != QUESTIONS:
        found.append(f"{len(marks.keys)} of MT-Bench's {QUESTIONS} questions have a mark.")
    if marks.dropped:
        counted = ", ".join(f"{count} {why}" for why, count in marks.dropped.items())
        found.append(f"Left out of MT-Bench: {counted}.")
    return found
