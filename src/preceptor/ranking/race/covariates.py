"""Use what is known of every row, also of those not yet seen, to make a race shorter.

Lengths, columns of the data and stored scores exist for all rows before the race has come to them. Each
measure is regressed on them over the rows seen; the mean of what they explain is then known over all rows,
and only the rest is uncertain (the regression estimator of survey sampling: Cochran 1977, chapter 7;
prediction-powered inference: Angelopoulos et al., arXiv 2301.09633 and 2311.01453). A measure that is itself
known has no rest.
"""

from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from preceptor.ranking.metrics import Array
from preceptor.ranking.quantities import Quantity, unbounded


def adjusted(
    means: Mapping[str, Quantity], known: Mapping[str, Array]
) -> tuple[dict[str, Quantity], dict[str, Quantity]]:
    """Return every mean with its known part taken over all rows: what is left, and that part alone.

    Args:
        means: of the rows seen, which are the first.
        known: covariates by name, (teachers, rows in all), without NaN.

    Returns:
        Quantities whose influence is what the covariates leave, (teachers, rows seen), and quantities whose
        influence is what they explain, (teachers, rows in all); the points are the same.
    """
    rest, explained = {}, {}
    for name, mean in means.items():
        seen = mean.influence.shape[1]
        columns = _standardised(name, known, seen)
        inside = columns[:, :, :seen]
        square = np.einsum("tpi,tqi->tpq", inside, inside)
        product = np.einsum("tpi,ti->tp", inside, mean.influence)
        slope = np.einsum(
            "tpq,tq->tp", np.linalg.pinv(square, rcond=1e-10, hermitian=True), product
        )
        whole = np.einsum("tp,tpi->ti", slope, columns)
        middle = whole.mean(axis=1)
        point = mean.point + middle
        left = mean.influence - whole[:, :seen]
        # A measure that is known leaves rounding alone.
        scale = np.sqrt(np.einsum("ti,ti->t", mean.influence, mean.influence))
        left[np.sqrt(np.einsum("ti,ti->t", left, left)) <= 1e-9 * scale] = 0.0
        # As many degrees of freedom go as there are covariates.
        left *= np.sqrt((seen - 1) / max(1, seen - 1 - columns.shape[1]))
        spread = np.where(left.any(axis=1), mean.spread, 0.0)
        rest[name] = replace(mean, point=point, influence=left, spread=spread)
        explained[name] = unbounded(point, whole - middle[:, None])
    return rest, explained


def _standardised(name: str, known: Mapping[str, Array], seen: int) -> Array:
    """Return the covariates centred on the rows seen and scaled there, (teachers, covariates, rows).

    Where the measure itself is known the others are left out.
    """
    used = [known[name]] if name in known else list(known.values())
    columns = np.stack(used, axis=1)
    columns = columns - columns[:, :, :seen].mean(axis=2, keepdims=True)
    scale = columns[:, :, :seen].std(axis=2, keepdims=True)
    result: Array = columns / np.where(scale > 0, scale, 1.0)
    return result
