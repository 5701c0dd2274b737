r"""Rewards from checking a response against its known answer: 1.0, 0.0, or none and why.

The one idea: a rule finds the response's final answer (after "answer is", "Answer:", "####" or
`\boxed{`, else by the kind's own convention) and compares it with `Response.reference`, which is
`{"kind": "exact" | "numeric" | "choice" | "contains", "answer": ...}`. Responses are untrusted: no
pattern is built from data and every pattern takes time linear in the length of the text.
"""

import math
import re
import sys
import unicodedata
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import ClassVar, NamedTuple

from preceptor.errors import DataError, nearest
from preceptor.types import Response, Score

DEFAULT_TOLERANCE = 1e-6
"""Relative tolerance of `numeric` references that state none."""

CHOICES = "ABCDE"

_MARKER = re.compile(r"\banswer(?:\s{1,3}is|\s?\*{0,2}\s?:)|#{4,}+|\\boxed\s?\{", re.IGNORECASE)

_DIGITS = r"(?:[0-9]{1,3}(?:,[0-9]{3})+(?![0-9])(?:\.[0-9]+)?|[0-9]+(?:\.[0-9]+)?|(?<!\.)\.[0-9]+)"
# Neither the digits inside a word (CO2) nor an exponent of a unit (cm^2, cm^{2}) are numbers.
_START = r"(?<![\w^])(?<!\w\.)(?<!\^\{)"
_NUMBER = re.compile(
    rf"(?P<sign>(?<![\w)\]])[-\u2212][$€£]?|[$€£][-\u2212]?|)"
    rf"{_START}(?P<digits>{_DIGITS})"
    r"(?:[eE](?P<exponent>[-+]?[0-9]{1,3})(?!\w)"
    r"|\s?(?:[x\u00d7*]|\\times)\s?10\s?\^\s?\{?(?P<power>[-\u2212]?[0-9]{1,3})\}?)?"
    rf"(?:\s?/\s?(?P<denominator>{_DIGITS}))?"
    r"(?P<percent>\s?\\?%)?"
)
_LINK = re.compile(r"\s{0,3}([-+*x\u00d7/\u00f7\u2212=])\s{0,3}")
_REACH = 200
"""How many characters after a marker are read to find its number."""
_TAIL = 10_000
"""Without a marker, how many characters are read: a conclusion stands at the end."""

# Possessive (++, *+, ?+), so that no text makes it go back; the minus inside 10-5 is no sign.
_WORD = re.compile(r"(?:-(?<!\w-))?[0-9]++(?:\.[0-9]+)?+(?![^\W_])|[^\W_]++")
_GROUPING = re.compile(r",(?<=[0-9],)(?=[0-9]{3}(?![0-9]))")

_SLACK = 100
"""How many times longer than its answer an `exact` text can be and still only spell it."""

# A bare "A" before a word is the article, unless the word is one that only follows a choice.
_ARTICLE = r"(?<=[Aa])\s+(?!(?:is|because|since)\b)\w"
_SECOND = r"(?:[)\].*]{0,3}\s?(?:or|and|/|,)\s?[(*]{0,3}([A-E])(?!\w))?"
_MARKED_CHOICE = re.compile(
    r"[\s:*_$\"'(\[{]{0,8}(?:\\text\{)?(?:option\s|choice\s)?[*(\[]{0,3}"
    rf"([A-Ea-e])(?![\w'])(?!{_ARTICLE}){_SECOND}"
)
_LINE_CHOICE = re.compile(
    rf"^[ \t*(\[]{{0,6}}([A-Ea-e])(?:(?=[)\].:*]){_SECOND}|[ \t]{{0,3}}$)", re.MULTILINE
)
_LOOSE_CHOICE = re.compile(
    r"(?<!\w)(?:\(([A-Ea-e])\)|\*\*([A-E])\*\*|(?:[Oo]ption|[Cc]hoice) ([A-E])(?!\w)"
    r"|(?<![°'-])([B-E])(?![\w'-]))"
)


class Number(NamedTuple):
    """A number as written: `50%` is the value 50 with `percent` set."""

    value: float
    percent: bool


class Verifier:
    """The scorer of responses that carry a checkable reference: `reward` is 1.0 or 0.0.

    A response that cannot be checked gets a note instead of a number: "no reference", "empty" (null
    or blank text), or what is wrong with its reference.
    """

    measures: ClassVar[tuple[str, ...]] = ("reward",)

    def score(self, responses: Sequence[Response]) -> Iterator[Sequence[Score]]:
        """Yield one score per response, in order, all at once; a malformed reference is a note."""
        yield [_score_one(response) for response in responses]


def verify(text: str, reference: Mapping[str, object]) -> float:
    """Return 1.0 where the text's final answer matches the reference, else 0.0.

    Kinds: `exact` (the final answer, the last line or the whole text has the answer's words and
    numbers, whatever the case, spacing and punctuation), `numeric` (optional relative `tolerance`;
    a percent sign on one side only matches both readings: 50% is 50 and 0.5), `choice` (a letter A
    to E; two different letters are wrong), `contains` (the answer, or any of a list of answers,
    occurs as whole words, and none of the optional list `not_contains` does).

    Raises:
        DataError: The reference is malformed or of an unknown kind.
    """
    check = _prepare(reference)
    return 1.0 if check(text) else 0.0


def _score_one(response: Response) -> Score:
    if response.reference is None:
        return Score(response.key, {}, note="no reference")
    if response.text is None or not response.text.strip():
        return Score(response.key, {}, note="empty")
    try:
        return Score(response.key, {"reward": verify(response.text, response.reference)})
    except DataError as error:
        return Score(response.key, {}, note=f"unusable reference: {error}")


def _prepare(reference: Mapping[str, object]) -> Callable[[str], bool]:
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
    builder, options = _KINDS[kind]
    for name in present:
        if name != "answer" and name not in options:
            allowed = ("kind", "answer", *options)
            raise DataError(
                f"A reference of kind '{kind}' has no field {name!r:.80}; its fields are "
                f"{', '.join(allowed)}." + nearest(str(name)[:80], allowed)
            )
    if "answer" not in present:
        raise DataError(f"The reference of kind '{kind}' has no answer: give it one.")
    return builder(present)


def _folded(text: str) -> str:
    """Return the text with letters of either case and numbers alike: 1,000 is 1000."""
    folded = unicodedata.normalize("NFC", text).casefold().replace("\u2212", "-")
    return _GROUPING.sub("", folded)


def _words(text: str) -> list[str]:
    """Return the words and numbers of a text, folded, without punctuation."""
    return _WORD.findall(_folded(text))


def _answer_words(value: object) -> list[str]:
    """Return the words of one answer of a reference, which must have some."""
    words = _words(value) if isinstance(value, str) else []
    if not words:
        raise DataError(f"An answer is a text with letters or digits, not {value!r:.80}.")
    return words


def _exact(reference: Mapping[str, object]) -> Callable[[str], bool]:
    wanted = _answer_words(reference["answer"])
    room = _SLACK * (1 + len(str(reference["answer"])))
    return lambda text: any(
        len(part) <= room and _words(part) == wanted for part in _final_parts(text)
    )


def _final_parts(text: str) -> Iterator[str]:
    """Yield the readings of "the final answer": after the last marker, the last line, all of it."""
    text = text.strip()
    start = _last_marker(text)
    if start is not None:
        line = text[start:].lstrip(" \t\r\n:*").split("\n", 1)[0]
        yield line
        yield line.split(". ", 1)[0]
        yield line.split("}", 1)[0]
    yield text.rsplit("\n", 1)[-1]
    yield text


def _contains(reference: Mapping[str, object]) -> Callable[[str], bool]:
    answers = [_occurrence(one) for one in _one_or_list(reference["answer"])]
    barred = [_occurrence(one) for one in _one_or_list(reference.get("not_contains", []))]
    if not answers:
        raise DataError("The reference of kind 'contains' has an empty list of answers: give one.")

    def check(text: str) -> bool:
        folded = _folded(text)
        found = any(one.search(folded) for one in answers)
        return found and not any(one.search(folded) for one in barred)

    return check


def _occurrence(answer: object) -> re.Pattern[str]:
    """Return the pattern of the answer's words in a row; 5 does not occur in -5 or 5.5."""
    words = _answer_words(answer)
    before = r"(?<![^\W_])" + (r"(?<![0-9]\.)(?<!(?<!\w)-)" if words[0][0].isdigit() else "")
    after = r"(?![^\W_])" + (r"(?!\.[0-9])" if words[-1][-1].isdigit() else "")
    return re.compile(before + r"[\W_]++".join(map(re.escape, words)) + after)


def _one_or_list(value: object) -> list[object]:
    return list(value) if isinstance(value, list | tuple) else [value]


def _numeric(reference: Mapping[str, object]) -> Callable[[str], bool]:
    wanted = _reference_number(reference["answer"])
    tolerance = reference.get("tolerance", DEFAULT_TOLERANCE)
    if not isinstance(tolerance, int | float) or not 0 <= tolerance <= 1:
        raise DataError(f"The tolerance of a reference is {tolerance!r:.80}; give one in 0..1.")
    return lambda text: _close(_final_number(text), wanted, float(tolerance))


def _reference_number(answer: object) -> Number:
    number = None
    if isinstance(answer, str):
        match = _NUMBER.fullmatch(answer.strip())
        number = _number(match) if match else None
    elif isinstance(answer, int | float) and not isinstance(answer, bool):
        number = Number(float(answer) if abs(answer) <= sys.float_info.max else math.nan, False)
    if number is None or not math.isfinite(number.value):
        raise DataError(f"A numeric reference has a finite number as answer, not {answer!r:.80}.")
    return number


def _number(match: re.Match[str]) -> Number:
    """Return the value of a match; out of range is infinite, a zero denominator is NaN."""
    power = (match["exponent"] or match["power"] or "0").replace("\u2212", "-")
    value = float(f"{match['digits'].replace(',', '')}e{power}")
    if match["denominator"] is not None:
        below = float(match["denominator"].replace(",", ""))
        value = value / below if below else math.nan
    negative = "-" in match["sign"] or "\u2212" in match["sign"]
    return Number(-value if negative else value, percent=match["percent"] is not None)


def _final_number(text: str) -> Number | None:
    """Return the number after the last marker, else the last number of the text, else None."""
    start = _last_marker(text)
    if start is not None:
        reach = text[start : start + _REACH]
        if match := _NUMBER.search(reach):
            return _number(_end_of_equation(reach, match))
    end = max(text.rfind(digit) for digit in "0123456789") + 1
    # The window runs past the last digit to take in a percent sign.
    last = deque(_NUMBER.finditer(text, max(0, end - _TAIL), end + 3), maxlen=1)
    return _number(last[0]) if last else None


def _end_of_equation(text: str, first: re.Match[str]) -> re.Match[str]:
    """Return the right-hand side of an equation that starts with `first`, as in 12 + 30 = 42."""
    result, end = first, first.end()
    while (link := _LINK.match(text, end)) and (match := _NUMBER.match(text, link.end())):
        if link[1] == "=":
            result = match
        end = match.end()
    return result


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


def _last_marker(text: str) -> int | None:
    """Return where the text after the last answer marker starts, or None without a marker."""
    last = deque(_MARKER.finditer(text), maxlen=1)
    return last[0].end() if last else None


def _choice(reference: Mapping[str, object]) -> Callable[[str], bool]:
    answer = reference["answer"]
    letter = answer.strip().upper() if isinstance(answer, str) else ""
    if len(letter) != 1 or letter not in CHOICES:
        raise DataError(f"A choice reference has a letter A to E as answer, not {answer!r:.80}.")
    return lambda text: _chosen(text) == {letter}


def _chosen(text: str) -> set[str]:
    """Return the letters the text chooses: after its last marker, else at line starts, else loose.

    More than one letter means that the choice is not clear.
    """
    start = _last_marker(text)
    if start is not None and (match := _MARKED_CHOICE.match(text, start)):
        return {letter.upper() for letter in match.groups("")} - {""}
    tail = text[-_TAIL:]
    for pattern in (_LINE_CHOICE, _LOOSE_CHOICE):
        found = {letter.upper() for match in pattern.finditer(tail) for letter in match.groups("")}
        if found:
            return found - {""}
    return set()


_KINDS: dict[str, tuple[Callable[[Mapping[str, object]], Callable[[str], bool]], tuple[str, ...]]]
_KINDS = {
    "exact": (_exact, ()),
    "numeric": (_numeric, ("tolerance",)),
    "choice": (_choice, ()),
    "contains": (_contains, ("not_contains",)),
}
