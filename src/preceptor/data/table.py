"""The response table: who answered which instruction with which text, as columns without the texts.

Two million responses so cost a few dozen bytes each; texts are read again, a part at a time, only where
something must be computed. What cannot be compared (no output, no reward) is counted per teacher and reason.
"""

from collections import Counter
from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass, field, replace
from hashlib import blake2b
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

from preceptor.engines.reasoning import UNFINISHED
from preceptor.ranking.bootstrap import Array
from preceptor.types import NoteKind

if TYPE_CHECKING:
    from preceptor.data.first_texts import FirstTexts
    from preceptor.data.formats import Problem

Keys = NDArray[np.void]
"""Responses' keys, each 16 bytes."""

Places = slice | NDArray[np.intp]
"""Rows by their numbers."""

NO_OUTPUT, EMPTY_OUTPUT = "no output", "empty output"
NULL_REWARD, NO_NUMBER, NO_REFERENCE = "null reward", "reward is no number", "no reference"
_FAILURES = (
    *(NO_OUTPUT, EMPTY_OUTPUT, UNFINISHED),
    *(NoteKind.REFUSED, NoteKind.FILTERED, NoteKind.ONLY_REASONING),
    *(NoteKind.REFUSAL, NoteKind.TOOL_CALL, NoteKind.EMPTY),
)
"""Why a request has no answer."""
LOST: tuple[str, ...] = (*map(str, _FAILURES), NULL_REWARD, NO_NUMBER, NO_REFERENCE)
"""Why a row cannot be compared. What has no row at all may never have been asked for."""


class Signs(NamedTuple):
    """What tells of which kind the data are, over all responses: traces, tools, characters."""

    responses: int = 0
    traces: int = 0
    tools: int = 0
    characters: int = 0


@dataclass(frozen=True)
class ResponseTable:
    """Responses as columns of equal length, one row for each that can be compared.

    `teacher` and `instruction` index `teachers` and `instructions` (16-byte ids, (instructions,)); `keys`
    are the responses' 16-byte keys; `values` holds the measures that came with the data; `cut_off` says
    which responses their generator cut off. `dropped` counts per teacher and reason what could not be
    compared. `category` (instructions,) indexes `categories`, -1 for none; None where the data have none.
    `checked_keys` hash each key with its row's reference answer, and are the key where a row has none; None
    where no row has one. `answer_keys` are the keys of the responses as their judges read them, without their
    traces; None where no response has any. `odd_endings` counts per teacher the reasons of an end other than
    a stop or a limit. `lost` (rows left out, 3) has the teacher, the instruction and the place in `LOST` of
    each. `signs` are of the data as read, whatever was selected of them.
    """

    teachers: tuple[str, ...]
    instructions: NDArray[np.void]
    teacher: NDArray[np.int32]
    instruction: NDArray[np.int32]
    sample: NDArray[np.int32]
    keys: NDArray[np.void]
    values: Mapping[str, Array]
    cut_off: NDArray[np.bool_]
    dropped: Mapping[str, Mapping[str, int]]
    categories: tuple[str, ...] = ()
    category: NDArray[np.int32] | None = None
    checked_keys: NDArray[np.void] | None = None
    answer_keys: NDArray[np.void] | None = None
    odd_endings: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    lost: NDArray[np.int32] = field(default_factory=lambda: np.zeros((0, 3), np.int32))
    signs: Signs = field(default_factory=Signs)

    @property
    def has_references(self) -> bool:
        """Whether any response has a reference answer to be checked against."""
        return self.checked_keys is not None

    def with_references(self) -> "ResponseTable":
        """Return the rows that have a reference answer; the others are counted as dropped."""
        if self.checked_keys is None:
            kept = np.zeros(len(self.keys), np.bool_)
        else:
            kept = self.checked_keys != self.keys
        if kept.all():
            return self
        lost = np.bincount(self.teacher[~kept], minlength=len(self.teachers)).tolist()
        dropped = {
            teacher: {**self.dropped.get(teacher, {}), **({NO_REFERENCE: count} if count else {})}
            for teacher, count in zip(self.teachers, lost, strict=True)
        }
        return self.without(np.flatnonzero(~kept), NO_REFERENCE, dropped)

    def without(
        self, rows: NDArray[np.intp], reason: str, dropped: Mapping[str, Mapping[str, int]]
    ) -> "ResponseTable":
        """Return the table without these rows, which are lost for this reason, of those in `LOST`."""
        kept = np.ones(len(self.keys), np.bool_)
        kept[rows] = False
        why = np.full(len(rows), LOST.index(reason), np.int32)
        gone = np.stack([self.teacher[rows], self.instruction[rows], why], axis=1)
        return replace(self._rows(kept), dropped=dropped, lost=np.concatenate([self.lost, gone]))

    def with_teachers(self, teachers: Container[str]) -> "ResponseTable":
        """Return the rows of these teachers alone."""
        places = [at for at, name in enumerate(self.teachers) if name in teachers]
        number = np.full(len(self.teachers), -1, np.int32)
        number[places] = np.arange(len(places))
        part = self._rows(number[self.teacher] >= 0)
        names = tuple(self.teachers[at] for at in places)
        dropped = {name: self.dropped.get(name, {}) for name in names}
        lost = self.lost[number[self.lost[:, 0]] >= 0]
        lost[:, 0] = number[lost[:, 0]]
        return replace(
            part, teachers=names, teacher=number[part.teacher], dropped=dropped, lost=lost
        )

    def first(self, limit: int, *, seed: int) -> "ResponseTable":
        """Return the rows of the first instructions in the order the seed draws, whoever has them."""
        order = drawn(self.instructions.tolist(), seed)[:limit]
        if len(order) == len(self.instructions):
            return self
        places = np.sort(order)
        number = np.full(len(self.instructions), -1, np.int32)
        number[places] = np.arange(len(places))
        part = self._rows(number[self.instruction] >= 0)
        lost = self.lost[number[self.lost[:, 1]] >= 0]
        lost[:, 1] = number[lost[:, 1]]
        found = replace(
            part,
            instructions=self.instructions[places],
            instruction=number[part.instruction],
            category=None if self.category is None else self.category[places],
            lost=lost,
        )
        dropped: dict[str, Counter[str]] = {name: Counter() for name in self.teachers}
        for teacher, _, why in lost.tolist():
            dropped[self.teachers[teacher]][LOST[why]] += 1
        seen = found.counts() > 0
        seen[lost[:, 0], lost[:, 1]] = True
        for name, missing in zip(self.teachers, (~seen).sum(axis=1).tolist(), strict=True):
            dropped[name].update({"missing": missing} if missing else {})
        return replace(found, dropped={name: dict(reasons) for name, reasons in dropped.items()})

    def _rows(self, flags: NDArray[np.bool_]) -> "ResponseTable":
        kept = places_of(flags)
        checked, answers = self.checked_keys, self.answer_keys
        return replace(
            self,
            teacher=self.teacher[kept],
            instruction=self.instruction[kept],
            sample=self.sample[kept],
            keys=self.keys[kept],
            values={name: column[kept] for name, column in self.values.items()},
            cut_off=self.cut_off[kept],
            checked_keys=None if checked is None else checked[kept],
            answer_keys=None if answers is None else answers[kept],
        )

    def category_of(self, instructions: NDArray[np.intp]) -> list[str | None]:
        """Return the category of each of these instructions, by their places; None for none."""
        if self.category is None:
            return [None] * len(instructions)
        codes = self.category[instructions].tolist()
        return [self.categories[code] if code >= 0 else None for code in codes]

    @property
    def cut(self) -> dict[str, int]:
        """The responses that their generator cut off, per teacher."""
        counts = np.bincount(self.teacher[self.cut_off], minlength=len(self.teachers))
        return dict(zip(self.teachers, counts.tolist(), strict=True))

    def counts(self) -> NDArray[np.int32]:
        """Return the number of comparable responses, (teachers, instructions)."""
        shape = (len(self.teachers), len(self.instructions))
        place = self.teacher.astype(np.int64) * shape[1] + self.instruction
        counts = np.bincount(place, minlength=shape[0] * shape[1])
        return counts.reshape(shape).astype(np.int32)

    @property
    def common(self) -> int:
        """How many instructions every teacher answered."""
        return int((self.counts() > 0).all(axis=0).sum()) if self.teachers else 0

    def answered_by(self, teachers: Sequence[str], *, seed: int) -> list[int]:
        """Return the instructions that all these teachers answered, in the order the seed draws."""
        numbers = [self.teachers.index(teacher) for teacher in teachers]
        common = np.flatnonzero(self.counts()[numbers].min(axis=0))
        found: list[int] = common[drawn(self.instructions[common].tolist(), seed)].tolist()
        return found

    def lost_counts(self, *, failed: bool) -> NDArray[np.int32]:
        """Return the requests without an answer, or answers without a number, (teachers, instructions)."""
        some = self.lost[is_failure(self.lost) == failed]
        counts = np.zeros((len(self.teachers), len(self.instructions)), np.int32)
        np.add.at(counts, (some[:, 0], some[:, 1]), 1)
        return counts

    def order_within(self) -> NDArray[np.int64]:
        """Return each row's place among the samples of its teacher and instruction."""
        order = np.lexsort((self.sample, self.teacher, self.instruction))
        same = (np.diff(self.teacher[order], prepend=-1) == 0) & (
            np.diff(self.instruction[order], prepend=-1) == 0
        )
        starts = np.flatnonzero(~same)
        lengths = np.diff(starts, append=len(order))
        within = np.empty(len(order), np.int64)
        within[order] = np.arange(len(order)) - np.repeat(starts, lengths)
        return within

    def with_teacher(
        self,
        name: str,
        rows: NDArray[np.intp],
        dropped: Mapping[str, int],
        failed: NDArray[np.int32],
    ) -> "ResponseTable":
        """Return a table in which these rows, one for each instruction at most, also are a teacher's.

        `dropped` counts by reason for which instructions it has no response; `failed` are rows of `lost`.
        """
        number = len(self.teachers)
        taken = np.full(len(rows), number, np.int32)
        return replace(
            self,
            teachers=(*self.teachers, name),
            teacher=np.concatenate([self.teacher, taken]),
            instruction=np.concatenate([self.instruction, self.instruction[rows]]),
            sample=np.concatenate([self.sample, self.sample[rows]]),
            keys=np.concatenate([self.keys, self.keys[rows]]),
            checked_keys=_longer(self.checked_keys, rows),
            answer_keys=_longer(self.answer_keys, rows),
            values={n: np.concatenate([v, v[rows]]) for n, v in self.values.items()},
            cut_off=np.concatenate([self.cut_off, self.cut_off[rows]]),
            dropped={**self.dropped, name: dict(dropped)},
            lost=np.concatenate([self.lost, failed * [0, 1, 1] + [number, 0, 0]]).astype(np.int32),
        )


@dataclass(frozen=True)
class Gathered:
    """The response table, and what could not be read: how many rows of each file, and the first of them.

    `alike` counts the instructions that are there in several Unicode forms (composed and decomposed), which
    are not matched, because models read them as different tokens. `matched` counts the responses that are
    samples of an instruction with other turns, because it is matched by something else than its text.
    `first` are some of the texts, None where the table was found again.
    """

    table: ResponseTable
    skipped: Mapping[str, int]
    problems: "Sequence[Problem]"
    alike: int = 0
    matched: int = 0
    first: "FirstTexts | None" = None


def places_of(flags: NDArray[np.bool_]) -> Places:
    """Return where flags are set, as a slice, which copies nothing, if that is in one piece."""
    places = np.flatnonzero(flags)
    if len(places) and places[-1] - places[0] + 1 == len(places):
        return slice(int(places[0]), int(places[-1]) + 1)
    return places


def _longer(keys: Keys | None, rows: NDArray[np.intp]) -> Keys | None:
    return None if keys is None else np.concatenate([keys, keys[rows]])


def is_failure(lost: NDArray[np.int32]) -> NDArray[np.bool_]:
    """Tell which rows of `ResponseTable.lost` are requests without an answer."""
    return np.asarray(lost[:, 2] < len(_FAILURES))


def drawn(ids: Sequence[bytes], seed: int) -> NDArray[np.intp]:
    """Return the places of instruction ids in the order the seed draws, whatever their own order."""
    salt = seed.to_bytes(8, "little", signed=True)
    order = sorted(range(len(ids)), key=lambda place: blake2b(ids[place], salt=salt).digest())
    return np.array(order, dtype=np.intp)
