"""Read ready judgements of either benchmark from files, whatever their layout.

The one idea: a layout is recognised by the fields of its rows, never by a file's name. What a file says
of a model is turned into `Preferences` or `PromptBattles` by the readers of each benchmark; this file
opens, recognises, and sees to it that no model is counted twice. Files are untrusted text.
"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import numpy as np

from preceptor.benchmarks.alpaca_eval.files import annotated_preferences, compact_preferences
from preceptor.benchmarks.alpaca_eval.score import Preferences
from preceptor.benchmarks.arena_hard.files import expanded_battles, judged_battles
from preceptor.benchmarks.arena_hard.score import BASELINE, PromptBattles
from preceptor.benchmarks.judgement_rows import read_rows
from preceptor.errors import DataError

_Judged = TypeVar("_Judged", Preferences, PromptBattles)

_ANNOTATIONS = ("instruction", "output_1", "output_2", "generator_2", "preference")
_BATTLES = ("question_id", "model_a", "model_b", "winner")
_JUDGEMENTS = ("question_id", "model", "games")


class Judgements(NamedTuple):
    """What the files say of each model, in the order they were given."""

    alpaca_eval: tuple[Preferences, ...]
    arena_hard: tuple[PromptBattles, ...]


def read_judgements(paths: Sequence[str | Path], *, baseline: str = BASELINE) -> Judgements:
    """Read annotation, preference, battle and judgement files, JSON arrays or one object a line.

    AlpacaEval: annotation rows as `alpaca_eval` writes them, or an object of models with `idx`, `pref`,
    `len_base` and `len_model`. Arena-Hard: judgement rows with `games`, or battles with `winner`. A
    model whose verdicts are in two files is taken once if they are equal.

    Args:
        paths: the files.
        baseline: whom Arena-Hard's models played against.

    Raises:
        DataError: if a file cannot be read or recognised, a row is malformed, or two files differ on
            a model.
    """
    preferences: dict[str, Preferences] = {}
    battles: dict[str, PromptBattles] = {}
    for path in map(Path, paths):
        for judged in _read(path, baseline):
            if isinstance(judged, Preferences):
                _add(preferences, judged, path)
            else:
                _add(battles, judged, path)
    return Judgements(tuple(preferences.values()), tuple(battles.values()))


def _read(path: Path, baseline: str) -> Sequence[Preferences] | Sequence[PromptBattles]:
    rows = read_rows(path)
    if isinstance(rows, Mapping):
        if all(isinstance(row, Mapping) and "pref" in row for row in rows.values()):
            return compact_preferences(rows, str(path))
        rows = [rows]
    fields = rows[0].keys()
    readers: dict[tuple[str, ...], Callable[[], Sequence[Any]]] = {
        _ANNOTATIONS: lambda: annotated_preferences(rows, str(path)),
        _BATTLES: lambda: expanded_battles(rows, str(path), baseline=baseline),
        _JUDGEMENTS: lambda: judged_battles(rows, str(path), baseline=baseline),
    }
    for needed, reader in readers.items():
        if fields >= set(needed):
            return reader()
    kinds = "; ".join(", ".join(needed) for needed in readers)
    raise DataError(
        f"'{path}' holds no judgements known here: its first row has the fields "
        f"{', '.join(list(fields)[:12]) or 'none'}. Expected one of: {kinds}."
    )


def _add(known: dict[str, _Judged], judged: _Judged, path: Path) -> None:
    before = known.setdefault(judged.model, judged)
    if before is not judged and not _equal(before, judged):
        raise DataError(
            f"The verdicts on '{judged.model}' in '{path}' differ from those of an earlier file: "
            "expected each model once. Leave one of the files out."
        )


def _equal(one: object, other: object) -> bool:
    pairs = zip(vars(one).values(), vars(other).values(), strict=True)
    return all(
        np.array_equal(a, b) if isinstance(a, np.ndarray) else bool(a == b) for a, b in pairs
    )
