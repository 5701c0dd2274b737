"""RankingData and reports of a small study that never ran: what charts and pages are tested on.

Measurements are drawn around published-like means and go through the library's own
ranking, so every part of the ranked fits every other. One seed gives the same ranked again.
"""

from collections.abc import Mapping, Sequence

import numpy as np

from preceptor.agreement.compare import Column, Comparison
from preceptor.agreement.table import AgreementTable
from preceptor.ranking.bootstrap import (
    bootstrap_means,
    percentile_interval,
    rank_probabilities,
    ranks,
)
from preceptor.ranking.measurements import Measurements
from preceptor.ranking.options import RankingOptions
from preceptor.ranking.rank import Ranking, rank
from preceptor.ranking.sensitivity import BetaSweep
from preceptor.ranking.stability import BETAS
from preceptor.report.data import (
    Answer,
    Array,
    Change,
    Distribution,
    Example,
    RankingData,
    Report,
    ShownToken,
)
from preceptor.types import Estimate
from table_seven import TEACHERS as OBSERVED_TEACHERS
from table_seven import average_performance

# Name, family, billions of parameters, mean reward, mean loss: invented, ordered alike to the paper's.
TEACHERS: tuple[tuple[str, str, float | None, float, float], ...] = (
    ("Gemma-2-9b-it", "Gemma 2", 9.0, 12.6, 0.82),
    ("Qwen2.5-72B-Instruct", "Qwen2.5", 72.0, 13.4, 0.74),
    ("Llama-3.1-70B-Instruct", "Llama 3.1", 70.0, 9.1, 0.71),
    ("Gemma-2-27b-it", "Gemma 2", 27.0, 12.9, 0.93),
    ("Llama-3.1-405B-Instruct", "Llama 3.1", 405.0, 8.9, 0.78),
    ("Qwen2.5-7B-Instruct", "Qwen2.5", 7.0, 10.3, 0.69),
    ("Phi-3-medium-128k-instruct", "Phi-3", 14.0, 4.1, 0.88),
    ("Qwen2-7B-Instruct", "Qwen2", 7.0, 6.4, 0.70),
    ("GPT-4 & GPT-4 Turbo", "GPT-4", None, 7.7, 1.05),
    ("Llama-3-70B-Instruct", "Llama 3", 70.0, 8.2, 0.79),
    ("Gemma-2-2b-it", "Gemma 2", 2.0, 10.1, 0.76),
    ("Phi-3-mini-128k-instruct", "Phi-3", 3.8, 3.6, 0.80),
    ("Phi-3-small-128k-instruct", "Phi-3", 7.0, 4.9, 0.84),
    ("Llama-3-8B-Instruct", "Llama 3", 8.0, 6.1, 0.75),
    ("Llama-3.1-8B-Instruct", "Llama 3.1", 8.0, 6.8, 0.68),
    ("Qwen2-1.5B-Instruct", "Qwen2", 1.5, 0.9, 0.66),
    ("Qwen2-72B-Instruct", "Qwen2", 72.0, 7.1, 0.77),
    ("Qwen2.5-3B-Instruct", "Qwen2.5", 3.0, 8.4, 0.67),
    ("Qwen2.5-14B-Instruct", "Qwen2.5", 14.0, 11.0, 0.75),
    ("Qwen2.5-32B-Instruct", "Qwen2.5", 32.0, 11.6, 0.79),
)
CATEGORIES = ("Information seeking", "Math", "Coding & debugging", "Creative writing", "Planning")
INSTRUCTIONS = 300
BINS = 20


def small_ranking_data(
    teachers: int = 6,
    reward: bool = True,
    seed: int = 0,
    *,
    student: str = "Llama-3.1-Minitron-4B",
    names: Sequence[str] = (),
) -> RankingData:
    """Return the ranked of one ranking; `names` replace the first teachers' names."""
    chosen = TEACHERS[:teachers]
    labels = (*names, *(one[0] for one in chosen[len(names) :]))
    values = _values(chosen, reward=reward, rng=np.random.default_rng(seed))
    ranking = rank(
        Measurements(
            labels, INSTRUCTIONS, values, truncated={labels[-1]: 3}, categories=_categories()
        ),
        student=student,
        options=RankingOptions(n_resamples=500, seed=seed),
        settings={"reward": "skywork-27b"} if reward else {"reward": None},
    )
    order = [labels.index(result.teacher) for result in ranking.teachers]
    values = {name: array[order] for name, array in values.items()}
    by_name = dict(zip(labels, chosen, strict=True))
    return RankingData(
        ranking=ranking,
        families={name: one[1] for name, one in by_name.items()},
        sizes={name: one[2] for name, one in by_name.items()},
        sweep=_sweep(values, seed) if reward else None,
        distributions=tuple(
            _distribution(name, values[name]) for name in values if name != "perplexity"
        ),
        changes=(Change("beta 0", ranking.teachers[1].teacher),) if reward and teachers > 1 else (),
        tried=("beta 0", "beta 1", "beta 10", "common length") if reward else (),
        examples=_examples(ranking, values),
        examples_of=INSTRUCTIONS,
        tokens={result.teacher: result.estimates["length"].value for result in ranking.teachers},
    )


def small_report(
    teachers: int = 6,
    reward: bool = True,
    seed: int = 0,
    *,
    students: Sequence[str] = ("Llama-3.1-Minitron-4B",),
    agreement: bool = True,
) -> Report:
    """Return a report with one ranking for each student and, if asked for, agreement on 19 teachers."""
    return Report(
        rankings=tuple(
            small_ranking_data(teachers, reward, seed + place, student=student)
            for place, student in enumerate(students)
        ),
        title="Which teacher for " + ", ".join(students) + "?",
        command="preceptor report study.toml --html report.html",
        study_file='[data]\nresponses = "responses/*.jsonl"\n',
        versions={"preceptor": "0.1.0", "torch": "2.5.1"},
        agreement=small_agreement(seed) if agreement else None,
        outcome="AP of the paper's table 7" if agreement else None,
    )


def small_agreement(seed: int = 0) -> AgreementTable:
    """Return how invented predictions agree with the paper's table 7, over its five students."""
    rng = np.random.default_rng(seed)
    rows = average_performance()
    observed = np.array([[row[name] for name in OBSERVED_TEACHERS] for row in rows.values()])
    distribution = observed.std(axis=1, keepdims=True)
    noise = {
        name: rng.normal(size=observed.shape) * distribution for name in ("car", "reward", "length")
    }
    columns = (
        Column("car", "car", True, observed + 0.4 * noise["car"]),
        Column("reward", "reward", True, observed + 0.7 * noise["reward"]),
        Column("loss", "loss", False, np.abs(noise["car"] + observed.mean())),
        Column("length", "length", True, observed + 2 * noise["length"]),
        Column("size", "size", True, np.array([_size_row()] * len(rows)), baseline=True),
    )
    return AgreementTable(
        Comparison(tuple(rows), OBSERVED_TEACHERS, observed, columns, ()), draws=200, seed=seed
    )


def _size_row() -> list[float]:
    sizes = {name: size or 0.0 for name, _, size, _, _ in TEACHERS}
    return [sizes[name] for name in OBSERVED_TEACHERS]


def _values(
    chosen: Sequence[tuple[str, str, float | None, float, float]],
    *,
    reward: bool,
    rng: np.random.Generator,
) -> dict[str, Array]:
    """Draw measures of shape (teachers, instructions) around the means; instructions differ alike."""
    rewards, losses = (np.array([one[place] for one in chosen])[:, None] for place in (3, 4))
    shape = (len(chosen), INSTRUCTIONS)
    hard = rng.normal(size=INSTRUCTIONS)
    loss = losses * np.exp(0.3 * hard + 0.2 * rng.normal(size=shape) - 0.065)
    values = {
        "loss": loss,
        "perplexity": np.exp(loss),
        "ifd": np.clip(0.45 + 0.25 * loss + 0.08 * rng.normal(size=shape), 0.05, None),
        "length": np.round(120 + 22 * rewards + 180 * rng.gamma(2.0, 1.0, size=shape)),
    }
    drawn = rewards - 1.5 * hard + 4.0 * rng.normal(size=shape)
    return {"reward": drawn, **values} if reward else values


def _sweep(values: Mapping[str, Array], seed: int) -> BetaSweep:
    teachers = len(values["reward"])
    both = np.concatenate([values["reward"], values["loss"]])
    draws = bootstrap_means(both, draws=400, rng=np.random.default_rng(seed))
    parts: dict[str, list[Array]] = {"values": [], "low": [], "high": [], "p_best": [], "ranks": []}
    for beta in BETAS:
        point = both[:teachers].mean(axis=1) / (1 + beta * both[teachers:].mean(axis=1))
        drawn = draws[:, :teachers] / (1 + beta * draws[:, teachers:])
        low, high = percentile_interval(drawn)
        parts["values"].append(point)
        parts["low"].append(low)
        parts["high"].append(high)
        parts["p_best"].append(rank_probabilities(drawn)[:, 0])
        parts["ranks"].append(ranks(point).astype(np.float64))
    return BetaSweep(BETAS, **{name: np.array(rows) for name, rows in parts.items()})


def _distribution(measure: str, values: Array) -> Distribution:
    low, high = np.nanquantile(values, [0.005, 0.995])
    edges = np.linspace(low, high, BINS + 1)
    counts = [np.histogram(np.clip(row, low, high), edges)[0] for row in values]
    quantiles = np.quantile(values, [0.05, 0.25, 0.5, 0.75, 0.95], axis=1).T
    return Distribution(measure, edges, np.array(counts, dtype=np.float64), quantiles)


def _estimate(values: Array, n: int) -> Estimate:
    mean, half = float(values.mean()), float(1.96 * values.std() / np.sqrt(n))
    return Estimate(mean, mean - half, mean + half, n)


def _categories() -> tuple[str, ...]:
    owner = np.arange(INSTRUCTIONS) % (len(CATEGORIES) + 3) % len(CATEGORIES)
    return tuple(CATEGORIES[place] for place in owner)


def _examples(ranking: Ranking, values: Mapping[str, Array]) -> tuple[Example, ...]:
    measure = "reward" if "reward" in values else "loss"
    apart = values[measure].std(axis=0)
    found = []
    for place in np.argsort(-apart)[:4]:
        answers = [
            _answer(result.teacher, row, {k: float(v[row, place]) for k, v in values.items()})
            for row, result in enumerate(ranking.teachers)
        ]
        question = f"Explain <b>bold</b> & number {place} to a child, in two sentences."
        category = CATEGORIES[place % len(CATEGORIES)]
        found.append(Example(question, category, float(apart[place]), tuple(answers)))
    return tuple(found)


def _answer(teacher: str, row: int, scores: Mapping[str, float | None]) -> Answer:
    if row == 3:
        return Answer(teacher, None, dict.fromkeys(scores), note="no output in the data")
    pieces = ("Bold", " text", " stands", " out", ".", "\n\n", "So", " do", " you", "!")
    nlls = [0.1 + (7 * row + 3 * place) % 11 * 0.6 for place in range(len(pieces))]
    read = [ShownToken(1, *one) for one in zip(pieces, ["answer"] * 9 + ["cut"], nlls, strict=True)]
    return Answer(
        *(teacher, "".join(pieces), scores, tuple(read) if row != 1 else ()),
        left_out=120 if row == 2 else 0,
        context="<user>\nExplain.\n<assistant>\n",
    )
