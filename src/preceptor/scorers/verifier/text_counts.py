"""What can be counted in a response's form: words, sentences, paragraphs, bullets, headings and marks.

Each is one pass over the text. A pattern is possessive (`++`) and starts only where
nothing of the same kind stands before it, so that no text makes it go back.
"""

import re

_WORD = re.compile(r"\w++")
_SENTENCE_END = re.compile(
    r"(?<![.!?])[.!?]++[\"'\u201d\u2019)\]*_]*+(?=\s|$)|[\u3002\uff01\uff1f]++"
)
_ABBREVIATION = re.compile(r"(?:^|[\s(])(?:[A-Z]|[0-9]{1,3}|Mrs?|Ms|Dr|Prof|St|vs|e\.g|i\.e)$")
_BULLET = re.compile(r"^[ \t]*+[-*+\u2022][ \t]++\S", re.MULTILINE)
_PLACEHOLDER = re.compile(r"\[[^\[\]\n]++\]")
_HIGHLIGHT = re.compile(r"(\*{1,2}+)(?=\S)[^*\n]++\1")
_TITLE = re.compile(r"<<([^<>\n]++)>>")
_SECTION_NUMBER = re.compile(r"\s?[0-9]")
_SPACES = re.compile(r"\s++")


def words(text: str) -> int:
    r"""Count runs of letters, digits and underscores (`\w+`): "don't" is two, as in IFEval."""
    return sum(1 for _ in _WORD.finditer(text))


def capital_words(text: str) -> int:
    """Count words with no small letter and some capital one; "I" and "A" are among them."""
    return sum(match[0].isupper() for match in _WORD.finditer(text))


def first_word(text: str) -> str | None:
    """Return the first word, without case, or None where there is none."""
    match = _WORD.search(text)
    return match[0].casefold() if match else None


def has_whole(text: str, word: str) -> bool:
    """Say whether the word occurs, as it is spelt, with no letter or digit beside it."""
    start = text.find(word)
    while start >= 0:
        around = text[max(0, start - 1) : start] + text[start + len(word) : start + len(word) + 1]
        if not _WORD.search(around):
            return True
        start = text.find(word, start + 1)
    return False


def sentences(text: str) -> int:
    """Count the ends of sentences (. ! ? before a space or the end) and a rest that has no end.

    A full stop after an initial, a list number or one of a few abbreviations ends nothing.
    """
    count = end = 0
    for match in _SENTENCE_END.finditer(text):
        before = text[max(end, match.start() - 6) : match.start()]
        if match[0] == "." and _ABBREVIATION.search(before):
            continue
        count += _WORD.search(text, end, match.start()) is not None
        end = match.end()
    return count + (_WORD.search(text, end) is not None)


def paragraphs(text: str, divider: str | None = None) -> list[str]:
    """Return the paragraphs that are not blank, between blank lines or between dividers."""
    if divider is not None:
        parts = text.split(divider)
    else:
        lines = (line.strip() for line in text.split("\n"))
        # A line that is not blank holds no newline, so blank ones are the only double newlines.
        parts = re.split(r"\n\n++", "\n".join(lines))
    return [part.strip() for part in parts if part.strip()]


def bullets(text: str) -> int:
    """Count lines that start with a bullet (-, *, + or \u2022), a space and something."""
    return sum(1 for _ in _BULLET.finditer(text))


def placeholders(text: str) -> int:
    """Count stretches of one line in square brackets, such as [address]."""
    return sum(1 for _ in _PLACEHOLDER.finditer(text))


def highlights(text: str) -> int:
    """Count stretches of one line between one or two asterisks, such as *this* and **this**."""
    return sum(1 for _ in _HIGHLIGHT.finditer(text))


def sections(text: str, marker: str) -> int:
    """Count occurrences of the marker before a number, such as "Section 1"."""
    return sum(_SECTION_NUMBER.match(part) is not None for part in text.split(marker)[1:])


def has_title(text: str) -> bool:
    """Say whether a line holds a title in double angle brackets, such as <<The Sea>>."""
    return any(match[1].strip() for match in _TITLE.finditer(text))


def has_postscript(text: str, marker: str) -> bool:
    """Say whether a line starts with the marker, whatever its case, spaces and emphasis."""
    wanted = _SPACES.sub("", marker).casefold()
    reach = 2 * len(marker) + 20
    lines = (line.lstrip(" \t\r*_#>")[:reach] for line in text.split("\n"))
    return any(_SPACES.sub("", line).casefold().startswith(wanted) for line in lines)


def is_two_responses(text: str) -> bool:
    """Say whether ****** parts the text into two different responses, neither of them blank."""
    parts = [part.strip() for part in text.strip().removeprefix("******").split("******")]
    if not parts[-1]:
        parts.pop()
    return len(parts) == 2 and all(parts) and parts[0] != parts[1]


def is_quoted(text: str) -> bool:
    """Say whether the whole text stands between double quotation marks."""
    text = text.strip()
    return len(text) > 1 and text[0] == text[-1] == '"'
