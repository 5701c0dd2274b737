"""Differences of teachers by a metric, with the error that each has: what a race decides on."""

from dataclasses import dataclass

import numpy as np

from preceptor.ranking.inference import prior_squares
from preceptor.ranking.metrics import Array
from preceptor.ranking.quantities import Quantity


@dataclass(frozen=True)
class Contrasts:
    """Row less (scaled) column, each (teachers, teachers): value, standard error, skewness of its rows.

    `n` is the number of rows behind each.
    """

    gap: Array
    error: Array
    skewness: Array
    n: int


def contrasts(upward: Quantity, scale: Array) -> Contrasts:
    """Return each teacher's metric less `scale` times each other's.

    Args:
        upward: the metric, higher is better.
        scale: (teachers,), what the one that is subtracted is multiplied by; 1 for a plain difference.
    """
    influence, n = upward.influence, upward.influence.shape[1]
    teachers = len(upward.point)
    gap = upward.point[:, None] - scale * upward.point
    error, skewness = np.zeros((2, teachers, teachers))
    prior = prior_squares(upward)
    for row in range(teachers):
        differences = influence[row] - scale[:, None] * influence
        squares = np.einsum("ti,ti->t", differences, differences)
        cubes = np.einsum("ti,ti,ti->t", differences, differences, differences)
        with np.errstate(divide="ignore", invalid="ignore"):
            skewness[row] = np.where(squares > 0, cubes / n / (squares / n) ** 1.5, 0.0)
        error[row] = np.sqrt((squares + prior[row] + scale**2 * prior) / (n * (n - 1)))
    return Contrasts(gap, error, skewness, n)
