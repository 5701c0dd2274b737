"""Benchmarks whose answers are checked by rules: no judge, no baseline, points for each question.

A benchmark derives from `CheckedBenchmark` and says what an answer is worth. What gives every measure its
interval is done here, once: questions are resampled, and draws are paired between models.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence, Set
from dataclasses import dataclass, field, replace
from importlib.resources import files
from itertools import compress
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, NamedTuple
from zlib import crc32

import numpy as np

from preceptor.benchmarks.base import (
    N_RESAMPLES,
    Array,
    Benchmark,
    BenchmarkResult,
    Judged,
    Scored,
    Verdicts,
    estimate_of,
)
from preceptor.benchmarks.cached_chat import Cost
from preceptor.benchmarks.comparisons import require_complete
from preceptor.benchmarks.pairwise import Compared, JudgeKind, PairJudge
from preceptor.benchmarks.questions import Answers, QuestionSet
from preceptor.benchmarks.rows import Row, listed, read_rows
from preceptor.errors import StudyError
from preceptor.ranking.bootstrap import bootstrap_means
from preceptor.store.files import read_csv
from preceptor.store.identity import Identity

if TYPE_CHECKING:
    from preceptor.benchmarks.cached_chat import OnProgress
    from preceptor.benchmarks.judge_prompts import Pair
    from preceptor.store.store import Store


class Points(NamedTuple):
    """What an answer has won, of how much; a measure is the sum of the one over the sum of the other."""

    won: float
    of: float = 1.0


Marks = Mapping[str, Points]
"""The points of one question by measure; a measure that the question says nothing of is left out."""


@dataclass(frozen=True)
class Checked:
    """One model's checked answers: `won` and `of` have shape (questions,), by measure; see `Verdicts`.

    `unread` are questions whose answers have no points, because nobody could tell.
    """

    model: str
    keys: tuple[str, ...]
    won: Mapping[str, Array]
    of: Mapping[str, Array]
    judge: str | None = "rules"
    baseline: str | None = None
    unread: tuple[str, ...] = ()

    @property
    def points(self) -> Array:
        """What the model won by the first measure."""
        return next(iter(self.won.values()))

    @property
    def weights(self) -> Array:
        """Out of how much."""
        return next(iter(self.of.values()))

    def on(self, keys: Set[str]) -> Checked:
        """Return the points on these questions alone."""
        kept = np.array([key in keys for key in self.keys], dtype=np.bool_)
        won, of = ({n: one[kept] for n, one in column.items()} for column in (self.won, self.of))
        return replace(self, keys=tuple(compress(self.keys, kept)), won=won, of=of)


class Rules(PairJudge):
    """Stands where a judge would: nothing is asked."""

    kind: ClassVar[JudgeKind] = "rules"
    symmetric: ClassVar[bool] = True

    @property
    def name(self) -> str:
        """The label in tables."""
        return "rules"

    def identity(self) -> Identity:
        """Return the identity of no model."""
        return Identity.of({"judge": "rules"})

    def cost(self, pairs: Sequence[Pair], store: Store) -> Cost:
        """Return that nothing is paid."""
        return Cost(0, 0, 0, 0, None)

    def compare(
        self, pairs: Sequence[Pair], store: Store, progress: OnProgress | None = None
    ) -> list[Compared]:
        """Raise StudyError: rules compare no answers."""
        raise StudyError("Rules check answers and compare none: name a judge.")


@dataclass(frozen=True)
class CheckedBenchmark(Benchmark):
    """A benchmark checked by rules; derive from it, and give `question_set` and `marks`.

    `files` are the user's questions in place of those written for the project.
    """

    judge_kinds: ClassVar[tuple[JudgeKind, ...]] = ("rules",)
    compares: ClassVar[bool] = False
    checker: ClassVar[str] = "rules"
    """Who checks, in tables."""
    changes: ClassVar[frozenset[str]] = frozenset()
    """Measures from -100 to 100; the others are shares, from 0."""

    files: tuple[str, ...] = field(default=())

    def marks(self, texts: Mapping[str, str]) -> Mapping[str, Marks]:
        """Return the points of what is resampled as one, mostly a question, from answers by question id."""
        raise NotImplementedError

    def question_set(self) -> QuestionSet:
        """Return all questions; DataError where a file cannot be read."""
        raise NotImplementedError

    def notes(self, judge: str | None = None) -> list[str]:
        """Return what must be known of the questions, such as that they are not the published ones.

        `judge` is who judged, where not whoever checks by default.
        """
        return []

    def questions(
        self,
        limit: int | None = None,
        *,
        baseline: Answers | None = None,
        answers: Sequence[Answers] = (),
    ) -> QuestionSet:
        """Return the questions, at most `limit`; there is no baseline."""
        return self.question_set().drawn(limit)

    def judge(
        self,
        answers: Sequence[Answers],
        questions: QuestionSet,
        judge: PairJudge,
        store: Store,
        progress: OnProgress | None = None,
    ) -> Judged:
        """Return the points of every model; an answer that is missing is none, and not a wrong one.

        Raises:
            StudyError: more than 1% of a model's answers are missing.
        """
        require_answered(answers, questions)
        found = {one.model: self.marks(one.texts) for one in answers}
        return self.judged(found, judge, name=self.checker)

    def judged(
        self, found: Mapping[str, Mapping[str, Marks]], judge: PairJudge, *, name: str
    ) -> Judged:
        """Return the points of models by question as verdicts of whoever is called by this name."""
        return Judged(
            benchmark=self.name,
            baseline="",
            judge=judge.identity(),
            judge_name=name,
            verdicts=[self.checked(model, marks, judge=name) for model, marks in found.items()],
            published=False,
        )

    def checked(self, model: str, marks: Mapping[str, Marks], *, judge: str) -> Checked:
        """Return one model's points on every question; where a question has no marks, it is unread."""
        keys = tuple(sorted(key for key, own in marks.items() if own))
        names = [name for name in self.measures if any(name in own for own in marks.values())]
        none = Points(0.0, 0.0)
        columns = {
            name: np.array([marks[key].get(name, none) for key in keys], dtype=np.float64)
            for name in names
        }
        return Checked(
            model=model,
            judge=judge,
            keys=keys,
            won={name: column[:, 0] for name, column in columns.items()},
            of={name: column[:, 1] for name, column in columns.items()},
            unread=tuple(sorted(marks.keys() - set(keys))),
        )

    def cost(
        self, answers: Sequence[Answers], questions: QuestionSet, judge: PairJudge, store: Store
    ) -> Cost:
        """Return that nothing is paid."""
        return judge.cost((), store)

    def score(self, verdicts: Sequence[Verdicts], *, seed: int = 0) -> Scored:
        """Return each model's measures in percent, with 95% intervals over the questions that all have.

        Raises:
            StudyError: a model has no checked answer, or there is no question that all have one to.
        """
        checked = [one for one in verdicts if isinstance(one, Checked)]
        for one in checked:
            if not one.keys:
                raise StudyError(f"'{one.model}' has no answer that could be checked.")
        every = set[str]().union(*(one.keys + one.unread for one in checked))
        common = every.intersection(*(one.keys for one in checked))
        if checked and not common:
            raise StudyError("No question has a checked answer of every model: judge all alike.")
        lacking = len(every) - len(common)
        left_out = (
            f"{lacking:,} of {len(every):,} questions are left out for all models, because an answer of one "
            "is missing or could not be checked."
        )
        results = [self._result(one.on(common), seed=seed) for one in checked]
        others = (one.judge for one in checked if one.judge != self.checker)
        return Scored(results, [*self.notes(next(others, None)), *([left_out] if lacking else [])])

    def _result(self, checked: Checked, *, seed: int) -> BenchmarkResult:
        n = len(checked.keys)
        names = list(checked.won)
        both = np.stack([column[name] for column in (checked.won, checked.of) for name in names])
        sums = n * bootstrap_means(both, draws=N_RESAMPLES, rng=np.random.default_rng(seed))
        value = {name: 100 * checked.won[name].sum() / checked.of[name].sum() for name in names}
        counts = {name: int(np.count_nonzero(checked.of[name])) for name in names}
        # Models with the same points have the same draws.
        rng = np.random.default_rng([seed, crc32(both.tobytes())])
        draws = {}
        for place, name in enumerate(names):
            won, of = sums[:, place], sums[:, len(names) + place]
            weight = checked.of[name].sum() / counts[name]
            right, further = _further(rng, len(sums), signed=name in self.changes)
            draws[name] = 100 * (won + weight * right) / (of + weight * further)
        return BenchmarkResult(
            benchmark=self.name,
            model=checked.model,
            judge=checked.judge,
            n=n,
            missing=0.0,
            measures={
                name: estimate_of(float(value[name]), draws[name], n=counts[name]) for name in names
            },
            draws=draws,
        )


def require_answered(answers: Sequence[Answers], questions: QuestionSet) -> None:
    """Refuse models of which more than 1% of the answers are missing; StudyError."""
    asked = len(questions.instructions)
    for one in answers:
        lacking = asked - len(questions.instructions.keys() & one.texts.keys())
        require_complete({"without an answer": lacking}, model=one.model, questions=asked)


def _further(rng: np.random.Generator, draws: int, *, signed: bool) -> tuple[Array, int]:
    """Return what further questions won in each draw, half of them at either bound, and their number.

    Resampled questions that were all right vary in nothing, and would leave a share of 100% without error.
    Four further ones make about Wilson's interval (Agresti and Coull 1998), two pairs that of a change
    (Agresti and Min 2005).
    """
    if signed:
        up, down = rng.binomial(2, 0.5, size=(2, draws)).astype(np.float64)
        return up - down, 2
    return rng.binomial(4, 0.5, size=draws).astype(np.float64), 4


def shipped_rows(paths: Sequence[str], package: str | None) -> Iterator[Row]:
    """Yield the rows of the user's JSON or CSV files; without any, of the questions in a benchmark's folder.

    Raises:
        DataError: a file cannot be read or holds no rows.
    """
    for path in paths or (shipped(package),):
        if path.casefold().endswith(".csv"):
            lines = read_csv(path)
            _, headings = next(lines, (0, []))
            yield from (dict(zip(headings, cells, strict=False)) for _, cells in lines)
        else:
            yield from listed(read_rows(Path(path)))


def shipped(package: str | None) -> str:
    """Return where the questions are that are written for the project."""
    return str(files(package or "").joinpath("questions.jsonl"))
