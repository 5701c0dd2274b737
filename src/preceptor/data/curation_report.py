"""What to keep of a set of instructions, and what became of every row of it.

Each row ends in exactly one place, dropped for one reason or kept, so that the numbers
of a source add up to what was read of it.
"""

from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from functools import cached_property
from typing import Any

from preceptor.data.instructions import Prompt
from preceptor.errors import StudyError

TOO_SHORT, TOO_LONG = "too short", "too long"
EXACT_DUPLICATE, NEAR_DUPLICATE, NOT_DRAWN = "exact duplicate", "near duplicate", "not drawn"


@dataclass(frozen=True)
class Where:
    """A filter: the first of these columns that a row has must hold one of these values.

    Values are compared as text without regard to case; booleans are "true" and "false". A null is
    dropped; a row without any of the columns is kept, and the report counts it.
    """

    columns: tuple[str, ...]
    values: tuple[str, ...]

    def column_in(self, prompt: Prompt) -> str | None:
        """Return the first of the columns that the row has."""
        return next((column for column in self.columns if column in prompt.fields), None)

    def admits(self, prompt: Prompt) -> bool:
        """Tell whether the row holds one of the values or lacks the columns."""
        column = self.column_in(prompt)
        return column is None or _spelled(prompt.fields[column]) in self._spellings

    @cached_property
    def _spellings(self) -> frozenset[str | None]:
        return frozenset(value.strip().casefold() for value in self.values)

    @property
    def reason(self) -> str:
        """What the report says of the rows it drops."""
        return f"other {self.columns[-1]}"

    @property
    def name(self) -> str:
        """The columns in words."""
        return " or ".join(self.columns)


@dataclass(frozen=True)
class CurationOptions:
    """What to keep and how much of it.

    `count` is of all, `per_source` at most of each source; None is no limit. Characters are those
    of the whole conversation. `near_duplicates` is the Jaccard similarity of word 3-grams, estimated
    from 128 hashes, from which on two instructions are taken for one; 0 keeps them all.
    """

    count: int | None = None
    per_source: int | None = None
    seed: int = 0
    minimum_characters: int = 1
    maximum_characters: int | None = None
    where: tuple[Where, ...] = ()
    near_duplicates: float = 0.7

    def __post_init__(self) -> None:
        """Refuse what cannot be meant.

        Raises:
            StudyError: a number is out of its range.
        """
        for name in ("count", "per_source", "maximum_characters"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise StudyError(f"{name} is {value}: expected 1 or more, or none for no limit.")
        if not 0 <= self.near_duplicates <= 1:
            raise StudyError(f"near_duplicates is {self.near_duplicates}: expected 0 (off) to 1.")
        if not -(2**63) <= self.seed < 2**63:
            raise StudyError(f"The seed is {self.seed}: expected a whole number of 64 bits.")

    def refusal(self, prompt: Prompt) -> str | None:
        """Return why the prompt is left out on its own account, or None where it is not."""
        size = sum(len(message.content) for message in prompt.instruction.messages)
        if size < self.minimum_characters or not prompt.instruction.text.strip():
            return TOO_SHORT
        if self.maximum_characters is not None and size > self.maximum_characters:
            return TOO_LONG
        for where in self.where:
            if not where.admits(prompt):
                return where.reason
        return None


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

    `checked` is how many instructions were compared for near duplicates before enough were drawn.
    """

    options: CurationOptions
    sources: Mapping[str, SourceTally]
    problems: Mapping[str, int]
    checked: int

    @property
    def kept(self) -> int:
        """The number of instructions kept."""
        return sum(tally.kept for tally in self.sources.values())

    @property
    def reasons(self) -> tuple[str, ...]:
        """Why instructions were dropped, in the order of the stages."""
        filters = (where.reason for where in self.options.where)
        order = (TOO_SHORT, TOO_LONG, *filters, EXACT_DUPLICATE, NEAR_DUPLICATE, NOT_DRAWN)
        found = {reason for tally in self.sources.values() for reason in tally.dropped}
        return tuple(reason for reason in dict.fromkeys(order) if reason in found)

    def notes(self) -> list[str]:
        """Return sentences on what a reader of the numbers should know."""
        notes = [
            f"{path}: {count:,} rows had problems and were left out or read in part."
            for path, count in self.problems.items()
        ]
        for name, tally in self.sources.items():
            for column, count in tally.without_column.items():
                notes.append(
                    f"{name}: {count:,} rows have no column {column} and passed its filter."
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
            "options": asdict(self.options),
            "checked_for_near_duplicates": self.checked,
            "sources": {name: vars(tally) for name, tally in self.sources.items()},
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
