"""Warnings of responses: noise, refused requests, texts cut off, samples all alike, rows skipped."""

from collections.abc import Mapping, Sequence

import numpy as np

from preceptor.config.data import Match
from preceptor.config.rewards import Reward
from preceptor.config.teachers import BestOfN
from preceptor.data.formats import Problem
from preceptor.data.selection import Selection
from preceptor.data.table import LOST, ResponseTable
from preceptor.engines.endings import FAILED, FILTERED
from preceptor.engines.reasoning import UNFINISHED
from preceptor.errors import counted
from preceptor.pipeline.generate import GenerationJob
from preceptor.ranking.warnings import MANY_FAILURES
from preceptor.types import NoteKind, Warning

_MANY_COPIES = 0.2
_MANY_CUT = 0.1


def made_up(jobs: Sequence[GenerationJob]) -> list[Warning]:
    """Return a warning of teachers whose texts no model wrote."""
    names = tuple(job.name for job in jobs if job.backend.teacher.engine == "fake")
    if not names:
        return []
    listed = ", ".join(f"'{name}'" for name in names)
    text = f'Looks like noise: no model wrote the texts of {listed} (engine = "fake"), they try a study out.'
    return [Warning("made-up", text, names)]


def unadvised(jobs: Sequence[GenerationJob]) -> list[Warning]:
    """Return a warning for each teacher that is sampled otherwise than its maker advises."""
    return [Warning("sampling", job.advice, (job.name,)) for job in jobs if job.advice]


def never_answered(jobs: Sequence[GenerationJob]) -> list[Warning]:
    """Return a warning for each teacher and kind of refusal, with one example."""
    warnings = []
    for job in jobs:
        kinds: dict[NoteKind, list[tuple[str, int]]] = {}
        for note, count in job.notes().items():
            kinds.setdefault(NoteKind.of(note), []).append((note, count))
        for notes in kinds.values():
            total = sum(count for _, count in notes)
            such = ", such as" if len(notes) > 1 else ""
            text = f"'{job.name}' gave no response to {counted(total, 'request')}{such}: {notes[0][0]}."
            warnings.append(Warning("no-response", text, (job.name,)))
    return warnings


def cut_off(jobs: Sequence[GenerationJob], table: ResponseTable) -> list[Warning]:
    """Return a warning for each teacher many of whose responses were cut off, by `max_tokens` where asked."""
    rows = np.bincount(table.teacher, minlength=len(table.teachers)).tolist()
    limits = {job.name: job.backend.teacher.max_tokens for job in jobs}
    warnings = []
    for name, count in zip(table.teachers, rows, strict=True):
        if table.cut[name] > _MANY_CUT * count:
            at = (
                f" at {limits[name]:,} tokens (max_tokens)"
                if name in limits
                else " by their generator"
            )
            text = f"{table.cut[name]:,} of {count:,} responses of '{name}' were cut off{at}."
            warnings.append(Warning("cut-off", text, (name,)))
    return warnings


def unfinished(jobs: Sequence[GenerationJob], table: ResponseTable) -> list[Warning]:
    """Return a warning for each teacher that was asked and did not end its reasoning."""
    warnings = []
    for job in jobs:
        if count := table.dropped.get(job.name, {}).get(UNFINISHED, 0):
            text = (
                f"Of '{job.name}', {counted(count, 'response', 'is')} a reasoning trace that was "
                "never closed: no "
                "answer came after it. Usually the limit of tokens ended it: raise max_tokens (it is "
                f"{job.backend.teacher.max_tokens:,})."
            )
            warnings.append(Warning("no-response", text, (job.name,)))
    return warnings


def odd_endings(table: ResponseTable) -> list[Warning]:
    """Return a warning for each teacher whose responses a filter or an error ended, or what is not known."""
    rows = dict(zip(table.teachers, table.counts().sum(axis=1).tolist(), strict=True))
    warnings = []
    for name, endings in table.odd_endings.items():
        listed = ", ".join(f"'{word}' ({count:,})" for word, count in endings.items())
        text = (
            f"Of {rows[name]:,} responses of '{name}' some ended for other reasons than a stop or a limit: "
            f"{listed}. They are compared as they stand."
        )
        broken = sum(endings.get(word, 0) for word in (FILTERED, FAILED))
        many = broken > MANY_FAILURES * rows[name]
        warnings.append(Warning("broken-off" if many else "odd-ending", text, (name,)))
    return warnings


def prompts_alike(count: int) -> list[Warning]:
    """Return a warning of prompts that are there in several Unicode forms."""
    if not count:
        return []
    text = (
        f"{counted(count, 'prompt', 'is')} written in more than one Unicode form (composed and decomposed "
        "letters). "
        "They are not matched, because models read them as different tokens: write them alike (NFC)."
    )
    return [Warning("prompts-alike", text)]


def matched_samples(count: int, match: Match) -> list[Warning]:
    """Return a warning of responses that became samples of one instruction though their turns differ."""
    if not count:
        return []
    by = "what the user says" if match == "user-turns" else "an id"
    text = (
        f"{counted(count, 'response', 'follows')} other earlier turns than another response of their "
        "teacher. Each is a further sample of one instruction, because instructions are matched by "
        f"{by} (--match {match}). "
        "Where they are conversations of their own, match by another thing."
    )
    return [Warning("matched-samples", text)]


def copies(table: ResponseTable) -> list[Warning]:
    """Return a warning for each teacher whose samples are often all alike."""
    warnings = []
    for place, teacher in enumerate(table.teachers):
        rows = np.flatnonzero(table.teacher == place)
        several = np.bincount(table.instruction[rows], minlength=len(table.instructions)) > 1
        if not several.any():
            continue
        pairs = zip(table.instruction[rows].tolist(), table.keys[rows].tolist(), strict=True)
        distinct = np.bincount([i for i, _ in set(pairs)], minlength=len(several))
        alike = int((several & (distinct == 1)).sum())
        if alike > _MANY_COPIES * several.sum():
            warnings.append(
                Warning(
                    "copies",
                    f"All samples of '{teacher}' are the same text for {alike} of {int(several.sum())} "
                    "instructions: its temperature is low, or its endpoint ignores seeds.",
                )
            )
    return warnings


def own_reward(best_of_n: BestOfN, reward: Reward | None) -> list[Warning]:
    """Return a warning of a teacher chosen by the reward that also ranks it."""
    if best_of_n.kind in ("random", "routed") or best_of_n.reward not in (None, reward):
        return []
    return [
        Warning(
            "chosen-by-own-reward",
            f"'{best_of_n.name}' was chosen by the reward that ranks it, which overstates how much it "
            "differs from what it was chosen from: choose by another reward "
            "([best_of_n.reward]), as the paper does, or of several teachers with kind = 'routed'.",
            (best_of_n.name,),
        )
    ]


def drawn_from_common(selection: Selection) -> list[Warning]:
    """Return, where a limit drew instructions, which could not be drawn and why."""
    table = selection.table
    never = {
        teacher: {reason: count for reason, count in counts.items() if reason not in LOST}
        for teacher, counts in table.dropped.items()
    }
    reasons = [
        f"'{teacher}' {', '.join(f'{reason} {count}' for reason, count in counts.items())}"
        for teacher, counts in never.items()
        if counts
    ]
    if not reasons:
        return []
    return [
        Warning(
            "drawn-from-common",
            f"The {len(selection.taken)} instructions were drawn from those that every teacher was asked, "
            f"of {len(table.instructions)} in the data. Lacking: {'; '.join(reasons)}.",
        )
    ]


def skipped_rows(skipped: Mapping[str, int], problems: Sequence[Problem]) -> list[Warning]:
    """Return a warning for each file that had rows that could not be read, with the first of them."""
    first = {problem.path: problem for problem in reversed(problems)}
    return [
        Warning(
            "skipped-rows",
            f"{counted(count, 'row')} of {path} could not be read and {'was' if count == 1 else 'were'} "
            f"skipped; the first: {first[path]}.",
        )
        for path, count in skipped.items()
        if count
    ]
