"""Choose a set of instructions: filter, drop duplicates, and draw as many as are wanted.

Every instruction has a place in an order drawn from the seed and its own content, so
neither the order of the files nor the wanted number changes who comes before whom: of duplicates
the first in that order stays, and a larger draw contains every smaller one. The data are read
several times and never held: what grows is 36 bytes for each row that passes the filters, and, only
for those checked for near duplicates, half a kilobyte of hash signature and, if they stay, another
3 kB of search index.
"""

import re
from array import array
from collections import Counter
from collections.abc import Iterable, Iterator
from hashlib import blake2b
from itertools import repeat
from typing import Any

import numpy as np
from numpy.typing import NDArray

from preceptor.config.curation import Curation
from preceptor.data.curation_report import (
    EXACT_DUPLICATE,
    NEAR_DUPLICATE,
    NOT_DRAWN,
    CurationReport,
    Overlapping,
    SourceTally,
    column_in,
    refusal,
)
from preceptor.data.instructions import Prompt
from preceptor.data.matching import Asked
from preceptor.data.overlap import OVERLAP, EvaluationQuestions
from preceptor.errors import DataError, StudyError, nearest, require
from preceptor.scorers.first_words import UNSPACED
from preceptor.types import KEY_BYTES

NGRAM_WORDS = 3
"""Words in the n-grams by whose Jaccard similarity near duplicates are found."""

_ALL = Curation()
_SIGNATURE = 128  # hashes; the standard error of the similarity is 0.04 at most
_BANDS = 32  # of 4 hashes: misses 1 pair in 5,000 at a similarity of 0.7
_MANY_SIGNATURES = 1_000_000
_MANY_TEXTS = 250_000
_KEPT_OVERLAPS = 10_000
# Every sign that is no letter is a word by itself.
_WORD = re.compile(rf"[{UNSPACED}]|[^\W{UNSPACED}]+|[^\w\s]")


class Curated:
    """The instructions kept, in the drawn order, and the report; each iteration reads the data anew."""

    def __init__(
        self,
        prompts: Iterable[Prompt],
        survey: "_Survey",
        *,
        kept: NDArray[np.intp],
        report: CurationReport,
    ) -> None:
        self.report = report
        self._prompts, self._survey, self._kept = prompts, survey, kept

    def __len__(self) -> int:
        return len(self._kept)

    def __iter__(self) -> Iterator[Prompt]:
        """Yield what is kept; at most 250,000 texts are held, the data read once for so many.

        Raises:
            DataError: the data are no longer what they were.
        """
        for start in range(0, len(self._kept), _MANY_TEXTS):
            places = self._kept[start : start + _MANY_TEXTS]
            block = dict(self._survey.read_again(self._prompts, places))
            yield from (block.pop(at) for at in range(len(places)))


def curate(prompts: Iterable[Prompt], options: Curation = _ALL) -> Curated:
    """Choose instructions and say what became of the others.

    The stages: length and column filters; overlap with evaluation questions; exact duplicates (of one id
    the row of the source whose name sorts first stays, there the first); near duplicates, compared in the
    drawn order with all that stayed before; the draw. Once enough are drawn nothing more is compared.

    Args:
        prompts: a `PromptSource`, a list, or whatever else gives the same rows each time it is read.
        options: what to keep and how much of it.

    Raises:
        DataError: nothing passes, no row has the column of a filter, or the data change meanwhile.
        StudyError: the prompts can be read only once.
        MissingPackage: near duplicates are to be found without the package of the extra `curate`.
    """
    if iter(prompts) is prompts:
        raise StudyError("The prompts can be read only once: give a PromptSource or a list.")
    if options.near_duplicates:
        _rensa()
    survey = _Survey.of(prompts, options)
    problems = dict(getattr(prompts, "problem_counts", {}))
    _check_columns(survey, options)
    ordered = survey.drawn()
    if not len(ordered):
        raise DataError(_nothing_left(survey))
    kept, checked = _draw(prompts, survey, ordered, options)
    tallies = {name: survey.tallies[name] for name in sorted(survey.tallies)}
    report = CurationReport(options, tallies, problems, checked, tuple(survey.overlapping))
    return Curated(prompts, survey, kept=kept, report=report)


class _Survey:
    """What the first reading leaves of each row that passes the filters, as columns.

    `positions` are the rows' places in the reading, `ids` (rows, 16 bytes), `draws` the hashes of
    seed and id that order them, `sources` index `names`.
    """

    def __init__(self) -> None:
        self.ids, self.draws, self.sources = bytearray(), bytearray(), array("i")
        self.positions = array("q")
        self.names: dict[str, int] = {}
        self.tallies: dict[str, SourceTally] = {}
        self.columns: set[str] = set()
        self.overlapping: list[Overlapping] = []

    @classmethod
    def of(cls, prompts: Iterable[Prompt], options: Curation) -> "_Survey":
        """Read the prompts once."""
        survey, salt = cls(), options.seed.to_bytes(8, "little", signed=True)
        asked = Asked()
        questions = EvaluationQuestions.of(options)
        for position, prompt in enumerate(prompts):
            tally = survey.tallies.setdefault(prompt.source, SourceTally())
            tally.read += 1
            if options.where:
                survey.columns.update(prompt.fields)
            reason = refusal(options, prompt) or survey.overlap(questions, prompt)
            if reason:
                tally.dropped[reason] += 1
                continue
            for where in options.where:
                if column_in(where, prompt) is None:
                    tally.without_column[where.name] += 1
            asked.see(prompt.instruction)
            survey.ids += prompt.instruction.id
            survey.draws += blake2b(prompt.instruction.id, salt=salt, digest_size=8).digest()
            survey.sources.append(survey.names.setdefault(prompt.source, len(survey.names)))
            survey.positions.append(position)
        asked.require_one_each()
        return survey

    def overlap(self, questions: EvaluationQuestions | None, prompt: Prompt) -> str | None:
        """Return that the prompt overlaps with an evaluation question, and keep with which."""
        found = questions and questions.overlap(prompt.instruction)
        if found and len(self.overlapping) < _KEPT_OVERLAPS:
            self.overlapping.append(Overlapping(prompt.instruction.id, prompt.source, found))
        return OVERLAP if found else None

    def drawn(self) -> NDArray[np.intp]:
        """Return the places in the drawn order, without exact duplicates, which are tallied."""
        ids = np.frombuffer(self.ids, ">u8").reshape(-1, 2)
        sources = np.frombuffer(self.sources, np.int32) if len(self.sources) else np.zeros(0, int)
        by_name = np.argsort(np.argsort(list(self.names), kind="stable"))
        names = by_name[sources] if len(self.names) else sources
        draws = np.frombuffer(self.draws, ">u8")
        order = np.lexsort((names, ids[:, 1], ids[:, 0], draws))  # stable: the first read is first
        repeated = np.zeros(len(order), bool)
        repeated[1:] = (ids[order[1:]] == ids[order[:-1]]).all(axis=1)
        self.drop(order[repeated], EXACT_DUPLICATE)
        return order[~repeated]

    def drop(self, places: NDArray[np.intp], reason: str) -> None:
        """Tally rows as dropped."""
        sources = (
            np.frombuffer(self.sources, np.int32)[places] if len(places) else np.zeros(0, np.int32)
        )
        for source, name in enumerate(self.names):
            if count := int(np.count_nonzero(np.equal(sources, source))):
                self.tallies[name].dropped[reason] += count

    def read_again(
        self, prompts: Iterable[Prompt], places: NDArray[np.intp]
    ) -> Iterator[tuple[int, Prompt]]:
        """Yield, in the order of reading, the rows at these places, each with its index in them.

        Raises:
            DataError: the data are no longer what they were.
        """
        positions = np.frombuffer(self.positions, np.int64)[places]
        order = np.argsort(positions)
        wanted = zip(order.tolist(), positions[order].tolist(), places[order].tolist(), strict=True)
        at, following, place = next(wanted)
        for position, prompt in enumerate(prompts):
            if position != following:
                continue
            if prompt.instruction.id != self.ids[place * KEY_BYTES : (place + 1) * KEY_BYTES]:
                break
            yield at, prompt
            at, following, place = next(wanted, (0, -1, 0))
            if following < 0:
                return
        raise DataError("The data changed while they were read. Run again when they are complete.")


def _draw(
    prompts: Iterable[Prompt], survey: _Survey, ordered: NDArray[np.intp], options: Curation
) -> tuple[NDArray[np.intp], int]:
    """Return the places kept, and how many were looked at until there were enough."""
    kept: list[int] = []
    sources = np.frombuffer(survey.sources, np.int32)[ordered].tolist()
    left, room = Counter(sources), dict.fromkeys(sources, options.per_source or len(ordered))
    fresh = _fresh(prompts, survey, ordered, options)
    near: list[int] = []
    looked_at = 0
    for place, source in zip(ordered.tolist(), sources, strict=True):
        if len(kept) == options.count or not any(left[one] and room[one] for one in room):
            break
        looked_at += 1
        left[source] -= 1
        if not next(fresh):
            near.append(place)
        elif room[source]:
            room[source] -= 1
            kept.append(place)
    places = np.array(kept, np.intp)
    survey.drop(np.array(near, np.intp), NEAR_DUPLICATE)
    not_drawn = np.setdiff1d(ordered, np.array([*kept, *near], np.intp), assume_unique=True)
    survey.drop(not_drawn, NOT_DRAWN)
    for tally in survey.tallies.values():
        tally.kept = tally.read - tally.dropped.total()
    return places, looked_at


def _fresh(
    prompts: Iterable[Prompt], survey: _Survey, ordered: NDArray[np.intp], options: Curation
) -> Iterator[bool]:
    """Yield in the drawn order whether a row is near to none before it that was not itself so.

    Signatures are made of as many rows as are wanted and some, then of as many again.
    """
    if not options.near_duplicates:
        yield from repeat(True, len(ordered))
        return
    wanted = options.count or (options.per_source or len(ordered)) * len(survey.names)
    index = _rensa().RMinHashDeduplicator(
        options.near_duplicates, _SIGNATURE, use_lsh=True, num_bands=_BANDS
    )
    start, size = 0, min(wanted + wanted // 4 + 100, _MANY_SIGNATURES)
    while start < len(ordered):
        places = ordered[start : start + size]
        signatures = {at: signature(prompt) for at, prompt in survey.read_again(prompts, places)}
        for at in range(len(places)):
            yield index.add(str(start + at), signatures.pop(at))
        start += size
        size = min(start, _MANY_SIGNATURES)


def signature(prompt: Prompt) -> Any:
    """Return the MinHash signature of a conversation's word 3-grams, by the library rensa.

    Words are compared without regard to case; a sign of punctuation counts as a word, and so does a
    character of a script that is written without spaces. Its `jaccard` estimates the similarity.

    Raises:
        MissingPackage: the package of the extra `curate` is not installed.
    """
    words = [
        word
        for message in prompt.instruction.messages
        for word in _WORD.findall(message.content.casefold())
    ]
    shifted = [words[start:] for start in range(min(NGRAM_WORDS, len(words)))]
    found = _rensa().RMinHash(_SIGNATURE, 42)
    found.update(list(map(" ".join, zip(*shifted, strict=False))))
    return found


def _rensa() -> Any:
    require("rensa", purpose="Finding near duplicates")
    import rensa

    return rensa


def _check_columns(survey: _Survey, options: Curation) -> None:
    for where in options.where:
        if survey.tallies and survey.columns.isdisjoint(where.columns):
            known = ", ".join(sorted(survey.columns)) or "(none)"
            raise DataError(
                f"No row has a column {' or '.join(where.columns)} to filter by. Columns: {known}."
                f"{nearest(where.columns[0], survey.columns)}"
            )


def _nothing_left(survey: _Survey) -> str:
    dropped: Counter[str] = Counter()
    for tally in survey.tallies.values():
        dropped.update(tally.dropped)
    reasons = ", ".join(f"{count:,} {reason}" for reason, count in dropped.items())
    return f"No instruction is left: {reasons or 'there was none to read'}. Ask for less."
