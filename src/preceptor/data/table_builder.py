"""The response table while it is built: row by row, or of the parts that several processes read."""

import math
import sys
import unicodedata
from array import array
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Self

import numpy as np
from numpy.typing import NDArray

from preceptor.data.matching import Asked
from preceptor.data.table import (
    EMPTY_OUTPUT,
    LOST,
    NO_NUMBER,
    NO_OUTPUT,
    NULL_REWARD,
    ResponseTable,
    Signs,
)
from preceptor.engines.endings import LENGTH, is_odd
from preceptor.engines.reasoning import UNFINISHED, answered, has_reasoning, is_unfinished
from preceptor.types import KEY_BYTES, Instruction, Message, NoteKind, Response

_MOST_ENDINGS = 10


class TableBuilder:
    """The response table under construction."""

    def __init__(self, reward: str | None) -> None:
        self._reward = reward
        self.teachers: dict[str, int] = {}
        self.instructions: dict[bytes, int] = {}
        self.packed = b""
        self.teacher, self.instruction, self.sample = array("i"), array("i"), array("i")
        self.keys = bytearray()
        # None as long as all are the keys themselves.
        self.checked_keys: bytearray | None = None
        self.answer_keys: bytearray | None = None
        self.has_references = False
        self.asked = Asked()
        self.kinds: dict[int, str] = {}
        self.mixed: dict[int, tuple[str, str]] = {}
        self.odd: dict[str, Counter[str]] = {}
        self.rewards = array("d")
        self.dropped: dict[str, Counter[str]] = {}
        self.lost: list[tuple[int, int, int]] = []
        self.cut_off = array("b")
        self.signs = [0] * len(Signs())
        self.categories: dict[int, str] = {}
        self.composed: dict[bytes, bytes] = {}
        self.first_contents: dict[tuple[int, int], bytes] = {}
        self.matched = 0

    def add(self, response: Response) -> None:
        """Add a row; one without output or reward is counted alone."""
        teacher = self.teachers.setdefault(response.teacher, len(self.teachers))
        identity = response.instruction.id
        known = len(self.instructions)
        instruction = self.instructions.setdefault(identity, known)
        self.asked.see(response.instruction)
        if instruction == known and not all(map(_is_composed, response.instruction.messages)):
            self.composed[identity] = _composed(response.instruction).id
        if response.category is not None:
            self._categorise(instruction, response.category)
        read = answered(response)
        reason = _absent(response, read)
        reward = response.columns.get(self._reward) if self._reward is not None else None
        if response.reference is not None:
            self._check_by(instruction, str(response.reference.get("kind")))
        if reason is None and self._reward is not None and (reward is None or math.isnan(reward)):
            reason = NULL_REWARD if reward is None else NO_NUMBER
        if reason is not None:
            self.dropped.setdefault(response.teacher, Counter())[reason] += 1
            self.lost.append((teacher, instruction, LOST.index(reason)))
            return
        self._note_signs(response)
        if response.instruction.match is not None:
            content = response.instruction.content_id
            first = self.first_contents.setdefault((teacher, instruction), content)
            self.matched += first != content
        self.teacher.append(teacher)
        self.instruction.append(instruction)
        self.sample.append(response.sample)
        key = response.key
        self.checked_keys = _also(self.checked_keys, response.checked_key, key, self.keys)
        self.answer_keys = _also(self.answer_keys, read.key, key, self.keys)
        self.keys += key
        self.has_references |= response.reference is not None
        self.cut_off.append(response.finish_reason == LENGTH)
        if is_odd(response.finish_reason):
            counted = self.odd.setdefault(response.teacher, Counter())
            known = response.finish_reason in counted or len(counted) < _MOST_ENDINGS
            counted[str(response.finish_reason) if known else "others"] += 1
        if reward is not None:
            self.rewards.append(reward)

    def _note_signs(self, response: Response) -> None:
        text = response.text or ""
        signs = self.signs
        signs[0] += 1
        signs[1] += has_reasoning(text)
        signs[2] += bool(response.tool_calls) or response.instruction.calls
        signs[3] += len(text)

    def _categorise(self, instruction: int, category: str) -> None:
        """Note an instruction's category; of several the first by alphabet, in whatever order they come."""
        known = self.categories.setdefault(instruction, category)
        if category < known:
            self.categories[instruction] = category

    def _check_by(self, instruction: int, kind: str) -> None:
        """Note the kind by which an instruction's answers are checked; a second one is remembered."""
        known = self.kinds.setdefault(instruction, sys.intern(kind))
        if known != kind:
            self.mixed.setdefault(instruction, (known, kind))

    def extend(self, other: "TableBuilder") -> None:
        """Add the rows of another part behind these."""
        teachers = [self.teachers.setdefault(t, len(self.teachers)) for t in other.teachers]
        ids = self.instructions
        instructions = [ids.setdefault(identity, len(ids)) for identity in other.identities()]
        other.instructions.clear()
        self.teacher.frombytes(_renumbered(other.teacher, teachers))
        self.instruction.frombytes(_renumbered(other.instruction, instructions))
        self.sample += other.sample
        for name in ("checked_keys", "answer_keys"):
            mine, theirs = getattr(self, name), getattr(other, name)
            if mine is not None or theirs is not None:
                mine = bytearray(self.keys) if mine is None else mine
                mine += other.keys if theirs is None else theirs
                setattr(self, name, mine)
        self.keys += other.keys
        self.asked.add(other.asked)
        self.matched += other.matched
        self.has_references |= other.has_references
        self.rewards += other.rewards
        for place, kind in other.kinds.items():
            self._check_by(instructions[place], kind)
        for place, pair in other.mixed.items():
            self.mixed.setdefault(instructions[place], pair)
        for name, endings in other.odd.items():
            self.odd.setdefault(name, Counter()).update(endings)
        for name, reasons in other.dropped.items():
            self.dropped.setdefault(name, Counter()).update(reasons)
        self.lost += [(teachers[one], instructions[two], why) for one, two, why in other.lost]
        self.cut_off += other.cut_off
        self.signs = [sum(pair) for pair in zip(self.signs, other.signs, strict=True)]
        self.composed |= other.composed
        for place, category in other.categories.items():
            self._categorise(instructions[place], category)

    def __getstate__(self) -> dict[str, object]:
        # One text instead of millions of objects, which would take ten times the memory.
        return {**self.__dict__, "instructions": {}, "packed": b"".join(self.identities())}

    def identities(self) -> Iterator[bytes]:
        """Yield the ids of the instructions in the order of their places."""
        yield from self.instructions
        for start in range(0, len(self.packed), KEY_BYTES):
            yield self.packed[start : start + KEY_BYTES]

    def unpacked(self) -> Self:
        """Return it with its instructions as they are added to."""
        self.instructions = {identity: place for place, identity in enumerate(self.identities())}
        self.packed = b""
        return self

    def alike(self) -> int:
        """Return how many instructions are there in more than one Unicode form."""
        forms = Counter(self.composed.values())
        return sum(count + (one in self.instructions) > 1 for one, count in forms.items())

    def pairs(self) -> Iterator[tuple[int, int]]:
        """Yield teacher and instruction of every row, also of those that cannot be compared."""
        yield from zip(self.teacher, self.instruction, strict=True)
        yield from ((teacher, instruction) for teacher, instruction, _ in self.lost)

    def _missing(self) -> None:
        """Count the instructions for which a teacher has no row at all."""
        seen = np.zeros((len(self.teachers), len(self.instructions)), np.bool_)
        seen[np.frombuffer(self.teacher, np.int32), np.frombuffer(self.instruction, np.int32)] = (
            True
        )
        for teacher, instruction, _ in self.lost:
            seen[teacher, instruction] = True
        for name, missing in zip(self.teachers, (~seen).sum(axis=1).tolist(), strict=True):
            if missing:
                self.dropped.setdefault(name, Counter())["missing"] += missing

    def _lost(self, place: NDArray[np.int32]) -> NDArray[np.int32]:
        lost = np.array(self.lost, np.int32).reshape(-1, 3)
        lost[:, 1] = place[lost[:, 1]]
        return lost

    def table(self) -> ResponseTable:
        """Return the response table; instructions go by their ids, so that the order of files is nothing."""
        self._missing()
        kind = np.dtype((np.void, KEY_BYTES))
        ids = sorted(self.instructions)
        place = np.empty(len(ids), np.int32)
        place[[self.instructions[identity] for identity in ids]] = np.arange(len(ids))
        names = sorted(set(self.categories.values()))
        code = {name: number for number, name in enumerate(names)}
        category = np.full(len(ids), -1, np.int32)
        for instruction, name in self.categories.items():
            category[place[instruction]] = code[name]
        return ResponseTable(
            teachers=tuple(self.teachers),
            instructions=np.frombuffer(b"".join(ids), dtype=kind),
            teacher=np.frombuffer(self.teacher, dtype=np.int32),
            instruction=place[np.frombuffer(self.instruction, dtype=np.int32)],
            sample=np.frombuffer(self.sample, dtype=np.int32),
            keys=np.frombuffer(self.keys, dtype=kind),
            checked_keys=np.frombuffer(self.checked_keys or self.keys, kind)
            if self.has_references
            else None,
            answer_keys=None if self.answer_keys is None else np.frombuffer(self.answer_keys, kind),
            values={"reward": np.frombuffer(self.rewards)} if self._reward is not None else {},
            cut_off=np.frombuffer(self.cut_off, dtype=np.bool_),
            dropped={name: dict(self.dropped.get(name, {})) for name in self.teachers},
            categories=tuple(names),
            category=category,
            odd_endings={name: dict(endings) for name, endings in self.odd.items()},
            lost=self._lost(place),
            signs=Signs(*self.signs),
        )


def _also(other: bytearray | None, one: bytes, key: bytes, before: bytearray) -> bytearray | None:
    """Return other keys of rows with that of one more, None as long as all are the rows' own, `before` it."""
    if other is None:
        return None if one == key else before + one
    other += one
    return other


def _renumbered(places: "array[int]", numbers: Sequence[int]) -> bytes:
    return np.array(numbers, np.int32)[np.frombuffer(places, np.int32)].tobytes()


def _is_composed(message: Message) -> bool:
    return unicodedata.is_normalized("NFC", message.content)


def _composed(instruction: Instruction) -> Instruction:
    """Return the instruction in Unicode's composed form."""
    turns = (
        one._replace(content=unicodedata.normalize("NFC", one.content))
        for one in instruction.messages
    )
    return replace(instruction, messages=tuple(turns))


def _absent(response: Response, read: Response) -> str | None:
    """Return why a response has no answer, None where it has; `read` is what remains without its trace."""
    if response.text is None:
        return response.missing if response.missing in LOST else NO_OUTPUT
    if (read.text or "").strip():
        return None
    if not response.text.strip():
        return EMPTY_OUTPUT
    return UNFINISHED if is_unfinished(response.text) else NoteKind.ONLY_REASONING
