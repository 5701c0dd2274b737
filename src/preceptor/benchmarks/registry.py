"""The benchmarks there are: the package's own, and those that other packages register.

An entry point of the group `preceptor.benchmarks` names a class that derives from `Benchmark`.
"""

from collections.abc import Mapping
from dataclasses import fields
from typing import Any, cast

from preceptor.benchmarks.base import Benchmark
from preceptor.config.plugins import Registry

_BENCHMARKS: Registry[type[Benchmark]] = Registry(
    "benchmarks",
    "benchmark",
    {
        "accuracy": "preceptor.benchmarks.accuracy.benchmark:Accuracy",
        "alpaca_eval": "preceptor.benchmarks.alpaca_eval.benchmark:AlpacaEval",
        "arena_hard": "preceptor.benchmarks.arena_hard.benchmark:ArenaHard",
        "arena_hard_v2": "preceptor.benchmarks.arena_hard_v2.benchmark:ArenaHardV2",
        "arena_hard_v2_creative": "preceptor.benchmarks.arena_hard_v2.benchmark:ArenaHardV2Creative",
        "ifeval": "preceptor.benchmarks.ifeval.benchmark:IFEval",
        "lm-eval": "preceptor.benchmarks.harness.benchmark:Harness",
        "mt_bench": "preceptor.benchmarks.mt_bench.benchmark:MTBench",
        "robustness": "preceptor.benchmarks.robustness.benchmark:Robustness",
        "safety": "preceptor.benchmarks.safety.benchmark:Safety",
    },
)


def benchmark_classes() -> Mapping[str, type[Benchmark]]:
    """Return every benchmark's class by its name, the package's own first."""
    return {name: _BENCHMARKS[name] for name in _BENCHMARKS.names()}


def benchmark_named(name: str, options: Mapping[str, Any] | None = None) -> Benchmark:
    """Return the benchmark of this name, with those of the options that it has.

    Raises:
        StudyError: there is none; the message has the nearest name.
    """
    kind = cast(Any, _BENCHMARKS[name])
    own = {one.name for one in fields(kind)}
    return cast(Benchmark, kind(**{k: v for k, v in (options or {}).items() if k in own}))


def benchmarks(options: Mapping[str, Any] | None = None) -> dict[str, Benchmark]:
    """Return every benchmark by its name; see `benchmark_named`."""
    return {name: benchmark_named(name, options) for name in _BENCHMARKS.names()}
