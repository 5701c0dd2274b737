"""Put stored columns together as measures of teachers on instructions.

Rows of the store are responses; a ranking compares teachers on instructions. Between them lie
the study's reading of the loss, the mean over samples, and the account of what has no score and why.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from preceptor.config.study import Study
from preceptor.data.table import Selection
from preceptor.errors import StudyError, counted
from preceptor.pipeline.plan import REFERENCE
from preceptor.ranking.later_metrics import grace, lark_score
from preceptor.ranking.measurements import Measurements
from preceptor.ranking.metrics import within_instruction
from preceptor.scorers.base import Array, Scorer
from preceptor.scorers.likelihood import instruction_following_difficulty
from preceptor.types import NoteKind, Warning

_REASONS = 3


class ColumnMeasures:
    """Puts stored columns together as measures, (teachers, instructions)."""

    def __init__(self, selection: Selection, study: Study, kinds: Sequence[str]) -> None:
        self.selection = selection
        self.kinds = kinds
        self.reading = study.reading
        self.mixtures = frozenset(one.name for one in study.best_of_n if one.is_mixture)
        self.notes: dict[int, str] = {}
        self.truncated: dict[str, int] = {}
        self.cut: dict[str, int] = {}
        self.left_out = 0
        self.cautions: list[Warning] = []

    def measurements(
        self, scorers: Sequence[Scorer], stored: Iterable[Mapping[str, NDArray[Any]]]
    ) -> Measurements:
        """Return the measures of these scorers and of the data, from what is stored of each, in turn."""
        given = self.selection.table.values
        rows = {name: column[self.selection.rows] for name, column in given.items()}
        for scorer, columns in zip(scorers, stored, strict=True):
            self._note(scorer, columns)
            self.cautions += [one for one in scorer.cautions if one not in self.cautions]
            rows |= scorer.derive({name: columns[name] for name in scorer.columns})
            del columns
        self._require_scores()
        dropped = self.selection.reasons(self.notes)
        plain_loss = rows.get("loss")
        if plain_loss is not None and not self.reading.is_plain:
            rows["plain_loss"] = plain_loss
        brier, gradients = rows.pop("brier_50", None), rows.pop("gradient", None)
        rows, denominators = self._formed(rows)
        # Each column goes once it is averaged: all of both would be twice the memory.
        values = {name: self.selection.averaged(rows.pop(name)) for name in list(rows)}
        if "persyn" in self.kinds and plain_loss is not None:
            values["likelihood_share"] = within_instruction(-self.selection.averaged(plain_loss))
            values["reward_share"] = within_instruction(values["reward"])
        if brier is not None and plain_loss is not None:
            averages = (self.selection.averaged(one) for one in (plain_loss, brier))
            values["lark_score"] = lark_score(*averages)
        if gradients is not None:
            values["grace"] = self._grace(gradients)
        some = len(self.selection.table.lost) > 0
        return Measurements(
            teachers=self.selection.table.teachers,
            instructions=self.selection.asked,
            values=values,
            denominators={n: self.selection.averaged(column) for n, column in denominators.items()},
            dropped=dropped,
            truncated=self.truncated,
            failed=self.selection.lost(failed=True) if some else None,
            unscored=self.selection.lost(failed=False) if some else None,
            categories=self.selection.categories,
            mixtures=self.mixtures,
        )

    def _grace(self, gradients: NDArray[Any]) -> Array:
        """Return what each instruction adds to each teacher's GRACE, (teachers, instructions)."""
        table, rows = self.selection.table, self.selection.rows
        found = np.full((len(table.teachers), len(self.selection.taken)), np.nan)
        places = np.searchsorted(self.selection.taken, table.instruction[rows])
        there = np.array([one is not None for one in gradients])
        for teacher in range(len(found)):
            of = np.flatnonzero(there & (table.teacher[rows] == teacher))
            if len(of):
                scores = grace(np.stack(gradients[of].tolist()).astype(np.float64), places[of])
                found[teacher, : len(scores)] = scores
        return found

    def _require_scores(self) -> None:
        """Refuse a teacher of whom no response has a score, and say why it has none."""
        teacher = self.selection.table.teacher[self.selection.rows]
        noted = np.bincount(teacher[list(self.notes)], minlength=len(self.selection.table.teachers))
        bare = np.flatnonzero(noted == np.bincount(teacher, minlength=len(noted))).tolist()
        if not bare:
            return
        names = ", ".join(f"'{self.selection.table.teachers[place]}'" for place in bare)
        of_bare = [note for row, note in self.notes.items() if teacher[row] in bare]
        reasons = ", ".join(f"{why} ({n:,})" for why, n in Counter(of_bare).most_common(_REASONS))
        raise StudyError(
            f"Not one response of {names} has a score: {reasons}. {_advice(of_bare)}Else leave the teacher "
            "out."
        )

    def _note(self, scorer: Scorer, columns: Mapping[str, NDArray[Any]]) -> None:
        """Take down why rows have no score, and how many were cut."""
        noted = columns["note"] != None  # noqa: E711  (elementwise)
        for place in np.flatnonzero(noted).tolist():
            self.notes.setdefault(place, str(columns["note"][place]))
        lacking = np.logical_or.reduce([np.isnan(columns[name]) for name in scorer.required])
        for place in np.flatnonzero(lacking & ~noted).tolist():
            self.notes.setdefault(place, NoteKind.NOT_SCORED.note(f"({scorer.name})"))
        if scorer.of_student and "left_out" in columns:
            self.left_out = int(np.nan_to_num(columns["left_out"]).sum())
        if "truncated" not in columns:
            return
        weights = np.nan_to_num(columns["truncated"])
        if not scorer.of_student:
            self.cut[scorer.name] = int(weights.sum())
        elif not self.truncated:
            table = self.selection.table
            counts = np.bincount(
                table.teacher[self.selection.rows], weights=weights, minlength=len(table.teachers)
            )
            self.truncated = dict(zip(table.teachers, counts.astype(int).tolist(), strict=True))

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
