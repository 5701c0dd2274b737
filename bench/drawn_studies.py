"""Studies whose truth is known: rewards (teachers, instructions) of many kinds, drawn from one generator.

All made rewards share a part per instruction (correlation 0.3) and have a standard deviation of 1 but for the
binary ones and the ratings. Of a pool of real rewards teachers are drawn without and instructions with
replacement, and the truth is the whole pool.
"""

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.special import betaincinv, gammaincinv, ndtr, ndtri

from preceptor.ranking.metrics import CompatibilityAdjustedReward
from preceptor.scorers.verifier.verifier import verify

Array = NDArray[np.float64]

POOLED = ("zoo", "preferences", "math")
COMMON = 0.3
CAR = CompatibilityAdjustedReward()


@dataclass(frozen=True)
class Sample:
    """Measures (teachers, n) by name, and each teacher's true metric."""

    values: dict[str, Array]
    truth: Array


class Draws:
    """Studies of one kind of rewards; `car-...` adds losses that differ between teachers and asks for CAR."""

    def __init__(self, rewards: str, pools: Mapping[str, Array], rng: np.random.Generator) -> None:
        self.car, self.kind = rewards.startswith("car-"), rewards.removeprefix("car-")
        self.pools, self.rng = pools, rng

    def __call__(self, teachers: int, n: int, *, spread: float) -> Sample:
        """Return one study; at a spread of 0 all teachers are equal."""
        if self.kind in POOLED:
            rewards, means = self._pooled(teachers, n, spread=spread)
        else:
            effects = spread * self.rng.normal(size=(teachers, 1))
            rewards, means = self._made(teachers, n, effects)
        if not self.car:
            return Sample({"reward": rewards}, means)
        level = np.log(1.2) + spread * self.rng.normal(size=(teachers, 1))
        loss = np.exp(level + 0.3 * self._noise(teachers, n))
        true_loss = np.exp(level[:, 0] + 0.045)
        return Sample({"reward": rewards, "loss": loss}, CAR(means, true_loss))

    def _noise(self, teachers: int, n: int) -> Array:
        own = np.sqrt(1 - COMMON) * self.rng.normal(size=(teachers, n))
        return own + np.sqrt(COMMON) * self.rng.normal(size=n)

    def _made(self, teachers: int, n: int, effects: Array) -> tuple[Array, Array]:
        if self.kind == "binary":
            level = ndtri(0.8) + 1.4 * effects
            rewards = (self._noise(teachers, n) < level).astype(np.float64)
            return rewards, ndtr(level[:, 0])
        if self.kind == "ratings":
            edges = (np.arange(1.5, 10) - 7.5) / 2
            latent = effects + self._noise(teachers, n)
            rewards = 1.0 + (latent[..., None] > edges).sum(axis=-1)
            return rewards, 1 + ndtr(effects - edges).sum(axis=1)
        level = 2.0 if self.car else 0.0
        if self.kind == "t3":
            own, shared = (self.rng.standard_t(3, size) / np.sqrt(3) for size in ((teachers, n), n))
            noise = np.sqrt(1 - COMMON) * own + np.sqrt(COMMON) * shared
        elif self.kind == "outliers":
            wide = np.where(self.rng.random((teachers, n)) < 0.05, 5.0, 1.0)
            noise = self._noise(teachers, n) * wide / np.sqrt(0.95 + 0.05 * 25)
        else:
            noise = _SHAPES[self.kind](self._noise(teachers, n))
        return level + effects + noise, level + effects[:, 0]

    def _pooled(self, teachers: int, n: int, *, spread: float) -> tuple[Array, Array]:
        pool = self.pools[self.kind]
        chosen = self.rng.choice(len(pool), teachers, replace=False)
        rewards = pool[chosen][:, self.rng.integers(pool.shape[1], size=n)]
        means = pool[chosen].mean(axis=1)
        if spread:
            return rewards, means
        return self.rng.permuted(rewards, axis=0), np.full(teachers, means.mean())


def _lognormal(noise: Array) -> Array:
    made: Array = (np.exp(noise) - np.exp(0.5)) / np.sqrt((np.e - 1) * np.e)
    return made


def _gamma(noise: Array) -> Array:
    made: Array = (gammaincinv(0.5, ndtr(noise)) - 0.5) / np.sqrt(0.5)
    return made


def _beta(noise: Array) -> Array:
    made: Array = (betaincinv(0.5, 0.5, ndtr(noise)) - 0.5) * np.sqrt(8)
    return made


_SHAPES: dict[str, Callable[[Array], Array]] = {
    "normal": lambda noise: noise,
    "lognormal": _lognormal,
    "gamma": _gamma,
    "beta": _beta,
}


def judged(folder: Path) -> Array:
    """Return rewards (models, instructions) of JSON files with `reward`, on what all have."""
    return _common(
        {row["instruction"]: row["reward"] for row in json.loads(file.read_text())}
        for file in sorted(folder.glob("*.json"))
    )


def preferences(file: Path, folder: Path) -> Array:
    """Return preferences of a file's models but for those of the folder; a constant says nothing."""
    known = {one.stem for one in folder.glob("*.json")}
    models = json.loads(file.read_text()).items()
    return _common(
        {place: pref - 1 for place, pref in zip(found["idx"], found["pref"], strict=True)}
        for name, found in models
        if name not in known and len(set(found["pref"])) > 2
    )


def checked(folder: Path) -> Array:
    """Return whether the answers of JSON Lines files with a numeric `reference` are right."""
    models = []
    for file in sorted(folder.glob("*.jsonl")):
        rows = [json.loads(line) for line in file.read_text().splitlines()]
        models.append(
            {
                row["instruction"]: verify(
                    row["output"], {"kind": "numeric", "answer": row["reference"]}
                )
                for row in rows
            }
        )
    return _common(models)


def _common(models: Iterable[Mapping[str, float | None]]) -> Array:
    full = [{key: value for key, value in one.items() if value is not None} for one in models]
    common = sorted(set.intersection(*map(set, full)))
    return np.array([[one[key] for key in common] for one in full], dtype=np.float64)
