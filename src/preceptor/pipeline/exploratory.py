"""What stands beside an order without rewards: teachers that look like noise, and the way to a reward."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

import numpy as np

from preceptor.config.reward_models import PRESETS
from preceptor.config.runtime import Runtime
from preceptor.config.study import Study
from preceptor.data.selection import Selection
from preceptor.pipeline.score import carry_out, step_of
from preceptor.pipeline.work import Executor, Progress
from preceptor.scorers.base import Array
from preceptor.scorers.text_checks import SIGNS, TextChecks, unreadable_together
from preceptor.types import Warning

if TYPE_CHECKING:
    from preceptor.pipeline.load import LoadedData
    from preceptor.pipeline.sources import StudySource


INSTRUCTIONS = 200
"""Instructions whose responses are looked at: enough for a share, and done in a second."""

_MANY = 0.4
"""Real teachers stay below 0.2, noise is above 0.6 (`scorers.text_checks`)."""


def noise_in(
    data: LoadedData, runtime: Runtime, progress: Progress, execute: Executor
) -> list[Warning]:
    """Return a warning for each teacher that looks like noise; what was seen is stored."""
    some = data.selection.sample(INSTRUCTIONS)
    step = step_of(TextChecks(), runtime, data.source.texts_of(some), some)
    return looks_like_noise(some, carry_out(step, progress, execute))


def looks_like_noise(selection: Selection, signs: Mapping[str, Array]) -> list[Warning]:
    """Return a warning for each teacher of whose responses many look like noise.

    `signs` are the columns of `TextChecks` for the rows of the selection.
    """
    teacher = selection.table.teacher[selection.rows]
    warnings = []
    for place, name in enumerate(selection.table.teachers):
        own = {column: values[teacher == place] for column, values in signs.items()}
        short = unreadable_together(own["letters"], own["vowels"])
        own["unreadable"] = np.maximum(own["unreadable"], short)
        shares = {sign: float(own[sign].mean()) for sign in SIGNS}
        seen = [f"{share:.0%} {SIGNS[sign]}" for sign, share in shares.items() if share > _MANY]
        if seen:
            text = f"'{name}' looks like noise: of its responses {', '.join(seen)}."
            warnings.append(Warning("looks-like-noise", text, (name,)))
    return warnings


def cheapest_reward(study: Study, source: StudySource) -> Warning:
    """Return the cheapest way to a reward, to be copied: a column of the data, or a small model."""
    smallest = min(PRESETS, key=lambda name: PRESETS[name].billions)
    column = next((name for file in source.files for name in file.rewards), None)
    what = "a column of the data" if column else f"{PRESETS[smallest].billions:g}B parameters"
    kind, value = ("column", column) if column else ("model", smallest)
    if study.teachers or study.best_of_n:
        way = f'at the top of the study file: reward = {{ kind = "{kind}", {kind} = {json.dumps(value)} }}'
    else:
        way = shlex.join([*_command(study), f"--reward-{kind}", value])
    return Warning("cheapest-reward", f"The cheapest way to a reward ({what}): {way}")


def _command(study: Study) -> Iterator[str]:
    """Yield the words of the command that ranks the study's files."""
    yield from ("preceptor", "rank", *study.data.responses)
    for name, value in study.data.columns.model_dump(exclude_defaults=True).items():
        for one in value if isinstance(value, tuple) else (value,):
            yield from (f"--{name.replace('_', '-')}", str(one))
    for student in study.students:
        yield from ("--student", student.model)
    if not study.students:
        yield "--no-student"
