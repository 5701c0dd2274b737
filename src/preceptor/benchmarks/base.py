"""What a benchmark is: questions, verdicts by a judge, measures of the verdicts, and files.

A benchmark is one class in one place that derives from `Benchmark`; `registry` finds it, and nothing else
knows which benchmarks there are.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from preceptor.benchmarks.comparisons import (
    Decided,
    Outcome,
    compared,
    comparisons,
    first_place_share,
    missing_reasons,
    orders_of,
    pairs_of,
    require_complete,
)
from preceptor.benchmarks.questions import Answers, QuestionSet
from preceptor.benchmarks.rows import Row
from preceptor.errors import StudyError
from preceptor.ranking.bootstrap import bootstrap_means, percentile_interval
from preceptor.store.identity import Identity
from preceptor.store.store import Store
from preceptor.types import Estimate, Warning

if TYPE_CHECKING:
    from preceptor.benchmarks.cached_chat import Cost, OnProgress
    from preceptor.benchmarks.pairwise import JudgeKind, PairJudge
    from preceptor.config.runtime import Runtime
    from preceptor.teachers.base import TeacherBackend
    from preceptor.teachers.local import LocalTeacher
    from preceptor.types import Instruction


Array = NDArray[np.float64]

N_RESAMPLES = 1000
"""Resamples behind each interval of a benchmark."""

POSITION_BIAS = 0.1
"""A preference for the first place beyond this is a warning."""


class Verdicts(Protocol):
    """One model's verdicts against one baseline, whatever a verdict is in its benchmark.

    `keys` are the questions. `points` and `weights` have shape (questions,): what the model won, of how much.
    `judge` and `baseline` are None where a file does not say.
    """

    @property
    def model(self) -> str:
        """The model that was judged."""
        ...

    @property
    def baseline(self) -> str | None:
        """Against whose answers."""
        ...

    @property
    def judge(self) -> str | None:
        """Who judged."""
        ...

    @property
    def keys(self) -> Sequence[str | int]:
        """The questions."""
        ...

    @property
    def points(self) -> Array:
        """What the model won."""
        ...

    @property
    def weights(self) -> Array:
        """Out of how much."""
        ...


@dataclass(frozen=True)
class Wins:
    """Verdicts as shares of a win in 0..1, `points` of shape (questions,); see `Verdicts`."""

    model: str
    baseline: str | None
    judge: str | None
    keys: tuple[str | int, ...]
    points: Array

    @property
    def weights(self) -> Array:
        """One for each question."""
        return np.ones(len(self.points))


@dataclass(frozen=True)
class Judged:
    """One judge's verdicts on models' answers to one benchmark, against one baseline.

    `rows` are the verdicts as the project's own tool writes them, empty where its file cannot hold them.
    `first_place` says by model how far the judge prefers whatever is shown first, 0..1 (0.5 is no bias), None
    where that is not known. `published` says whether there are published rates to compare with.
    """

    benchmark: str
    baseline: str
    judge: Identity
    judge_name: str
    verdicts: Sequence[Verdicts]
    rows: Sequence[Row] = ()
    first_place: Mapping[str, float | None] = field(default_factory=dict)
    published: bool = True

    def warnings(self) -> list[Warning]:
        """Return what must be known of the judge: whose prompt, and how it likes a place."""
        found = []
        if self.published:
            text = (
                f"Judged by {self.judge_name}, not by the benchmark's own judge and prompt: rates do not "
                "compare with published ones."
            )
            found.append(Warning("another-judge", text))
        for model, share in self.first_place.items():
            if share is not None and abs(share - 0.5) > POSITION_BIAS:
                text = (
                    f"On '{model}' the judge prefers whatever stands first with a share of "
                    f"{share:.0%}: both orders cancel the bias in the mean, and leave little signal."
                )
                found.append(Warning("position-bias", text))
        return found


@dataclass(frozen=True)
class BenchmarkResult:
    """One model's result in one benchmark, in percent or on its own scale, higher is better.

    `measures` has those of the benchmark's measures that could be formed, each with a 95% bootstrap interval
    over questions; `draws` the draws behind each, shape (draws,), paired between models on the same
    questions. `facts` are further fields of the record. `missing` is the share of the benchmark without a
    verdict.
    """

    benchmark: str
    model: str
    judge: str | None
    n: int
    missing: float
    measures: Mapping[str, Estimate]
    draws: Mapping[str, Array]
    facts: Mapping[str, float | None] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()


class Scored(NamedTuple):
    """Results of one benchmark, and what must be known of all of them."""

    results: list[BenchmarkResult]
    warnings: list[str]


def estimate_of(value: float, draws: Array, *, n: int) -> Estimate:
    """Return a value with the 95% interval of its draws, shape (draws,)."""
    low, high = percentile_interval(draws)
    return Estimate(value, float(low), float(high), n)


class Benchmark(Protocol):
    """One benchmark: derive from it as a frozen dataclass whose fields are options with defaults.

    `name` is the word for it in studies and results, `title` that in tables. `measures` are its measures with
    their meaning, in percent unless it names a scale, higher is better; the first orders models. `facts` are
    further fields of a result. `judge_kinds` says who can judge it. What is not overridden is the usual: a
    judge compares each answer with the baseline's, and the measure is the win rate.
    """

    name: ClassVar[str]
    title: ClassVar[str]
    measures: ClassVar[Mapping[str, str]] = {"win_rate": "win rate"}
    facts: ClassVar[tuple[str, ...]] = ()
    judge_kinds: ClassVar[tuple[JudgeKind, ...]] = ("letter", "reward")
    published: ClassVar[bool] = False
    """Whether there are published rates to compare with."""
    compares: ClassVar[bool] = True
    """Whether answers are compared with a baseline's."""
    writes: ClassVar[bool] = True
    """Whether what students answer are texts of theirs."""

    def questions(
        self,
        limit: int | None = None,
        *,
        baseline: Answers | None = None,
        answers: Sequence[Answers] = (),
    ) -> QuestionSet:
        """Return the questions that the baseline answered, at most `limit`.

        Args:
            limit: how many, drawn by their content; nested.
            baseline: by default the benchmark's own.
            answers: what is to be judged; the files may hold the questions' texts.

        Raises:
            DataError: something cannot be fetched or read.
        """
        ...

    def preflight(self) -> None:
        """Fetch what `score` needs against the benchmark's own baseline; DataError where it cannot be."""
        return None

    def answering(
        self, student: LocalTeacher, asked: Sequence[Instruction], runtime: Runtime
    ) -> TeacherBackend:
        """Return who answers the questions: the student, or what measures it whole."""
        return student

    def outcomes(
        self,
        answers: Sequence[Answers],
        questions: QuestionSet,
        judge: PairJudge,
        store: Store,
        progress: OnProgress | None = None,
    ) -> list[Outcome]:
        """Return the outcome of each comparison; see `judge`."""
        asked = comparisons(answers, questions)
        found = compared(asked, judge, store, orders=orders_of(judge), progress=progress)
        for one in answers:
            reasons = missing_reasons(found, one.model, len(questions.instructions))
            require_complete(reasons, model=one.model, questions=len(questions.instructions))
        return found

    def judge(
        self,
        answers: Sequence[Answers],
        questions: QuestionSet,
        judge: PairJudge,
        store: Store,
        progress: OnProgress | None = None,
    ) -> Judged:
        """Return the verdicts on every model, asking only for those that are not stored.

        Raises:
            StudyError: more than 1% of a model's verdicts are missing; what was answered is stored.
            DataError: answers, questions and baseline do not belong together.
            ModelError: the judge cannot be asked; what was answered is stored.
        """
        found = self.outcomes(answers, questions, judge, store, progress)
        name, baseline = judge_label(judge), questions.baseline.model
        return Judged(
            benchmark=self.name,
            baseline=baseline,
            judge=judge.identity(),
            judge_name=name,
            verdicts=[_wins(found, one.model, baseline=baseline, judge=name) for one in answers],
            first_place=first_places(found, answers),
            published=self.published,
        )

    def cost(
        self, answers: Sequence[Answers], questions: QuestionSet, judge: PairJudge, store: Store
    ) -> Cost:
        """Return what `judge` would take, without asking anything."""
        asked = comparisons(answers, questions)
        return judge.cost(pairs_of(asked, judge, orders_of(judge)), store)

    def score(self, verdicts: Sequence[Verdicts], *, seed: int = 0) -> Scored:
        """Return each model's measures of its verdicts, with 95% intervals over questions.

        Raises:
            StudyError: a model has no verdict.
        """
        return Scored([_win_rate(self, one, seed=seed) for one in verdicts], [])

    def read_answers(self, rows: Sequence[Row], path: str) -> list[Answers] | None:
        """Return the answers in rows of a file, one for each model; None where it holds no answers."""
        return None

    def read_baseline(self, rows: Sequence[Row], path: str) -> list[Answers] | None:
        """Return the answers of a baseline in rows of a file, which may also be verdicts that hold them."""
        return self.read_answers(rows, path)

    def read(self, rows: Sequence[Row] | Row, path: str) -> Sequence[Verdicts] | None:
        """Return the ready verdicts in rows of a file; None where it is not the benchmark's."""
        return None

    def decided(self, rows: Sequence[Row], path: str) -> list[Decided]:
        """Return the ready comparisons in rows of a file that hold both texts; none by default."""
        return []

    def write(
        self, folder: Path, answers: Sequence[Answers], judged: Judged | None = None
    ) -> list[Path]:
        """Write answers, and verdicts where a file can hold them, for the benchmark's own tools."""
        return []


def judge_label(judge: PairJudge) -> str:
    """Return the judge's name, and that both orders were asked where they were."""
    return judge.name + (" in both orders" if judge.swap_positions and not judge.symmetric else "")


def first_places(
    outcomes: Sequence[Outcome], answers: Sequence[Answers]
) -> dict[str, float | None]:
    """Return by model how far the judge prefers whatever is shown first; see `first_place_share`."""
    return {
        one.model: first_place_share([o for o in outcomes if o.comparison.model == one.model])
        for one in answers
    }


def _wins(outcomes: Sequence[Outcome], model: str, *, baseline: str, judge: str) -> Wins:
    own = [one for one in outcomes if one.comparison.model == model and one.win is not None]
    keys = tuple(one.comparison.question_id for one in own)
    return Wins(model, baseline, judge, keys, np.array([one.win for one in own], dtype=np.float64))


def _win_rate(benchmark: Benchmark, verdicts: Verdicts, *, seed: int) -> BenchmarkResult:
    n = len(verdicts.keys)
    if n == 0:
        raise StudyError(f"'{verdicts.model}' has no verdict. Judge its answers first.")
    order = sorted(range(n), key=lambda at: str(verdicts.keys[at]))
    both = np.stack([verdicts.points[order], verdicts.weights[order]])
    means = bootstrap_means(both, draws=N_RESAMPLES, rng=np.random.default_rng(seed))
    rates = 100 * means[:, 0] / means[:, 1]
    value = 100 * float(both[0].sum() / both[1].sum())
    measure = next(iter(benchmark.measures))
    return BenchmarkResult(
        benchmark=benchmark.name,
        model=verdicts.model,
        judge=verdicts.judge,
        n=n,
        missing=0.0,
        measures={measure: estimate_of(value, rates, n=n)},
        draws={measure: rates},
    )
