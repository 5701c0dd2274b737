"""Measures of later work that come from the pass of the likelihood: what each needs, stores, and is.

What is free is stored always; what costs time is computed where a metric asks for it. A row that lacks what
is asked for is scored again, and serves all other metrics as it is.
"""

import math
import re
from bisect import bisect_right
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate

import numpy as np
from numpy.typing import NDArray

from preceptor.engines.base import RANK_LIMIT, Measured, Numbers
from preceptor.scorers.base import Array

BANDS = {"rank_1": (1, 1), "rank_2_10": (2, 10), "rank_11_100": (11, 100)}
"""Tokens whose rank lies within these, ends included; the others are `rank_over_100`."""

STEPS = {
    "line": re.compile(r"(?:^|\n)\s*(?=\S)"),
    "sentence": re.compile(r"(?:^|\n|(?<=[.?!])\s)\s*(?=\S)"),
}
"""What stands before a step of a text: a line break, or also the end of a sentence."""


@dataclass(frozen=True)
class LaterMeasure:
    """A measure: the engine's measure it comes from, the columns it is stored in, and its formula.

    `extra` is whether the engine measures that only where it is asked to.
    """

    of: str
    columns: tuple[str, ...]
    form: Callable[[Mapping[str, Array]], Array]
    extra: bool = False


def _share(name: str) -> LaterMeasure:
    return LaterMeasure("rank", (name,), lambda columns: columns[name] / columns["tokens"])


def _beyond(columns: Mapping[str, Array]) -> Array:
    beyond: Array = 1 - np.sum([columns[name] for name in BANDS], axis=0) / columns["tokens"]
    return beyond


def _ratio(columns: Mapping[str, Array]) -> Array:
    """Brier score over loss; no data where every token is certain."""
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = columns["brier_50"] / columns["nll"]
    return np.where(np.isfinite(ratio), ratio, np.nan)


def _without_first(steps: str) -> LaterMeasure:
    """Mean loss of the tokens that begin no step; no data where there are none."""
    names = (f"begins_{steps}", f"begins_{steps}_nll")

    def form(columns: Mapping[str, Array]) -> Array:
        left = columns["tokens"] - columns[names[0]]
        rest = columns["nll"] - columns[names[1]]
        return np.where(left > 0, rest / np.maximum(left, 1), np.nan)

    return LaterMeasure("nll", names, form)


LATER: Mapping[str, LaterMeasure] = {
    "brier": LaterMeasure("brier", ("brier",), lambda c: c["brier"] / c["tokens"]),
    **{name: _share(name) for name in BANDS},
    "rank_over_100": LaterMeasure("rank", tuple(BANDS), _beyond),
    "brier_50": LaterMeasure(
        "brier_50", ("brier_50",), lambda c: c["brier_50"] / c["tokens"], True
    ),
    "lark_rho": LaterMeasure("brier_50", ("brier_50",), _ratio, True),
    "scas_answer": LaterMeasure("similarity", ("scas_answer",), lambda c: c["scas_answer"], True),
    "scas_question": LaterMeasure(
        "similarity", ("scas_question",), lambda c: c["scas_question"], True
    ),
    "loss_line": _without_first("line"),
    "loss_sentence": _without_first("sentence"),
}
"""The measures of the pass that sees the instruction which a metric may ask for, by name."""

FORMED = {"lark_score": "brier_50"}
"""Measures that are formed over all teachers' answers to an instruction, and what of each they need."""


def columns_of(wanted: Sequence[str]) -> tuple[str, ...]:
    """Return the columns that these measures are stored in."""
    return tuple(dict.fromkeys(name for one in wanted for name in LATER[one].columns))


def sums_of(columns: Mapping[str, Numbers]) -> dict[str, float]:
    """Return what is stored of the columns of a response's tokens: how many there are, sums, and bands."""
    sums = {name: float(column.sum(dtype=np.float64)) for name, column in clipped(columns).items()}
    return {"tokens": float(len(columns["nll"])), **sums, **_bands(columns)}


def clipped(columns: Mapping[str, Numbers]) -> dict[str, Numbers]:
    """Return the columns with ranks cut at `RANK_LIMIT`."""
    found = dict(columns)
    if "rank" in found:
        found["rank"] = np.minimum(found["rank"], RANK_LIMIT)
    return found


def _bands(columns: Mapping[str, Numbers]) -> dict[str, float]:
    if "rank" not in columns:
        return {}
    ranks = columns["rank"]
    return {
        name: float(np.count_nonzero((ranks >= low) & (ranks <= high)))
        for name, (low, high) in BANDS.items()
    }


def scas_of(measured: Measured, special: NDArray[np.bool_]) -> dict[str, float]:
    """Return both parts of SCAS (arXiv 2605.26872); `special` tells which of the tokens are special.

    NaN, which is no data, where all of them are.
    """
    if "answer_cosine" not in measured.values:
        return {}
    nll, values = measured.columns["nll"][~special], measured.values
    loss = float(nll.mean(dtype=np.float64)) if len(nll) else math.nan
    return {
        "scas_answer": loss**2 * values["answer_cosine"],
        "scas_question": loss * values["question_nll"] * values["question_cosine"],
    }


def first_tokens(nll: Numbers, pieces: Sequence[str], steps: str) -> dict[str, float]:
    """Return how many tokens begin a step of the text that `pieces` spell, and the sum of their losses."""
    stops = list(accumulate(map(len, pieces)))
    starts = [found.end() for found in STEPS[steps].finditer("".join(pieces))]
    places = sorted({bisect_right(stops, start) for start in starts})
    places = [place for place in places if place < len(nll)]
    total = float(nll[places].sum(dtype=np.float64))
    return {f"begins_{steps}": float(len(places)), f"begins_{steps}_nll": total}
