"""From a judge's answer to a score: the number it wrote, or better the mean of those it could have written.

Where an engine gives the likelihood of each number (G-Eval, Liu et al. 2023, section 2), the
expectation over the numbers of the scale is finer than the one number that was drawn. The share of
probability that these numbers cover is kept beside it. Answers are untrusted: patterns take linear time.

A number counts where the answer gives it as its rating: alone, at the beginning, at the end, or after a word
such as "rating". What stands in quotation marks is another's. Places that disagree give no score.
"""

import math
import re
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from preceptor.engines.base import Alternative, Completion, Position
from preceptor.engines.reasoning import is_unfinished
from preceptor.types import NoteKind

NO_SCORE = NoteKind.NO_SCORE.note("in the judge's answer")

LEAST_MASS = 0.05
"""Where the answer holds no number, its first token must have been one with this probability at least."""

_DIGITS = r"(?<![\w.])(?<!\w-)(?P<number>[-\u2212]?[0-9]{1,6}(?:\.[0-9]{1,6})?)(?!\w)"
_DRESS = r"[\s*_#`\"'\u201c\u201d.:!()\[\]{}]*"
_WORD = r"\b(?:rat(?:e|ed|ing)|scored?|grade|mark|giv(?:e|ing)\s(?:it|this|that|the\s\w+))\b"
_AFTER = rf"{_DRESS}(?:\Z|\n|[,;(\u2013\u2014-])|[.:!)]|\s(?:because|since|as|points?|stars?)\b"
_NUMBER = re.compile(_DIGITS)
_ALONE = re.compile(rf"{_DRESS}{_DIGITS}{_DRESS}")
_PLACES = (
    rf"\A{_DRESS}(?!1[.)]\s+\S){_DIGITS}(?={_AFTER})",  # 1. may begin a list
    rf"{_DIGITS}{_DRESS}\Z",
    rf"{_WORD}[^\n0-9.!?]{{0,60}}?{_DIGITS}",
)
_PLACE = tuple(re.compile(place, re.IGNORECASE) for place in _PLACES)
_QUOTED = re.compile(r"\"[^\"\n]*\"|\u201c[^\u201d\n]*\u201d|`[^`\n]*`|^>.*$", re.MULTILINE)
_END_OF_THOUGHT = "</think>"
_REACH = 20_000
"""Characters of an answer beside its thoughts; the number alone was asked for."""


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
    number = _number_in(completion.text, scale, cut=completion.finish_reason == "length")
    if isinstance(number, str):
        return number
    if number is not None and not low <= number.value <= high:
        return f"the judge's number lies outside {low} to {high}"
    probabilities = _probabilities(_from_number(completion, number, scale), scale, completion)
    mass = math.fsum(probabilities.values())
    sampled = number.value if number is not None else None
    if mass <= 0 or (sampled is None and mass < LEAST_MASS):
        return NO_SCORE if sampled is None else Reading(sampled, None, sampled)
    mean = math.fsum(value * share for value, share in probabilities.items()) / mass
    return Reading(min(max(mean, low), high), min(mass, 1.0), sampled)


def _number_in(text: str, scale: tuple[int, int], *, cut: bool = False) -> _Number | str | None:
    """Return the number that the answer gives; None where it holds none, a note where it is not clear which.

    `cut`: the answer goes on where it ends here, so that its last word may be another.
    """
    thought = text.rfind(_END_OF_THOUGHT)
    start = 0 if thought < 0 else thought + len(_END_OF_THOUGHT)
    if is_unfinished(text) or len(text) - start > _REACH:
        return NO_SCORE
    own = _without_scale(text[start:], scale)
    found = [_ALONE.fullmatch(own)]
    if not any(found):
        said = _QUOTED.sub(_blank, own)
        end = len(said.rstrip()) if cut else -1
        found = [one for place in _PLACE for one in place.finditer(said)]
        found = [one for one in found if one and one.end("number") != end]
    places = {
        float(one["number"].replace("\u2212", "-")): one.start("number") for one in found if one
    }
    if len(places) == 1:
        ((value, place),) = places.items()
        return _Number(start + place, value)
    return NO_SCORE if _NUMBER.search(own) else None


def _blank(found: re.Match[str]) -> str:
    return " " * len(found[0])


def _without_scale(text: str, scale: tuple[int, int]) -> str:
    """Return the text with "1 to 10", "/10" and "out of 10" as spaces, so that places stay the same."""
    low, high = scale
    mention = (
        rf"(?<![\w.]){low}\s?(?:-|\u2013|\u2014|to|through)\s?{high}(?![\w.])"
        rf"|(?:/|(?:out\s)?of)\s?{high}(?!\w)"
    )
    return re.sub(mention, _blank, text)


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
    if not isinstance(again, _Number) or again.value != number.value or number.value % 1:
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
