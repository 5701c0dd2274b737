"""What validation found: predicted orders, observed orders, and how far they agree.

A prediction holds only where chance is ruled out and the interval of its agreement, where there is one, lies
above zero. With few teachers neither is possible, and the result says so.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field

from preceptor.agreement.compare import FEWEST, compare, row_name, side_by_side
from preceptor.agreement.orders import Observed, Prediction
from preceptor.agreement.table import Agreement, AgreementTable
from preceptor.benchmarks.runs import RUN_DEVIATION
from preceptor.ranking.result import Ranking
from preceptor.ranking.schema import SCHEMA_VERSION
from preceptor.ranking.table import p_value
from preceptor.validation.dimensions import DimensionTable, dimension_tables

SIGNIFICANT = 0.05
"""Above this p, chance is not ruled out."""

_LEAST_DRAWS = 100


@dataclass(frozen=True)
class AnswerFigures:
    """How a model answered: `answers` in number, and the share that it ended itself.

    A model that never learnt to stop has a share of 0. `tokens` and `characters` are means; None without
    answers.
    """

    answers: int
    ended: float | None
    tokens: float | None
    characters: float | None


@dataclass(frozen=True)
class FinetunedFigures:
    """One tuned student: what it was fine-tuned on, in which run, how that went, and how it answered.

    `model` is the digest that names it, and its folder in the store. `left_out` counts by reason what
    was not trained on. Losses and steps are None where the model is no longer there.
    """

    student: str
    teacher: str
    run: int
    model: str
    rows: int
    left_out: Mapping[str, int]
    steps: int | None
    first_loss: float | None
    last_loss: float | None
    answered: AnswerFigures
    dimension: str = ""


@dataclass(frozen=True)
class ValidationResult:
    """Predicted and observed orders.

    `predicted` has a ranking for each student and source of rewards, `observed` one for each dimension and
    student. `untuned` says by `row_of` that how the student answered before, where it was asked. `agreement`
    is None where fewer than three teachers were fine-tuned on; its rows are those of `observed`, and there is
    no mean over dimensions.
    """

    predicted: tuple[Ranking, ...]
    observed: tuple[Ranking, ...]
    finetuned: tuple[FinetunedFigures, ...]
    untuned: Mapping[str, AnswerFigures] = field(default_factory=dict)
    agreement: AgreementTable | None = None

    def answered(self, observed: Ranking, teacher: str) -> AnswerFigures:
        """Return how the student fine-tuned on a teacher answered there, the mean over its runs."""
        wanted = (observed.student, dimension_of(observed), teacher)
        own = [f.answered for f in self.finetuned if (f.student, f.dimension, f.teacher) == wanted]
        return AnswerFigures(
            answers=sum(one.answers for one in own),
            ended=mean_of(one.ended for one in own),
            tokens=mean_of(one.tokens for one in own),
            characters=mean_of(one.characters for one in own),
        )

    def sentences(self) -> list[str]:
        """Return in words whether the predictions held, one for each student and ordering metric."""
        if self.agreement is None:
            teachers = len(self.observed[0].teachers)
            return [
                f"{teachers} teachers have no order to agree on: fine-tune on {FEWEST} or more to hold a "
                "prediction against."
            ]
        by = {ranking.by for ranking in self.predicted}
        return [
            self._sentence(cell, row)
            for row, cells in enumerate(self.agreement.cells)
            for cell, column in zip(cells, self.agreement.comparison.columns, strict=True)
            if column.metric in by and not column.baseline
        ]

    def _sentence(self, cell: Agreement, row: int) -> str:
        assert self.agreement is not None
        comparison = self.agreement.comparison
        column = comparison.column(cell.column)
        predicted = dict(zip(comparison.teachers, column.predicted[row].tolist(), strict=True))
        seen = next(one for one in self.observed if row_of(one) == cell.student)
        top_pick = max(predicted, key=lambda teacher: predicted[teacher])
        place = next(one.rank for one in seen.teachers if one.teacher == top_pick)
        best = seen.teachers[0]
        first = [one.teacher for one in seen.teachers if one.rank == 1]
        came = "and so it came" if place == 1 else f"which came {place} of {len(seen.teachers)}"
        if place == 1 and len(first) > 1:
            came = (
                f"which shares the first of {len(seen.teachers)} places with {len(first) - 1} more"
            )
        said = conclusion(cell, len(comparison.teachers), related=self.agreement.related)
        return (
            f"{cell.student}: {cell.column} put {top_pick} first, {came} (observed first: {best.teacher}, "
            f"P(first) {best.p_best:.2f}). {_runs(seen)} {said}"
        )

    def to_dict(self) -> dict[str, object]:
        """Return all of it as plain values fit for JSON."""
        table = self.agreement
        agreement = None
        if table is not None:
            agreement = {
                "teachers": list(table.comparison.teachers),
                "cells": [cell.record() for row in table.cells for cell in row],
                "means": [mean.record() for mean in table.means]
                if table.comparison.averaged
                else [],
                "left_out": list(table.comparison.left_out),
                "warnings": table.warnings(),
            }
        return {
            "schema_version": SCHEMA_VERSION,
            "predicted": [ranking.to_dict() for ranking in self.predicted],
            "observed": [ranking.to_dict() for ranking in self.observed],
            "finetuned": [asdict(one) for one in self.finetuned],
            "untuned": {name: asdict(figures) for name, figures in self.untuned.items()},
            "agreement": agreement,
            "dimensions": [table.record() for table in self.dimensions],
            "verdict": self.sentences(),
        }

    @property
    def outcomes(self) -> Observed:
        """Student, or student and dimension -> teacher -> what was observed; higher is better."""
        return outcomes_of(self.observed)

    @property
    def dimensions(self) -> tuple[DimensionTable, ...]:
        """Teachers by dimension, for each student; none where there is one dimension alone."""
        return dimension_tables(self.observed, [dimension_of(one) for one in self.observed])

    def observed_records(self) -> list[dict[str, object]]:
        """Return a row for each student and teacher, as `preceptor agreement --observed` reads it.

        `AP` is what the observed order rests on, whatever it is called; higher is better.
        """
        rows: list[dict[str, object]] = []
        for ranking in self.observed:
            for result in ranking.teachers:
                estimate = result.estimates[ranking.by]
                figures = self.answered(ranking, result.teacher)
                dimension = dimension_of(ranking)
                rows.append(
                    {
                        "teacher": result.teacher,
                        "student": ranking.student,
                        **({"dimension": dimension} if dimension else {}),
                        "AP": estimate.value,
                        "AP_low": estimate.low,
                        "AP_high": estimate.high,
                        "measure": ranking.by,
                        "n": result.n,
                        "p_best": result.p_best,
                        "ended": figures.ended,
                        "tokens": figures.tokens,
                    }
                )
        return rows


def _runs(observed: Ranking) -> str:
    """Return how many fine-tuning runs stand behind each outcome, and how far these differ."""
    deviation = observed.settings.get("run_deviation")
    if isinstance(deviation, float):
        return (
            f"Outcomes are means over {observed.settings['runs']} runs per teacher; between runs "
            f"{observed.by} has a standard deviation of {deviation:.2f}."
        )
    alone = "The observed order rests on one run per teacher, and P(first) covers no other"
    if observed.settings.get("baseline") == "":  # checked: points of another kind than AP's
        return f"{alone}: how far another run would lie is not known."
    return (
        f"{alone}: between the four runs of the paper's table 8 AP has a standard deviation of "
        f"{RUN_DEVIATION}."
    )


def mean_of(values: Iterable[float | None]) -> float | None:
    """Return the mean of what is known; None where nothing is."""
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else None


def conclusion(cell: Agreement, teachers: int, *, related: bool) -> str:
    """Return what an agreement over so many teachers, of which some may be related, says of the prediction.

    p is that adjusted for every metric and student looked at. Below 8 teachers there is no interval: the
    exact test alone decides, and nothing where it takes relatives for independent.
    """
    rho, (low, high), p = cell.rho, cell.ends, cell.permutation.adjusted
    if not math.isfinite(rho):
        return "One of the two orders is all ties, so their agreement is unknown."
    bounded = math.isfinite(low)
    interval = f"[{low:.2f}, {high:.2f}]" if bounded else "(no interval below 8 teachers)"
    basis = f"Spearman's rho {rho:.2f} {interval}, adjusted p {p_value(p)}, {teachers} teachers"
    clear = p <= SIGNIFICANT and (low * high > 0 if bounded else not related)
    if clear:
        way = "held" if rho > 0 else "failed, the order came out the other way round"
        return f"{basis}: the prediction {way}."
    least = 2 / math.factorial(teachers)
    if least > SIGNIFICANT:
        return (
            f"{basis}: this neither confirms nor refutes the prediction, and {teachers} teachers never "
            f"could: two orders agree or differ wholly by chance with p {p_value(least)}."
        )
    return f"{basis}: this neither confirms nor refutes the prediction."


def outcomes_of(observed: Sequence[Ranking]) -> Observed:
    """Return what observed orders rest on, by student (and dimension) and teacher."""
    return {
        row_of(ranking): {
            result.teacher: result.estimates[ranking.by].value for result in ranking.teachers
        }
        for ranking in observed
    }


def agreement_of(
    predicted: Sequence[Ranking], observed: Sequence[Ranking], *, draws: int, seed: int
) -> AgreementTable | None:
    """Return how well every predicted metric agrees with what was observed; None below three teachers.

    Intervals resample teachers. Dimensions are rows of one table, so that p is adjusted for all of them.
    """
    if min(len(ranking.teachers) for ranking in observed) < FEWEST:
        return None
    predictions = [_prediction(ranking) for ranking in predicted]
    comparison = side_by_side(
        {
            name: compare(
                predictions,
                {
                    one.student: own
                    for one, own in zip(observed, outcomes_of(observed).values(), strict=True)
                    if dimension_of(one) == name
                },
            )
            for name in dict.fromkeys(map(dimension_of, observed))
        }
    )
    return AgreementTable(comparison, draws=max(_LEAST_DRAWS, draws), seed=seed)


def dimension_of(observed: Ranking) -> str:
    """Return of which dimension an observed order is, empty where the study has one alone."""
    return str(observed.settings.get("dimension", ""))


def row_of(observed: Ranking) -> str:
    """Return the row of the agreement: the student, and the dimension where there are several."""
    return row_name(observed.student, dimension_of(observed))


def _prediction(ranking: Ranking) -> Prediction:
    return Prediction(
        student=ranking.student,
        file="the prediction",
        values={
            result.teacher: {name: result.estimates[name].value for name in ranking.metrics}
            for result in ranking.teachers
        },
        rewards=ranking.reward_source,
        transformed=ranking.settings.get("transform", "raw") != "raw",
    )
