"""What a study takes, decided before anything is computed: rewards, passes, metrics.

The one line of the system in order: read the responses, score what the metrics need, rank. This module is
pure: it names the scorers and measures, and refuses what cannot be answered.
"""

from collections.abc import Iterable
from dataclasses import dataclass

from preceptor.measurements import require_measures
from preceptor.metrics import METRICS, CompatibilityAdjustedReward, Metric
from preceptor.scorers.base import Scorer, StoredScorer
from preceptor.scorers.column import ColumnScorer
from preceptor.scorers.length import LengthScorer
from preceptor.scorers.likelihood import LikelihoodScorer, StudentModel
from preceptor.scorers.verifier import Verifier
from preceptor.study import ColumnReward, Machine, ReferenceReward, Student, Study

CONDITIONAL = ("loss", "perplexity", "token_rank", "entropy", "tokens")
"""Measures of the pass that sees the instruction."""

UNREQUESTED = frozenset({"ifd"})
"""Metrics that need another pass over the student, and are formed only when asked for."""


@dataclass(frozen=True)
class StudentPlan:
    """What ranking for one student takes: its scorers in order, and the metrics to form."""

    name: str
    scorers: tuple[StoredScorer, ...]
    metrics: tuple[Metric, ...]
    student: StudentModel | None


def rewards(study: Study, *, references: bool) -> Scorer | None:
    """Return the scorer that reads rewards along with the data, if there is one.

    `references` says whether the data carry reference answers.
    """
    if isinstance(study.reward, ColumnReward):
        return ColumnScorer(study.reward.column)
    if isinstance(study.reward, ReferenceReward) or references:
        return Verifier()
    return None


def for_student(
    study: Study, machine: Machine, student: Student | None, *, rewarded: bool
) -> StudentPlan:
    """Return what ranking for `student` takes; None ranks by reward and length alone.

    Raises:
        StudyError: a metric needs a measure that nothing gives.
    """
    metrics = study.metrics or _default_metrics(study, student is not None, rewarded)
    needed = {measure for metric in metrics for measure in metric.needs}
    available = {"length", *(("reward",) if rewarded else ())}
    model = None
    scorers: list[StoredScorer] = [LengthScorer()]
    if student is not None:
        reading = study.reading
        model = StudentModel(
            student.options(machine, include_end_of_turn=reading.include_end_of_turn),
            device=machine.resolved_device(),
            token_budget=machine.token_budget,
            keep_tokens=machine.keep_tokens,
        )
        available |= {*CONDITIONAL, "ifd"}
        scorers += _passes(model, needed, conditioning=reading.conditioning)
    require_measures(metrics, available)
    return StudentPlan(student.name if student else "any student", tuple(scorers), metrics, model)


def _default_metrics(study: Study, student: bool, rewarded: bool) -> tuple[Metric, ...]:
    measures = {"length"} | ({"reward"} if rewarded else set())
    measures |= set(CONDITIONAL) if student else set()
    return tuple(
        CompatibilityAdjustedReward(beta=study.beta) if kind == "car" else metric()
        for kind, metric in METRICS.items()
        if kind not in UNREQUESTED and measures.issuperset(metric.needs)
    )


def _passes(model: StudentModel, needed: Iterable[str], *, conditioning: str) -> list[StoredScorer]:
    """Return the likelihood passes: the one without the instruction only when something needs it."""
    wanted = set(needed)
    unconditional = "ifd" in wanted or (conditioning == "unconditional" and "loss" in wanted)
    conditional = wanted & set(CONDITIONAL) - (
        {"loss"} if conditioning == "unconditional" else set()
    )
    passes: list[StoredScorer] = []
    if conditional or "ifd" in wanted:
        passes.append(LikelihoodScorer(model))
    if unconditional:
        passes.append(LikelihoodScorer(model, "unconditional"))
    return passes
