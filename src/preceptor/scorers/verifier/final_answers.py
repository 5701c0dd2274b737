r"""Where the final answer of a response stands: after a marker, in the last line, in the last number.

A marker ("answer is", "Answer:", "####" or `\boxed{`) is believed before anything else,
and the last one before the others; without one each kind of answer has its own convention. Responses
are untrusted: every pattern takes time linear in the length of the text.
"""

import math
import re
import unicodedata
from collections import deque
from collections.abc import Iterator
from typing import NamedTuple

_MARKER = re.compile(r"\banswer(?:\s{1,3}is|\s?\*{0,2}\s?:)|#{4,}+|\\boxed\s?\{", re.IGNORECASE)

# 1,234,567.5, 1 234 567,5 and 1.234.567,5 are one number, and so is 1,5 (a decimal comma), but not 1,5,9.
# Where three digits follow one sign alone, a comma or space groups and a point does not: 1,234 is 1234.
_SPACE = "[ \u00a0\u2009\u202f]"
_DIGITS = (
    r"(?:[1-9][0-9]{0,2}(?:,[0-9]{3})+(?![0-9])(?:\.[0-9]+)?"
    rf"|[1-9][0-9]{{0,2}}(?:{_SPACE}[0-9]{{3}})+(?![0-9])(?:[.,][0-9]+)?"
    r"|[1-9][0-9]{0,2}(?:(?:\.[0-9]{3})+,[0-9]+|(?:\.[0-9]{3}){2,}(?![0-9]))"
    r"|(?<![0-9],)[0-9]+,[0-9]+(?!,?[0-9])|[0-9]+(?:\.[0-9]+)?|(?<!\.)\.[0-9]+)"
)
_GROUP_SIGN = re.compile(rf"(?<=[0-9])(?:,|{_SPACE})(?=[0-9]{{3}}(?![0-9]))")
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
_MARKERS = 10
"""How many of the last markers are tried, one after another."""
_TAIL = 10_000
"""Where no number stands within reach, how many characters are read: a conclusion stands at the end."""

_MATH_REACH = 1_000
"""How many characters can hold a mathematical answer."""

_FORMULA_REACH = 100
"""How many characters a bare formula has: a longer one takes long to be understood."""
_FORMULA = re.compile(r"[^\W_]")
_PROSE = re.compile(r"(?<![\\A-Za-z])[A-Za-z]{4}")
"""A word of a language, which no formula holds but after a backslash."""

# Possessive (++, *+, ?+), so that no text makes it go back; the minus inside 10-5 is no sign.
_WORD = re.compile(r"(?:-(?<!\w-))?[0-9]++(?:\.[0-9]+)?+(?![^\W_])|[^\W_]++")
_GROUPING = re.compile(r",(?<=[0-9],)(?=[0-9]{3}(?![0-9]))")

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


def folded(text: str) -> str:
    """Return the text with letters of either case and numbers alike: 1,000 is 1000."""
    folded = unicodedata.normalize("NFC", text).casefold().replace("\u2212", "-")
    return _GROUPING.sub("", folded)


def folded_words(text: str) -> list[str]:
    """Return the words and numbers of a text, folded, without punctuation."""
    return _WORD.findall(folded(text))


def last_marker(text: str) -> int | None:
    """Return where the text after the last answer marker starts, or None without a marker."""
    last = deque(_MARKER.finditer(text), maxlen=1)
    return last[0].end() if last else None


def parsed_number(text: str) -> Number | None:
    """Return the number that the whole text is, else None."""
    match = _NUMBER.fullmatch(text.strip())
    return _value_of(match) if match else None


def final_parts(text: str) -> Iterator[str]:
    """Yield the readings of "the final answer": after the last marker, the last line, all of it."""
    text = text.strip()
    start = last_marker(text)
    if start is not None:
        line = text[start:].lstrip(" \t\r\n:*").split("\n", 1)[0]
        yield line
        yield line.split(". ", 1)[0]
        yield line.split("}", 1)[0]
    yield text.rsplit("\n", 1)[-1]
    yield text


def _value_of(match: re.Match[str]) -> Number:
    """Return the value of a match; out of range is infinite, a zero denominator is NaN."""
    power = (match["exponent"] or match["power"] or "0").replace("\u2212", "-")
    value = float(f"{_plain(match['digits'])}e{power}")
    if match["denominator"] is not None:
        below = float(_plain(match["denominator"]))
        value = value / below if below else math.nan
    negative = "-" in match["sign"] or "\u2212" in match["sign"]
    return Number(-value if negative else value, percent=match["percent"] is not None)


def _plain(digits: str) -> str:
    """Return the digits of one number with a point before the decimals and nothing between groups."""
    comma = digits.find(",")
    if digits.count(".") > 1 or 0 <= digits.find(".") < comma:
        digits = digits.replace(".", "")
    elif not digits.startswith("0"):
        digits = _GROUP_SIGN.sub("", digits)
    return digits.replace(",", ".")


def final_number(text: str) -> Number | None:
    """Return the number after the last marker that one follows, without markers the last number of all.

    Where markers stand before words alone, no number is the answer: one of the working is none.
    """
    markers, end = deque(_MARKER.finditer(text), maxlen=_MARKERS), len(text)
    for start in (marker.end() for marker in reversed(markers)):
        reach = text[start : min(start + _REACH, end)]
        if match := _NUMBER.search(reach):
            return _value_of(_end_of_equation(reach, match))
        if end == len(text) and (number := _last_number(text, start)):
            return number
        end = start
    return None if markers else _last_number(text, 0)


def _last_number(text: str, start: int) -> Number | None:
    end = max(text.rfind(digit) for digit in "0123456789") + 1
    # The window runs past the last digit to take in a percent sign.
    last = deque(_NUMBER.finditer(text, max(start, end - _TAIL), end + 3), maxlen=1)
    return _value_of(last[0]) if last else None


def math_passages(text: str) -> list[str]:
    r"""Return the readings of the short passage that holds the mathematical answer.

    It is the last `\boxed{...}`, else the first line after the last marker, else the end of the text.
    A line that holds a bare formula is also read as if it stood between dollar signs.
    """
    text = text.strip()
    boxed = text.rfind("\\boxed")
    start = last_marker(text)
    if boxed >= 0:
        return [balanced(text[boxed : boxed + _MATH_REACH])]
    if start is None:
        passage, line = text[-_MATH_REACH:], text[-_REACH:].rsplit("\n", 1)[-1]
    else:
        line = text[start : start + _MATH_REACH].lstrip(" \t\r\n:*").split("\n", 1)[0]
        passage = f"Answer: {line}"
    if (
        len(line) > _FORMULA_REACH
        or "$" in line
        or not _FORMULA.search(line)
        or _PROSE.search(line)
    ):
        return [passage]
    return [passage, f"${line.strip(' *_.')}$"]


def balanced(text: str) -> str:
    """Return the text up to the brace that closes its first one, or all of it where none does."""
    depth = 0
    for place, letter in enumerate(text):
        depth += (letter == "{") - (letter == "}")
        if letter == "}" and depth <= 0:
            return text[: place + 1]
    return text


def _end_of_equation(text: str, first: re.Match[str]) -> re.Match[str]:
    """Return the right-hand side of an equation that starts with `first`, as in 12 + 30 = 42."""
    result, end = first, first.end()
    while (link := _LINK.match(text, end)) and (match := _NUMBER.match(text, link.end())):
        if link[1] == "=":
            result = match
        end = match.end()
    return result


def chosen_letters(text: str) -> set[str]:
    """Return the letters the text chooses: after its last marker, else at line starts, else loose.

    More than one letter means that the choice is not clear.
    """
    start = last_marker(text)
    if start is not None and (match := _MARKED_CHOICE.match(text, start)):
        return {letter.upper() for letter in match.groups("")} - {""}
    tail = text[-_TAIL:]
    for pattern in (_LINE_CHOICE, _LOOSE_CHOICE):
        found = {letter.upper() for match in pattern.finditer(tail) for letter in match.groups("")}
        if found:
            return found - {""}
    return set()
