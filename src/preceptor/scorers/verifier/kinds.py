r"""The kinds of reference and the check that each asks for.

A reference is a mapping whose `kind` names a check, and a check is a function of the response's text, made
once from the reference after looking the reference over. Responses and references are untrusted: a check is
linear in the length of the text, or it is a library's and must run in a worker process (`pool`).
`docs/reference/verifiers.md` lists the kinds with an example each.
"""

import math
import re
import sys
from collections.abc import Callable, Mapping

from preceptor.errors import DataError
from preceptor.scorers.verifier.checks import (
    Check,
    Maker,
    json_schema_check,
    made,
    math_check,
    regex_check,
)
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

DEFAULT_TOLERANCE = 1e-6
"""Relative tolerance of `numeric` references that state none."""

CHOICES = "ABCDE"

_SLACK = 100
"""How many times longer than its answer an `exact` text can be and still only spell it."""


def prepared(reference: Mapping[str, object]) -> Check:
    """Return the check a reference asks for, after looking the reference over.

    Raises:
        DataError: The reference is malformed or of an unknown kind.
        MissingPackage: The kind needs a package of the extra `verify`.
    """
    return made(reference, _KINDS, what="reference", by="kind")


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


_KINDS: Mapping[str, Maker[Check]] = {
    "exact": Maker(_exact, ("answer",)),
    "numeric": Maker(_numeric, ("answer",), ("tolerance",)),
    "choice": Maker(_choice, ("answer",)),
    "contains": Maker(_contains, ("answer",), ("not_contains",)),
    "regex": Maker(regex_check, ("pattern",), ("full",)),
    "json_schema": Maker(json_schema_check, ("schema",)),
    "math": Maker(math_check, ("answer",)),
    "constraints": Maker(constraints_check, ("constraints",), ("partial",)),
}
