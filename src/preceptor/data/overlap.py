"""Instructions that overlap with evaluation questions: who is trained on them has seen of the test.

The rule is open-r1's, after s1 (arXiv 2501.19393): one shared n-gram of words is enough, 8 words by default.
GPT-3 (arXiv 2005.14165, appendix C) used 13, for web pages, where common phrases meet by chance; instructions
are short, so few are lost with 8, and a missed one flatters every student. The n-grams themselves are the
keys of a hash table, so that nothing is dropped because two hashes collide.
"""

import unicodedata
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Self

from preceptor.config.curation import Exclusion
from preceptor.data.instructions import PromptSource
from preceptor.scorers.first_words import UNSPACED
from preceptor.types import Instruction

OVERLAP = "in evaluation questions"
"""Why an instruction is left out."""

_LONGEST, _SHOWN, _EXAMPLES = 200, 80, 3


@dataclass(frozen=True)
class Overlap:
    """Words that an instruction shares with an evaluation question, and the question; long ones cut."""

    shared: str
    question: str


class EvaluationQuestions:
    """The n-grams of evaluation questions: of every turn of the user; system turns are left alone.

    Texts are compared as words in NFKC form, without regard to case, punctuation and symbols; a character of
    a script that is written without spaces is a word. A first turn shorter than `ngram` words matches as a
    whole only, and there signs of arithmetic count; a later one, such as "Continue.", is no question.
    """

    def __init__(self, questions: Iterable[Instruction], ngram: int) -> None:
        self.ngram = ngram
        self._texts: list[str] = []
        self._found_in: dict[str, int] = {}
        for instruction in questions:
            for place, text in enumerate(_asked(instruction)):
                for shared in self._ngrams(text, first=place == 0):
                    self._found_in.setdefault(shared, len(self._texts))
                self._texts.append(text[:_LONGEST])

    @classmethod
    def of(cls, options: Exclusion) -> Self | None:
        """Return the questions of the files to exclude, or None without files.

        Raises:
            DataError: a file cannot be read, or holds no instructions.
        """
        if not options.exclude:
            return None
        prompts = PromptSource.open(options.exclude)
        return cls((prompt.instruction for prompt in prompts), options.exclude_ngram)

    def __len__(self) -> int:
        return len(self._texts)

    def overlap(self, instruction: Instruction) -> Overlap | None:
        """Return the first overlap of the instruction with a question; None where there is none."""
        for place, text in enumerate(_asked(instruction)):
            if not self._found_in.keys().isdisjoint(self._ngrams(text, first=place == 0)):
                ngrams = self._ngrams(text, first=place == 0)
                shared = next(one for one in ngrams if one in self._found_in)
                return Overlap(shared[:_LONGEST], self._texts[self._found_in[shared]])
        return None

    def _ngrams(self, text: str, *, first: bool) -> Iterator[str]:
        """Return the n-grams of a text; of a shorter one that comes `first` the whole, without spaces."""
        text = unicodedata.normalize("NFKC", text).casefold()
        words = text.translate(_SPACED).split()
        if len(words) < self.ngram and not first:
            return iter(())
        if len(words) < self.ngram:
            return iter(("".join(filter(_bears, text)) or text.strip(),))
        shifted = [words[start:] for start in range(self.ngram)]
        return map(" ".join, zip(*shifted, strict=False))


def _bears(character: str) -> bool:
    """Tell whether a character bears on what a short question asks."""
    return unicodedata.category(character)[0] in "LMNS" or character in "*/-%"


class _Spaced(dict[int, str]):
    """What stands for each character when words are told apart; filled as characters are met."""

    def __missing__(self, code: int) -> str:
        self[code] = found = _spaced(chr(code))
        return found


def _spaced(character: str) -> str:
    kind = unicodedata.category(character)
    if kind == "Cf":  # marks of format, such as the soft hyphen, have no width
        return ""
    if kind[0] in "PSZC":
        return " "
    unspaced = any(first <= character <= last for first, last in _RANGES)
    return f" {character} " if unspaced else character


_RANGES = list(zip(UNSPACED[::3], UNSPACED[2::3], strict=True))
_SPACED = _Spaced()


def _asked(instruction: Instruction) -> Iterator[str]:
    return (message.content for message in instruction.messages if message.role == "user")


def overlap_notes(found: Iterable[Overlap]) -> list[str]:
    """Return sentences with the words shared most often, so that a common phrase is seen to be one."""
    return [
        f'{count:,} share "{one.shared}" with the question "{one.question[:_SHOWN]}".'
        for one, count in Counter(found).most_common(_EXAMPLES)
    ]
