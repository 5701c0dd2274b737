"""From a judge's answer to a score: the number it wrote, or better the mean of those it could have written.

Where an engine gives the likelihood of each number (G-Eval, Liu et al. 2023, section 2), the
expectation over the numbers of the scale is finer than the one number that was drawn. The share of
probability that these numbers cover is kept beside it. Answers are untrusted: patterns take linear time.
"""

import math
import re
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from preceptor.engines.base import Alternative, Completion, Position
from preceptor.types import NoteKind

NO_SCORE = NoteKind.NO_SCORE.note("in the judge's answer")

LEAST_MASS = 0.05
"""Where the answer holds no number, its first token must have been one with this probability at least."""

_NUMBER = re.compile(r"(?<![\w.])[-\u2212]?[0-9]{1,6}(?:\.[0-9]{1,6})?(?!\w)")
_END_OF_THOUGHT = "</think>"
_REACH = 2000


class Reading(NamedTuple):
    """What an answer says: `score`, the `mass` behind an expectation, and the number `sampled`.

    `mass` is None where the score is the sampled number itself; `sampled` is None where none was written.
    """

    score: float
    mass: float | None
    sampled: float | None

    def columns(self) -> Mapping[str, float]:
        """Return what is stored; `expected` tells expectations (1) from sampled numbers (0)."""
        found = {"score": self.score, "mass": self.mass, "sampled": self.sampled}
        present = {name: value for name, value in found.items() if value is not None}
        return {**present, "expected": float(self.mass is not None)}


class _Number(NamedTuple):
    start: int
    value: float


def read_answer(completion: Completion, scale: tuple[int, int]) -> Reading | str:
    """Return the reading of an answer, or the note that says why there is none.

    `scale` is the lowest and the highest whole number, within 0 to 10.
    """
    low, high = scale
    number = _number_in(completion.text, scale)
    if number is not None and not low <= number.value <= high:
        return f"the judge's number lies outside {low} to {high}"
    probabilities = _probabilities(_from_number(completion, number, scale), scale, completion)
    mass = math.fsum(probabilities.values())
    sampled = number.value if number is not None else None
    if mass <= 0 or (sampled is None and mass < LEAST_MASS):
        return NO_SCORE if sampled is None else Reading(sampled, None, sampled)
    mean = math.fsum(value * share for value, share in probabilities.items()) / mass
    return Reading(min(max(mean, low), high), min(mass, 1.0), sampled)


def _number_in(text: str, scale: tuple[int, int]) -> _Number | None:
    """Return the first number of the answer that is not a mention of the scale, as 8 in 8/10."""
    start = text.rfind(_END_OF_THOUGHT)
    start = 0 if start < 0 else start + len(_END_OF_THOUGHT)
    found = _NUMBER.search(_without_scale(text[start : start + _REACH], scale))
    if found is None:
        return None
    return _Number(start + found.start(), float(found[0].replace("\u2212", "-")))


def _without_scale(text: str, scale: tuple[int, int]) -> str:
    """Return the text with "1 to 10", "/10" and "out of 10" as spaces, so that places stay the same."""
    low, high = scale
    mention = (
        rf"(?<![\w.]){low}\s?(?:-|\u2013|\u2014|to|through)\s?{high}(?![\w.])"
        rf"|(?:/|out\sof)\s?{high}(?!\w)"
    )
    return re.sub(mention, lambda found: " " * len(found[0]), text)


def _from_number(
    completion: Completion, number: _Number | None, scale: tuple[int, int]
) -> Sequence[Position]:
    """Return the positions from the token on that starts the number; from the first without one.

    Empty where the tokens do not tell: none came, they spell another text, or the number is no whole one.
    """
    if number is None:
        return completion.positions
    spelled = "".join(position.text for position in completion.positions)
    again = _number_in(spelled, scale)
    if again is None or again.value != number.value or number.value % 1:
        return ()
    end = 0
    for place, position in enumerate(completion.positions):
        start, end = end, end + len(position.text)
        if again.start < end:
            begins = not spelled[start : again.start].strip()
            return completion.positions[place:] if begins else ()
    return ()


def _probabilities(
    positions: Sequence[Position], scale: tuple[int, int], completion: Completion
) -> dict[int, float]:
    """Return how likely each number of the scale was, as far as the alternatives tell."""
    low, high = scale
    if not positions:
        return {}
    shares = {
        value: share
        for value in range(min(low, 1), high + 1)
        if (share := _share(positions[0].alternatives, str(value))) > 0
    }
    if high == 10 and 10 not in shares and 1 in shares:
        _split_one(shares, positions, completion)
    return {value: share for value, share in shares.items() if low <= value <= high}


def _split_one(
    shares: dict[int, float], positions: Sequence[Position], completion: Completion
) -> None:
    """Divide what a leading "1" has between 1 and 10, where 10 is written in two tokens.

    What came after "1" is known only where "1" was drawn; else its share is no one's and leaves the mass.
    """
    leading = shares.pop(1)
    if positions[0].text.strip() != "1":
        return
    if len(positions) > 1:
        tenth = min(1.0, _share(positions[1].alternatives, "0", spaced=False))
        shares[10] = leading * tenth
        shares[1] = leading * (1.0 - tenth)
    elif completion.finish_reason != "length":
        shares[1] = leading


def _share(alternatives: Sequence[Alternative], text: str, *, spaced: bool = True) -> float:
    """Return the probability of a text, with or without white space around it."""
    return math.fsum(
        math.exp(one.log_probability)
        for one in alternatives
        if (one.text.strip() if spaced else one.text) == text
    )
