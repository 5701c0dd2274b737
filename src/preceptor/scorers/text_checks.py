"""Signs that a text is no answer: unreadable, repeated, in another script, or about something else.

They put no number on quality and rank nobody. Without rewards an order by length and surprise favours
noise, so these signs stand beside every such order. Each is 0 or 1 for one response; only a teacher's share
says much.
"""

import re
import unicodedata
import zlib
from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from preceptor.scorers.base import Array, Scorer
from preceptor.store.identity import Identity
from preceptor.types import Response, Score

SIGNS = {
    "unreadable": "are no readable words",
    "repeated": "repeat themselves",
    "other_script": "are in another script than their prompt",
    "unrelated": "share hardly a word with their prompt",
}
"""What is looked for, and what to say of responses that have it."""

COUNTS = ("letters", "vowels")
"""Counted beside them, in words: a response too short to tell is told with the teacher's other short ones."""

# Measured on 10 teachers' answers to 250 prompts of Arena-Hard, 8 teachers' to 300 of MATH and 12 models'
# to 805 of AlpacaEval: of no teacher are more than 3% unreadable, 12% repeated, 13% unrelated. Random
# letters, random words, one sentence for all and answers to other prompts have one sign in 77% and more
# (docs/log.md).
_CHARACTERS = 3000
_FEWEST_LETTERS = 60
_FEWEST_POOLED = 200
_LEAST_VOWELS = 0.28
_MOST_ODD = 0.05
_LONGEST_WORD = 40
_REPEATED_BYTES, _REPEATED = 300, 0.15
_SCRIPT_LETTERS, _OF_PROMPTS_SCRIPT = 20, 0.1
_FEWEST_STEMS, _FEWEST_WORDS, _LEAST_SHARED = 3, 8, 0.2

_VOWELS = (
    "aeiouy\u00e6\u00f8\u0153\u0131"  # Latin
    "\u03b1\u03b5\u03b7\u03b9\u03bf\u03c5\u03c9"  # Greek
    "\u0430\u0435\u0438\u043e\u0443\u044b\u044d\u044e\u044f\u0454"  # Cyrillic
)
_ODD = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ud800-\uf8ff\ufffd]")
"""Control characters, halves of surrogate pairs, private use, and the replacement character."""

_WORDS = re.compile(r"[^\W\d_]{2,}")
_ASCII_STEMS = re.compile("([a-z]{4,5})[a-z]*")
_ALPHABETIC = re.compile("[a-z\u00df-\u024f\u03b1-\u03c9\u0430-\u04ff]{4,}")
_SCRIPTS = (
    re.compile("[A-Za-z\u00c0-\u024f\u1e00-\u1eff]"),  # Latin
    re.compile("[\u0370-\u03ff]"),  # Greek
    re.compile("[\u0400-\u052f]"),  # Cyrillic
    re.compile("[\u0590-\u05ff]"),  # Hebrew
    re.compile("[\u0600-\u06ff\u0750-\u077f]"),  # Arabic
    re.compile("[\u0900-\u0dff]"),  # India's
    re.compile("[\u0e00-\u0eff]"),  # Thai, Lao
    re.compile("[\u3040-\u30ff\u3400-\u9fff]"),  # Chinese, Japanese
    re.compile("[\uac00-\ud7af]"),  # Korean
)


class TextChecks(Scorer):
    """Looks for the signs in the first 3,000 characters of each response."""

    name = "text checks"
    measures = tuple(SIGNS)
    columns = (*SIGNS, *COUNTS)
    reads_answer = True

    def identity(self) -> Identity:
        """Return the identity of the rules."""
        return Identity.of({"scorer": "text checks", "rules": 2})

    def score(self, responses: Sequence[Response]) -> Iterator[Sequence[Score]]:
        """Yield the signs and counts, all at once."""
        yield [
            Score(response.key, signs(response.instruction.text, response.text or ""))
            for response in responses
        ]


def unreadable_together(letters: Array, vowels: Array) -> NDArray[np.bool_]:
    """Tell which of a teacher's responses, each too short to tell, are unreadable if all of them are."""
    short = (letters > 0) & (letters < _FEWEST_LETTERS)
    total = letters[short].sum()
    noise = total >= _FEWEST_POOLED and vowels[short].sum() < _LEAST_VOWELS * total
    return short & bool(noise)


def signs(prompt: str, response: str) -> dict[str, float]:
    """Return each sign of a response as 0 or 1, and the counts; a text too short to tell has no sign."""
    prompt, text = prompt[:_CHARACTERS], response[:_CHARACTERS]
    # Taken apart, so that a letter with an accent is the letter.
    words = _ALPHABETIC.findall(unicodedata.normalize("NFD", text.lower()))
    joined = "".join(words)
    vowels = sum(map(joined.count, _VOWELS if not joined.isascii() else _VOWELS[:6]))
    return {
        "letters": len(joined),
        "vowels": vowels,
        "unreadable": float(_unreadable(text, words, vowels)),
        "repeated": float(_repeated(text.encode("utf-8", "surrogatepass"))),
        "other_script": float(_in_another_script(prompt, text)),
        "unrelated": float(_unrelated(prompt, text)),
    }


def _unreadable(text: str, words: Sequence[str], vowels: int) -> bool:
    """Tell whether many characters are no text, or words have too few vowels, or never end."""
    if len(_ODD.findall(text)) > _MOST_ODD * len(text):
        return True
    letters = sum(map(len, words))
    if letters < _FEWEST_LETTERS:
        return False
    endless = sum(len(word) for word in words if len(word) > _LONGEST_WORD)
    return vowels < _LEAST_VOWELS * letters or endless > 0.5 * letters


def _repeated(raw: bytes) -> bool:
    return len(raw) >= _REPEATED_BYTES and len(zlib.compress(raw, 1)) < _REPEATED * len(raw)


def _in_another_script(prompt: str, text: str) -> bool:
    if prompt.isascii() and text.isascii():
        return False
    asked = [len(script.findall(prompt)) for script in _SCRIPTS]
    given = [len(script.findall(text)) for script in _SCRIPTS]
    if min(sum(asked), sum(given)) < _SCRIPT_LETTERS:
        return False
    return given[asked.index(max(asked))] < _OF_PROMPTS_SCRIPT * sum(given)


def _unrelated(prompt: str, text: str) -> bool:
    """Tell whether an answer takes up hardly any of the prompt's longer words."""
    asked = _stems(prompt)
    if len(asked) < _FEWEST_STEMS or max(len(text.split()), len(text) // 20) < _FEWEST_WORDS:
        return False
    return len(asked & _stems(text)) < _LEAST_SHARED * len(asked)


def _stems(text: str) -> set[str]:
    """Return the beginnings of the longer words; of scripts that write no spaces, all pairs of letters."""
    if text.isascii():
        return set(_ASCII_STEMS.findall(text.lower()))
    found: set[str] = set()
    for word in _WORDS.findall(text.casefold()):
        if word[0] >= "\u0e00":
            found.update(word[at : at + 2] for at in range(len(word) - 1))
        elif len(word) >= 4:
            found.add(word[:5])
    return found
