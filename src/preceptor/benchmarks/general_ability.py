"""General ability before and after fine-tuning (IFEval, MMLU, GSM8K and the like), measured by `lm-eval`.

Training on a teacher's answers may cost what the base model could do before: the alignment tax. Both models
answer the same documents, so the difference is paired by document, which is far surer than the difference of
two rates. Tasks and scoring are the harness's (EleutherAI/lm-evaluation-harness).
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from preceptor.benchmarks.harness.run import evaluated, is_number
from preceptor.config.ability import AbilityOptions
from preceptor.config.runtime import Runtime
from preceptor.errors import StudyError
from preceptor.ranking.bootstrap import bootstrap_means, percentile_interval
from preceptor.types import Estimate

DRAWS = 1000
"""Resamples of the documents behind the interval of a difference."""

_NO_METRICS = ("alias", "name", "sample_len", "sample_count")


@dataclass(frozen=True)
class Ability:
    """One model's value of one metric of one task.

    `metric` is the harness's name with its filter, such as `acc,none`. `value` and `standard_error` are in
    the metric's own unit, mostly 0..1, NaN where the harness gives none. `documents` holds the metric of
    each document by the hash of its content, where the harness gives it; `n` counts the documents.
    """

    task: str
    metric: str
    value: float
    standard_error: float
    n: int
    higher_is_better: bool = True
    documents: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class AbilityChange:
    """What fine-tuning did to one metric: `difference` is the fine-tuned model's less the base's.

    A tax is a negative one where higher is better. `paired` says whether the 95% interval is of a bootstrap
    over documents that both models answered; else it is formed from both standard errors, as if they were
    independent.
    """

    task: str
    metric: str
    base: Ability
    finetuned: Ability
    difference: Estimate
    paired: bool


def measure_ability(
    model: str | Path,
    tasks: Sequence[str],
    options: AbilityOptions | None = None,
    runtime: Runtime | None = None,
) -> list[Ability]:
    """Return every metric of these tasks for a Hub id or a folder; code of a repository is never run.

    Raises:
        MissingPackage: `lm-eval` is not installed.
        StudyError: a task is unknown to the harness, needs a package that is not there, or none is named.
        ModelError: the model cannot be loaded, or the harness gives up on a task.
    """
    found = evaluated(model, tasks, options or AbilityOptions(), runtime or Runtime())
    return read_results(found)


def read_results(found: Mapping[str, Any]) -> list[Ability]:
    """Return the metrics in a result of the harness, such as its own JSON file holds under `results`."""
    abilities = []
    for task, values in found.get("results", {}).items():
        samples = found.get("samples", {}).get(task, ())
        better = found.get("higher_is_better", {}).get(task, {})
        for metric, value in values.items():
            name, _, filtered = metric.partition(",")
            if name in _NO_METRICS or name.endswith("_stderr") or not is_number(value):
                continue
            documents = _documents(samples, name, filtered)
            error = values.get(f"{name}_stderr,{filtered}")
            abilities.append(
                Ability(
                    task,
                    metric,
                    float(value),
                    _error(error, documents),
                    len(documents)
                    or int(found.get("n-samples", {}).get(task, {}).get("effective", 0)),
                    bool(better.get(name, True)),
                    documents,
                )
            )
    return abilities


def _documents(samples: Sequence[Mapping[str, Any]], name: str, filtered: str) -> dict[str, float]:
    """Return the metric of each document; a repeated document counts by its place too."""
    found: dict[str, float] = {}
    for sample in samples:
        value = sample.get(name)
        if sample.get("filter", "none") == filtered and is_number(value):
            key = f"{sample.get('doc_id')} {sample.get('doc_hash')}"
            found[key] = float(value)  # type: ignore[arg-type]
    return found


def _error(stated: object, documents: Mapping[str, float]) -> float:
    if is_number(stated):
        return float(stated)  # type: ignore[arg-type]
    values = np.array(list(documents.values()))
    return float(values.std(ddof=1) / len(values) ** 0.5) if len(values) > 1 else math.nan


def ability_changes(
    base: Sequence[Ability], finetuned: Sequence[Ability], *, draws: int = DRAWS, seed: int = 0
) -> list[AbilityChange]:
    """Return the change of every metric that both models have, with its 95% interval.

    Args:
        base: of the model before fine-tuning.
        finetuned: of the model after it.
        draws: resamples of the documents.
        seed: of the resampling.

    Raises:
        StudyError: they have no metric in common.
    """
    before = {(one.task, one.metric): one for one in base}
    after = {(one.task, one.metric): one for one in finetuned}
    common = [key for key in before if key in after]
    if not common:
        raise StudyError(
            f"The models have no metric in common: {sorted(before)} and {sorted(after)}. Measure both on "
            "the same tasks."
        )
    return [_change(before[key], after[key], draws=draws, seed=seed) for key in common]


def _change(base: Ability, finetuned: Ability, *, draws: int, seed: int) -> AbilityChange:
    shared = [key for key in base.documents if key in finetuned.documents]
    if len(shared) < 2 or len(shared) < min(base.n, finetuned.n):
        value = finetuned.value - base.value
        reach = 1.96 * math.hypot(base.standard_error, finetuned.standard_error)
        difference = Estimate(value, value - reach, value + reach, min(base.n, finetuned.n))
        return AbilityChange(base.task, base.metric, base, finetuned, difference, paired=False)
    gaps = np.array([finetuned.documents[key] - base.documents[key] for key in shared])
    means = bootstrap_means(gaps[None], draws=draws, rng=np.random.default_rng(seed))[:, 0]
    low, high = percentile_interval(means)
    difference = Estimate(float(gaps.mean()), float(low), float(high), len(shared))
    return AbilityChange(base.task, base.metric, base, finetuned, difference, paired=True)
