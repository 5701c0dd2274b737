"""Mixtures: for each instruction one of several teachers' responses, ranked beside them."""

from collections.abc import Callable
from dataclasses import replace
from hashlib import blake2b
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import stats

from preceptor.config.base import checked
from preceptor.config.runtime import Runtime
from preceptor.config.study import Study
from preceptor.config.teachers import BestOfN
from preceptor.data.gather import gather
from preceptor.data.responses import ResponseSource
from preceptor.data.table import ResponseTable
from preceptor.pipeline.best_of_n import with_best_of_n
from preceptor.pipeline.outcome import Outcome
from preceptor.pipeline.pipeline import Pipeline
from preceptor.ranking.bootstrap import Array
from preceptor.ranking.options import RankingOptions
from preceptor.ranking.rank import Measurements, rank
from preceptor.ranking.verdict import Claim
from preceptor.types import Instruction
from small_study import preceptor, write_rows

pytestmark = pytest.mark.usefixtures("private_cache", "one_thread")

TEACHERS = ("ann", "ben", "cat")
KINDS = ("sums", "odes", "rare")
Reward = Callable[[int, int], float]


def kind(place: int) -> str:
    """Return an instruction's kind; one in sixteen is rare."""
    return "rare" if place % 16 == 0 else KINDS[place % 2]


def write(folder: Path, rewards: Array) -> list[str]:
    """Write a file for each teacher, of one response to each instruction."""
    return [
        str(
            write_rows(
                folder / f"{name}.jsonl",
                [
                    {
                        "instruction": f"Question {n}?",
                        "output": f"{name} says {n} and {n * n}",
                        "reward": float(value),
                        "category": kind(n),
                    }
                    for n, value in enumerate(row)
                ],
            )
        )
        for name, row in zip(TEACHERS, rewards, strict=False)
    ]


def outcome_of(files: list[str], folder: Path, mixture: dict[str, Any], **tables: Any) -> Outcome:
    given = {
        "data": {"responses": files},
        "reward": {"kind": "column", "column": "reward"},
        "best_of_n": [{"of": "*", "label": "mixed", **mixture}],
        "no_student": "students" not in tables,
        "ranking": {"n_resamples": 200},
        **tables,
    }
    study = checked(Study, given, where="here")
    (found,) = Pipeline(study, Runtime(store=str(folder / "store"), device="cpu")).outcomes()
    return found


def taken(table: ResponseTable, name: str = "mixed") -> dict[int, str]:
    """Return by instruction's number whose response a mixture took."""
    ids = {Instruction.from_text(f"Question {n}?").id: n for n in range(len(table.instructions))}
    owner = {
        table.keys[row].item(): table.teachers[table.teacher[row]]
        for row in range(len(table.keys))
        if table.teachers[table.teacher[row]] != name
    }
    rows = np.flatnonzero(table.teacher == table.teachers.index(name)).tolist()
    return {
        ids[table.instructions[table.instruction[row]].item()]: owner[table.keys[row].item()]
        for row in rows
    }


def test_the_best_of_several_is_that_of_the_highest_reward_and_is_never_named(tmp_path: Path):
    rewards = np.random.default_rng(0).uniform(1, 2, (3, 60))
    found = outcome_of(write(tmp_path, rewards), tmp_path, {"kind": "best"})
    best = {n: TEACHERS[place] for n, place in enumerate(rewards.argmax(axis=0))}
    assert taken(found.data.selection.table) == best
    verdict = found.ranking.verdict()
    assert (verdict.teacher, verdict.claim) == ("mixed", Claim.LEADS_SO_FAR)
    assert "chosen by the reward that ranks it" in verdict.text
    assert found.ranking.category_winners() == {}


def test_of_equal_rewards_the_teachers_share_the_instructions(tmp_path: Path):
    found = outcome_of(write(tmp_path, np.ones((3, 60))), tmp_path, {"kind": "best"})
    owners = list(taken(found.data.selection.table).values())
    # Of 60 fair draws each of three has 9 or fewer in 1 of 600.
    assert all(owners.count(name) > 9 for name in TEACHERS)


def test_teachers_are_routed_by_instructions_that_all_have_answered(tmp_path: Path):
    """The second is behind everywhere, and answered only what is easy."""
    easy = 10.0 * (np.arange(160) < 80)
    rewards = easy + np.array([[1.0], [0.5]])
    files = write(tmp_path, rewards)
    lines = Path(files[1]).read_text().splitlines(keepends=True)
    Path(files[1]).write_text("".join(lines[:80]))
    mixture = {"kind": "routed", "seed": 3}
    found = outcome_of(files, tmp_path, mixture, ranking={"min_coverage": 0.2, "n_resamples": 100})
    assert set(taken(found.data.selection.table).values()) == {"ann"}


def test_a_routed_mixture_takes_the_teacher_that_does_best_on_the_other_half_of_the_kind(
    tmp_path: Path,
):
    """By hand; kinds of fewer than 20 instructions in the other half go by all kinds together."""
    n = 160
    rewards = np.random.default_rng(1).normal(5, 1, (3, n))
    for at in range(n):
        rewards[KINDS.index(kind(at)), at] += 1
    found = outcome_of(write(tmp_path, rewards), tmp_path, {"kind": "routed", "seed": 3})
    salt = (3).to_bytes(8, "little")
    half = [
        blake2b(Instruction.from_text(f"Question {at}?").id, salt=salt).digest()[-1] % 2
        for at in range(n)
    ]
    wanted = {}
    for at in range(n):
        others = [one for one in range(n) if half[one] != half[at]]
        alike = [one for one in others if kind(one) == kind(at)]
        means = rewards[:, alike if len(alike) >= 20 else others].mean(axis=1)
        wanted[at] = TEACHERS[means.argmax()]
    assert taken(found.data.selection.table) == wanted
    # The best at what is rare is not the best of all.
    assert set(wanted.values()) == {"ann", "ben"}


def test_of_equal_teachers_a_routed_mixture_is_unbiased_and_the_best_of_each_is_not(
    tmp_path: Path,
):
    table = gather(ResponseSource.open(write(tmp_path, np.ones((3, 120))))).table
    rng = np.random.default_rng(2)
    ahead: dict[str, list[float]] = {"routed": [], "best": []}
    for _ in range(300):
        values = rng.normal(0, 1, len(table.keys))
        noise = replace(table, values={"reward": values})
        for name, gains in ahead.items():
            made = BestOfN(kind=name, of=TEACHERS, label="mixed")  # type: ignore[arg-type]
            mixed = with_best_of_n(noise, made, lambda _, given, rows: given.values["reward"][rows])
            own = mixed.values["reward"][mixed.teacher == len(TEACHERS)]
            gains.append(float(own.mean() - values.mean()))
    error = np.std(ahead["routed"]) / np.sqrt(300)
    assert error < 0.01
    assert abs(np.mean(ahead["routed"])) < 3 * error
    # The highest of three normals is 0.846 deviations above their mean.
    assert np.mean(ahead["best"]) == pytest.approx(0.846, abs=0.02)


def test_a_routed_mixture_of_teachers_each_best_at_one_kind_is_named_the_first(tmp_path: Path):
    rewards = np.random.default_rng(3).normal(5, 0.5, (2, 240))
    for n in range(240):
        rewards[{"sums": 0, "odes": 1}.get(kind(n), 0), n] += 2
    found = outcome_of(write(tmp_path, rewards), tmp_path, {"kind": "routed"})
    verdict = found.ranking.verdict()
    assert (verdict.teacher, verdict.claim) == ("mixed", Claim.FIRST)
    assert not [one for one in found.ranking.warnings if one.code == "chosen-by-own-reward"]
    # Within a kind it is one of them, and takes nothing from whoever that is.
    assert found.ranking.category_winners() == {"sums": "ann", "odes": "ben"}


def test_a_lead_of_a_mixture_is_tested_at_the_variance_that_cross_fitting_gives_it():
    own, apart = np.random.default_rng(4).normal(5, 1, 60), 0.3 + np.tile([-1.0, 1.0], 30)
    ratio = apart.mean() / (apart.std(ddof=1) / np.sqrt(60))
    for mixtures, widened in ((frozenset[str](), 1.0), (frozenset({"mixed"}), 1 + 1 / np.pi)):
        given = Measurements(
            ("ann", "mixed"), 60, {"reward": np.stack([own, own + apart])}, mixtures=mixtures
        )
        found = rank(given, student="s", by="reward", options=RankingOptions(n_resamples=100))
        expected = 2 * stats.t.sf(ratio / np.sqrt(widened), 59)
        assert found["ann"].p_value == pytest.approx(expected)


@pytest.mark.parametrize("by", ["car", "persyn"])
def test_a_mixture_is_chosen_by_car_or_persyn_of_each_response(
    tmp_path: Path, model_folder: Path, by: str
):
    rewards = np.random.default_rng(4).uniform(1, 2, (3, 8))
    student = {"model": str(model_folder), "chat_template": "plain"}
    found = outcome_of(
        write(tmp_path, rewards),
        tmp_path,
        {"kind": "best", "by": by},
        students=[student],
        beta=2,
    )
    table, measured = found.data.selection.table, found.measurements()
    loss = measured.values["loss"][:3]
    reward = measured.values["reward"][:3]
    if by == "car":
        value = reward / (1 + 2 * loss)
    else:

        def spanned(one: Array) -> Array:
            span: Array = (one - one.min(axis=0)) / (one.max(axis=0) - one.min(axis=0))
            return span

        value = 0.6 * spanned(reward) + 0.4 * spanned(-loss)
    mixed = measured.teachers.index("mixed")
    places = value.argmax(axis=0)
    columns = np.arange(8)
    assert measured.values["loss"][mixed].tolist() == loss[places, columns].tolist()
    assert measured.values["reward"][mixed].tolist() == reward[places, columns].tolist()
    assert len(set(taken(table).values())) > 1
    assert found.ranking.verdict().claim is not Claim.FIRST


def test_a_mixture_is_exported_with_the_responses_it_took_and_whose_they_are(tmp_path: Path):
    rewards = np.random.default_rng(5).uniform(1, 2, (3, 30))
    files = write(tmp_path, rewards)
    study = tmp_path / "study.toml"
    study.write_text(f"""
        no_student = true
        reward = {{ kind = "column", column = "reward" }}
        data.responses = {files}
        [[best_of_n]]
        kind = "best"
        of = ["ann", "cat"]
        label = "mixed"
        [runtime]
        store = "{tmp_path / "store"}"
        """)
    out = tmp_path / "out"
    result = preceptor("export", study, "--output", out, "--teacher", "mixed")
    assert result.exit_code == 0, result.output
    written = (out / "train.jsonl").read_text()
    for n in range(30):
        name = "ann" if rewards[0, n] > rewards[2, n] else "cat"
        other = "cat" if name == "ann" else "ann"
        assert f"{name} says {n} and {n * n}" in written
        assert f"{other} says {n} and {n * n}" not in written
    card = (out / "README.md").read_text()
    assert "ann, cat" in card
    assert "best of all samples" in card
