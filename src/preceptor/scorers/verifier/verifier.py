r"""Rewards from checking a response against its known answer: 1.0, 0.0, or none and why.

The one idea: `Response.reference` (or one rule for all responses) is a mapping whose `kind` names a
check, and a check is a function of the response's text, made once from the reference after looking
the reference over. Responses and references are untrusted: a check is linear in the length of the
text or runs under a time limit. `docs/verifiers.md` lists the kinds with an example each.
"""

import math
import re
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cached_property
from typing import ClassVar, NamedTuple

from preceptor.errors import DataError, StudyError, nearest
from preceptor.scorers.verifier.bounded import NotChecked
from preceptor.scorers.verifier.checks import Check, json_schema_check, math_check, regex_check
from preceptor.scorers.verifier.constraints import constraints_check
from preceptor.scorers.verifier.final_answers import (
    Number,
    chosen_letters,
    final_number,
    final_parts,
    folded,
    folded_words,
    parsed_number,
)
from preceptor.types import Response, Score

DEFAULT_TOLERANCE = 1e-6
"""Relative tolerance of `numeric` references that state none."""

CHOICES = "ABCDE"

_SLACK = 100
"""How many times longer than its answer an `exact` text can be and still only spell it."""


class Verifier:
    """The scorer of responses that carry a checkable reference: `reward` is 1.0 or 0.0.

    `constraints` references that count partly give the share kept, from 0.0 to 1.0. A response that
    cannot be checked gets a note instead of a number: "no reference", "empty" (null or blank text),
    what is wrong with its reference, or that its check took too long.
    """

    measures: ClassVar[tuple[str, ...]] = ("reward",)

    def __init__(self, rule: Mapping[str, object] | None = None) -> None:
        """Check every response against `rule`, if one is given, whatever reference it carries.

        Raises:
            StudyError: The rule is malformed or of an unknown kind.
            MissingPackage: The rule's kind needs a package of the extra `verify`.
        """
        self.rule = rule
        if rule is not None:
            try:
                # Some faults (of a schema, a pattern) are found only by whoever runs the check.
                _prepare(rule)("{}")
            except DataError as error:
                raise StudyError(f"The rule for all responses cannot be used: {error}") from error

    @cached_property
    def _rule_check(self) -> Check | None:
        return None if self.rule is None else _prepare(self.rule)

    def __reduce__(self) -> tuple[type["Verifier"], tuple[Mapping[str, object] | None]]:
        """Pickle the rule and not the check made of it, so that processes can share the reading."""
        return Verifier, (self.rule,)

    def score(self, responses: Sequence[Response]) -> Iterator[Sequence[Score]]:
        """Yield one score per response, in order, all at once; a malformed reference is a note.

        Raises:
            MissingPackage: A reference's kind needs a package of the extra `verify`.
        """
        yield [self._score_one(response) for response in responses]

    def _score_one(self, response: Response) -> Score:
        if response.reference is None and self._rule_check is None:
            return Score(response.key, {}, note="no reference")
        if response.text is None or not response.text.strip():
            return Score(response.key, {}, note="empty")
        try:
            return Score(response.key, {"reward": self._reward(response, response.text)})
        except NotChecked as error:
            return Score(response.key, {}, note=f"not checked: {error}")
        except DataError as error:
            return Score(response.key, {}, note=f"unusable reference: {error}")

    def _reward(self, response: Response, text: str) -> float:
        if self._rule_check is not None:
            return self._rule_check(text)
        return verify(text, response.reference or {})


def verify(text: str, reference: Mapping[str, object]) -> float:
    """Return 1.0 where the text's final answer matches the reference, else 0.0.

    Kinds: `exact` (the final answer, the last line or the whole text has the answer's words and
    numbers, whatever the case, spacing and punctuation), `numeric` (optional relative `tolerance`;
    a percent sign on one side only matches both readings: 50% is 50 and 0.5), `choice` (a letter A
    to E; two different letters are wrong), `contains` (the answer, or any of a list of answers,
    occurs as whole words, and none of the optional list `not_contains` does), `regex`,
    `json_schema`, `math` (see `checks`) and `constraints` (see `constraints`; with `partial` the
    share of constraints kept).

    Raises:
        DataError: The reference is malformed or of an unknown kind, or the check took too long.
        MissingPackage: The kind needs a package of the extra `verify`.
    """
    return _prepare(reference)(text)


def _prepare(reference: Mapping[str, object]) -> Check:
    """Return the check a reference asks for, after checking the reference itself."""
    if not isinstance(reference, Mapping):
        raise DataError(f"A reference is a table with a kind and an answer, not {reference!r:.80}.")
    # A null is an absent field: column formats fill the fields that only other rows have.
    present = {key: value for key, value in reference.items() if value is not None}
    kind = present.pop("kind", None)
    if not isinstance(kind, str) or kind not in _KINDS:
        raise DataError(
            f"The reference's kind is {kind!r:.80}; the kinds are {', '.join(_KINDS)}."
            + nearest(str(kind)[:80], _KINDS)
        )
    needs, options = _KINDS[kind].needs, _KINDS[kind].options
    for name in present:
        if name != needs and name not in options:
            allowed = ("kind", needs, *options)
            raise DataError(
                f"A reference of kind '{kind}' has no field {name!r:.80}; its fields are "
                f"{', '.join(allowed)}." + nearest(str(name)[:80], allowed)
            )
    if needs not in present:
        raise DataError(f"The reference of kind '{kind}' has no {needs}: give it one.")
    return _KINDS[kind].build(present)


def _scored(check: Callable[[str], bool]) -> Check:
    return lambda text: 1.0 if check(text) else 0.0


def _answer_words(value: object) -> list[str]:
    """Return the words of one answer of a reference, which must have some."""
    words = folded_words(value) if isinstance(value, str) else []
    if not words:
        raise DataError(f"An answer is a text with letters or digits, not {value!r:.80}.")
    return words


def _exact(reference: Mapping[str, object]) -> Check:
    wanted = _answer_words(reference["answer"])
    room = _SLACK * (1 + len(str(reference["answer"])))
    return _scored(
        lambda text: any(
            len(part) <= room and folded_words(part) == wanted for part in final_parts(text)
        )
    )


def _contains(reference: Mapping[str, object]) -> Check:
    answers = [_occurrence(one) for one in _one_or_list(reference["answer"])]
    barred = [_occurrence(one) for one in _one_or_list(reference.get("not_contains", []))]
    if not answers:
        raise DataError("The reference of kind 'contains' has an empty list of answers: give one.")

    def check(text: str) -> bool:
        searched = folded(text)
        found = any(one.search(searched) for one in answers)
        return found and not any(one.search(searched) for one in barred)

    return _scored(check)


def _occurrence(answer: object) -> re.Pattern[str]:
    """Return the pattern of the answer's words in a row; 5 does not occur in -5 or 5.5."""
    words = _answer_words(answer)
    before = r"(?<![^\W_])" + (r"(?<![0-9]\.)(?<!(?<!\w)-)" if words[0][0].isdigit() else "")
    after = r"(?![^\W_])" + (r"(?!\.[0-9])" if words[-1][-1].isdigit() else "")
    return re.compile(before + r"[\W_]++".join(map(re.escape, words)) + after)


def _one_or_list(value: object) -> list[object]:
    return list(value) if isinstance(value, list | tuple) else [value]


def _numeric(reference: Mapping[str, object]) -> Check:
    wanted = _reference_number(reference["answer"])
    tolerance = reference.get("tolerance", DEFAULT_TOLERANCE)
    if not isinstance(tolerance, int | float) or not 0 <= tolerance <= 1:
        raise DataError(f"The tolerance of a reference is {tolerance!r:.80}; give one in 0..1.")
    return _scored(lambda text: _close(final_number(text), wanted, float(tolerance)))


def _reference_number(answer: object) -> Number:
    number = None
    if isinstance(answer, str):
        number = parsed_number(answer)
    elif isinstance(answer, int | float) and not isinstance(answer, bool):
        number = Number(float(answer) if abs(answer) <= sys.float_info.max else math.nan, False)
    if number is None or not math.isfinite(number.value):
        raise DataError(f"A numeric reference has a finite number as answer, not {answer!r:.80}.")
    return number


def _close(found: Number | None, wanted: Number, tolerance: float) -> bool:
    if found is None:
        return False
    values = [found.value]
    if found.percent and not wanted.percent:
        values.append(found.value / 100)
    if wanted.percent and not found.percent:
        values.append(found.value * 100)
    room = tolerance * (abs(wanted.value) or 1.0)
    return any(abs(value - wanted.value) <= room for value in values)


def _choice(reference: Mapping[str, object]) -> Check:
    answer = reference["answer"]
    letter = answer.strip().upper() if isinstance(answer, str) else ""
    if len(letter) != 1 or letter not in CHOICES:
        raise DataError(f"A choice reference has a letter A to E as answer, not {answer!r:.80}.")
    return _scored(lambda text: chosen_letters(text) == {letter})


class _Kind(NamedTuple):
    """How to build one kind's check, the field it must have and those it can have."""

    build: Callable[[Mapping[str, object]], Check]
    needs: str
    options: tuple[str, ...] = ()


_KINDS = {
    "exact": _Kind(_exact, "answer"),
    "numeric": _Kind(_numeric, "answer", ("tolerance",)),
    "choice": _Kind(_choice, "answer"),
    "contains": _Kind(_contains, "answer", ("not_contains",)),
    "regex": _Kind(regex_check, "pattern", ("full",)),
    "json_schema": _Kind(json_schema_check, "schema"),
    "math": _Kind(math_check, "answer"),
    "constraints": _Kind(constraints_check, "constraints", ("partial",)),
}
