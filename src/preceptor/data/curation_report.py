"""What to keep of a set of instructions, and what became of every row of it.

Each row ends in exactly one place, dropped for one reason or kept, so that the numbers
of a source add up to what was read of it.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Any

from preceptor.config.curation import Curation, Where
from preceptor.data.instructions import Prompt
from preceptor.data.overlap import OVERLAP, Overlap, overlap_notes
from preceptor.errors import counted

TOO_SHORT, TOO_LONG = "too short", "too long"
EXACT_DUPLICATE, NEAR_DUPLICATE, NOT_DRAWN = "exact duplicate", "near duplicate", "not drawn"


def column_in(where: Where, prompt: Prompt) -> str | None:
    """Return the first of the filter's columns that the row has."""
    return next((column for column in where.columns if column in prompt.fields), None)


def refusal(options: Curation, prompt: Prompt) -> str | None:
    """Return why the prompt is left out on its own account, or None where it is not."""
    size = sum(len(message.content) for message in prompt.instruction.messages)
    if size < options.min_characters or not prompt.instruction.text.strip():
        return TOO_SHORT
    if options.max_characters is not None and size > options.max_characters:
        return TOO_LONG
    return next((where.reason for where in options.where if not _admits(where, prompt)), None)


def _admits(where: Where, prompt: Prompt) -> bool:
    column = column_in(where, prompt)
    return column is None or _spelled(prompt.fields[column]) in _spellings(where.values)


@cache
def _spellings(values: tuple[str, ...]) -> frozenset[str]:
    return frozenset(value.strip().casefold() for value in values)


@dataclass(frozen=True)
class Overlapping:
    """An instruction that was left out because it overlaps with an evaluation question."""

    instruction: bytes
    source: str
    overlap: Overlap


@dataclass
class SourceTally:
    """What became of one source's instructions: `read` is the sum of `dropped` and `kept`.

    `without_column` counts, by the name of each filter, the rows that passed it because
    they lack the column.
    """

    read: int = 0
    dropped: Counter[str] = field(default_factory=Counter)
    kept: int = 0
    without_column: Counter[str] = field(default_factory=Counter)


@dataclass(frozen=True)
class CurationReport:
    """What was done: the options, each source's tally, and the problems of each file that has any.

    `checked` is how many instructions were compared for near duplicates before enough were drawn;
    `overlapping` are the first 10,000 that share words with evaluation questions.
    """

    options: Curation
    sources: Mapping[str, SourceTally]
    problems: Mapping[str, int]
    checked: int
    overlapping: Sequence[Overlapping] = ()

    @property
    def kept(self) -> int:
        """The number of instructions kept."""
        return sum(tally.kept for tally in self.sources.values())

    @property
    def reasons(self) -> tuple[str, ...]:
        """Why instructions were dropped, in the order of the stages."""
        filters = (where.reason for where in self.options.where)
        order = (TOO_SHORT, TOO_LONG, *filters, OVERLAP, EXACT_DUPLICATE, NEAR_DUPLICATE, NOT_DRAWN)
        found = {reason for tally in self.sources.values() for reason in tally.dropped}
        return tuple(reason for reason in dict.fromkeys(order) if reason in found)

    def notes(self) -> list[str]:
        """Return sentences on what a reader of the numbers should know."""
        notes = [
            f"{path}: {counted(count, 'row', 'has')} problems, left out or read in part."
            for path, count in self.problems.items()
        ]
        notes += overlap_notes(one.overlap for one in self.overlapping)
        for name, tally in self.sources.items():
            for column, count in tally.without_column.items():
                notes.append(
                    f"{name}: {counted(count, 'row', 'has')} no column {column} and passed its filter."
                )
            if (wanted := self.options.per_source) and tally.kept < wanted and not self._is_full:
                notes.append(f"{name}: only {tally.kept:,} of the {wanted:,} wanted were there.")
        if self.options.count and not self._is_full:
            notes.append(f"Only {self.kept:,} of the {self.options.count:,} wanted were there.")
        if self.options.near_duplicates and any(
            t.dropped[NOT_DRAWN] for t in self.sources.values()
        ):
            notes.append(
                f"{self.checked:,} were checked for near duplicates before enough were drawn."
            )
        return notes

    @property
    def _is_full(self) -> bool:
        return self.kept == self.options.count

    def to_dict(self) -> dict[str, Any]:
        """Return the report in JSON's own types."""
        return {
            "kept": self.kept,
            "options": self.options.model_dump(),
            "checked_for_near_duplicates": self.checked,
            "sources": {name: vars(tally) for name, tally in self.sources.items()},
            "overlaps": [
                {"id": one.instruction.hex(), "source": one.source, **vars(one.overlap)}
                for one in self.overlapping
            ],
            "problems": dict(self.problems),
            "notes": self.notes(),
        }


def _spelled(value: object) -> str | None:
    """Return a value as filters spell it; None for null."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return None if value is None else str(value).strip().casefold()
