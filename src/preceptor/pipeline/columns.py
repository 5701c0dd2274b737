"""Put stored columns together as measures of teachers on instructions.

Rows of the store are responses; a ranking compares teachers on instructions. Between them lie
the study's reading of the loss, the mean over samples, and the account of what has no score and why.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from preceptor.config.study import Study
from preceptor.data.selection import Selection
from preceptor.errors import StudyError, counted
from preceptor.pipeline.plan import REFERENCE
from preceptor.ranking.later_metrics import grace, lark_score
from preceptor.ranking.measurements import Measurements
from preceptor.ranking.metrics import within_instruction
from preceptor.scorers.base import Array, Scorer
from preceptor.scorers.likelihood import instruction_following_difficulty
from preceptor.store.lookup import are_there
from preceptor.store.mapped import mapped_numbers
from preceptor.types import NoteKind, Warning

if TYPE_CHECKING:
    from preceptor.pipeline.score import Stored

_REASONS = 3


class ColumnMeasures:
    """Puts stored columns together as measures, (teachers, instructions)."""

    def __init__(self, selection: Selection, study: Study, kinds: Sequence[str]) -> None:
        self.selection = selection
        self.kinds = kinds
        self.reading = study.reading
        self.mixtures = frozenset(one.name for one in study.best_of_n if one.is_mixture)
        self.dropped: dict[str, dict[str, int]] = {}
        self.truncated: dict[str, int] = {}
        self.cut: Counter[str] = Counter()
        self.left_out = 0
        self.cautions: list[Warning] = []

    def measurements(self, scorers: Sequence[Scorer], stored: Iterable[Stored]) -> Measurements:
        """Return the measures of these scorers and of the data, from what is stored of each, in turn."""
        arrays = _Arrays(len(self.selection.table.teachers))
        for places, selection in self.selection.groups():
            if selection is self.selection:
                arrays.add(self._arrays(selection, scorers, stored))
                continue
            stored = list(stored)  # what is large lies in files, so all of it can be there at once
            some = [{name: one[places] for name, one in columns.items()} for columns in stored]
            arrays.add(self._arrays(selection, scorers, some))
        values, across = arrays.of("values"), arrays.of("across")
        if "persyn" in self.kinds and "loss" in across:
            values["likelihood_share"] = within_instruction(-across["loss"])
            values["reward_share"] = within_instruction(values["reward"])
        if "brier_50" in across and "loss" in across:
            values["lark_score"] = lark_score(across["loss"], across["brier_50"])
        shares = arrays.of("shares")
        return Measurements(
            teachers=self.selection.table.teachers,
            instructions=self.selection.asked,
            values=values | arrays.of("last"),
            denominators=arrays.of("denominators"),
            dropped=self.dropped,
            truncated=self.truncated,
            failed=shares.get("failed"),
            unscored=shares.get("unscored"),
            categories=self.selection.categories,
            mixtures=self.mixtures,
            empty=mapped_numbers if arrays.in_files else None,
        )

    def _arrays(
        self, selection: Selection, scorers: Sequence[Scorer], stored: Iterable[Stored]
    ) -> dict[tuple[str, str], Array]:
        """Return what is formed of a selection, by its use and name, each (its teachers, instructions).

        `across` is what measures that compare teachers on an instruction are made of.
        """
        given, notes, truncated = selection.table.values, dict[int, str](), dict[str, int]()
        rows = {name: column[selection.rows] for name, column in given.items()}
        for scorer, columns in zip(scorers, stored, strict=True):
            _note(scorer, columns, notes)
            self._count_cut(selection, scorer, columns, truncated)
            self.cautions += [one for one in scorer.cautions if one not in self.cautions]
            rows |= scorer.derive({name: columns[name] for name in scorer.columns})
            del columns
        _require_scores(selection, notes)
        self.dropped |= selection.reasons(notes)
        self.truncated |= truncated
        plain_loss = rows.get("loss")
        if plain_loss is not None and not self.reading.is_plain:
            rows["plain_loss"] = plain_loss
        brier, gradients = rows.pop("brier_50", None), rows.pop("gradient", None)
        rows, denominators = self._formed(rows)
        # Each column goes once it is averaged: all of both would be twice the memory.
        found = {("values", name): selection.averaged(rows.pop(name)) for name in list(rows)}
        found |= {("denominators", n): selection.averaged(one) for n, one in denominators.items()}
        if brier is not None:
            found["across", "brier_50"] = selection.averaged(brier)
        if plain_loss is not None and (brier is not None or "persyn" in self.kinds):
            found["across", "loss"] = selection.averaged(plain_loss)
        if gradients is not None:
            found["last", "grace"] = _grace(selection, gradients)
        if len(self.selection.table.lost):
            found["shares", "failed"] = selection.lost(failed=True)
            found["shares", "unscored"] = selection.lost(failed=False)
        return found

    def _count_cut(
        self, selection: Selection, scorer: Scorer, columns: Stored, truncated: dict[str, int]
    ) -> None:
        """Count the responses that were cut, and what the student's template left out."""
        if scorer.of_student and "left_out" in columns:
            self.left_out += int(np.nan_to_num(columns["left_out"]).sum())
        if "truncated" not in columns:
            return
        weights = np.nan_to_num(columns["truncated"])
        if not scorer.of_student:
            self.cut[scorer.name] += int(weights.sum())
        elif not truncated:
            table = selection.table
            counts = np.bincount(
                table.teacher[selection.rows], weights=weights, minlength=len(table.teachers)
            )
            truncated |= zip(table.teachers, counts.astype(int).tolist(), strict=True)

    def warnings(self) -> list[Warning]:
        """Return what scorers tell, what a template left out, and who but the student cut responses."""
        left_out = Warning(
            "left-out-turns",
            f"The student's chat template leaves out {self.left_out:,} parts of earlier turns (reasoning, "
            "calls or texts), which so are not counted.",
        )
        return [*self.cautions, *([left_out] if self.left_out else [])] + [
            Warning(
                "truncated",
                f"For {name}, {counted(count, 'response', 'was')} longer than its maximum length "
                "and cut at the end.",
            )
            for name, count in self.cut.items()
            if count
        ]

    def _formed(self, rows: dict[str, Array]) -> tuple[dict[str, Array], dict[str, Array]]:
        """Return the rows' measures under the study's reading of the loss, and denominators."""
        _form_difficulty(rows, REFERENCE)
        if "nll" in rows:
            rows["information"] = rows["nll"]
        unconditional, sums = _form_difficulty(rows, "")
        if unconditional is not None:
            unread = self.reading.conditioning != "unconditional"
            rows["loss_unconditional" if unread else "loss"] = unconditional
        total = sums[self.reading.conditioning]
        if total is None or self.reading.reduction == "token-mean":
            return rows, {}
        tokens = total / rows["loss"]
        rows["loss"] = total
        return rows, {"loss": tokens} if self.reading.reduction == "corpus-token-mean" else {}


class _Arrays:
    """Arrays of all teachers, put together of those of some: where these are several, in files."""

    def __init__(self, teachers: int) -> None:
        self._teachers = teachers
        self._filled = 0
        self._arrays: dict[tuple[str, str], Array] = {}

    def add(self, part: dict[tuple[str, str], Array]) -> None:
        """Take the arrays of the next teachers."""
        number = len(next(iter(part.values()), ()))
        if number == self._teachers:
            self._arrays = part
            return
        rows = slice(self._filled, self._filled + number)
        self._filled += number
        for name in list(part):
            array = part.pop(name)
            if name not in self._arrays:
                self._arrays[name] = mapped_numbers((self._teachers, array.shape[1]))
            self._arrays[name][rows] = array

    @property
    def in_files(self) -> bool:
        """Whether they were put together in files."""
        return self._filled > 0

    def of(self, use: str) -> dict[str, Array]:
        """Return the arrays of a use, by name."""
        return {name: array for (of, name), array in self._arrays.items() if of == use}


def _grace(selection: Selection, gradients: NDArray[Any]) -> Array:
    """Return what each instruction adds to each teacher's GRACE, (teachers, instructions)."""
    table, rows = selection.table, selection.rows
    found = np.full((len(table.teachers), len(selection.taken)), np.nan)
    places = np.searchsorted(selection.taken, table.instruction[rows])
    there = np.array([one is not None for one in gradients])
    for teacher in range(len(found)):
        of = np.flatnonzero(there & (table.teacher[rows] == teacher))
        if len(of):
            scores = grace(np.stack(gradients[of].tolist()).astype(np.float64), places[of])
            found[teacher, : len(scores)] = scores
    return found


def _note(scorer: Scorer, columns: Stored, notes: dict[int, str]) -> None:
    """Take down, by its place, why a row has no score, unless another scorer said so before."""
    noted = are_there(columns["note"])
    for place in np.flatnonzero(noted).tolist():
        notes.setdefault(place, str(columns["note"][place]))
    lacking = np.logical_or.reduce([np.isnan(columns[name]) for name in scorer.required])
    for place in np.flatnonzero(lacking & ~noted).tolist():
        notes.setdefault(place, NoteKind.NOT_SCORED.note(f"({scorer.name})"))


def _require_scores(selection: Selection, notes: Mapping[int, str]) -> None:
    """Refuse a teacher of whom no response has a score, and say why it has none."""
    teacher, teachers = selection.table.teacher[selection.rows], selection.table.teachers
    noted = np.bincount(teacher[list(notes)], minlength=len(teachers))
    bare = np.flatnonzero(noted == np.bincount(teacher, minlength=len(noted))).tolist()
    if not bare:
        return
    names = ", ".join(f"'{teachers[place]}'" for place in bare)
    of_bare = [note for row, note in notes.items() if teacher[row] in bare]
    reasons = ", ".join(f"{why} ({n:,})" for why, n in Counter(of_bare).most_common(_REASONS))
    raise StudyError(
        f"Not one response of {names} has a score: {reasons}. {_advice(of_bare)}Else leave the teacher "
        "out."
    )


_ADVICE = {
    NoteKind.NON_FINITE: "Non-finite numbers come of damaged weights or of half precision: fetch the model "
    "again or try --dtype float32. ",
    NoteKind.NO_ROOM: "Where a prompt leaves no room, give a larger --max-length. ",
    NoteKind.NO_SCORE: "A judge that thinks aloud needs more max_tokens (in a study file), one that "
    "does not follow the rubric is too weak. ",
    NoteKind.NOT_SCORED: "What could not be scored for lack of memory or of an answer is asked again: run "
    "again. ",
}
"""What to do, by the kind of the notes."""


def _advice(notes: Sequence[str]) -> str:
    kinds = {NoteKind.of(note) for note in notes}
    return "".join(advice for kind, advice in _ADVICE.items() if kind in kinds)


def _form_difficulty(
    rows: dict[str, Array], suffix: str
) -> tuple[Array | None, dict[str, Array | None]]:
    """Form IFD where both passes are there; take out and return what is only a means to an end.

    That is the unconditional loss, and the sums over tokens of both passes.
    """
    conditional = rows.get(f"loss{suffix}")
    unconditional = rows.pop(f"loss_unconditional{suffix}", None)
    sums = {
        "conditional": rows.pop(f"nll{suffix}", None),
        "unconditional": rows.pop(f"nll_unconditional{suffix}", None),
    }
    if conditional is not None and unconditional is not None:
        rows[f"ifd{suffix}"] = instruction_following_difficulty(conditional, unconditional)
    return unconditional, sums
