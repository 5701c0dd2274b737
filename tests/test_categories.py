"""The best teacher of each kind of instruction: p over all rivals, adjusted for looking at several kinds."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
from scipy.stats import t as student_t

from preceptor.ranking.bootstrap import Array
from preceptor.ranking.categories import holm
from preceptor.ranking.measurements import Measurements
from preceptor.ranking.metrics import (
    AverageLoss,
    AverageReward,
    CompatibilityAdjustedReward,
    Metric,
    RankSurprisalRatio,
)
from preceptor.ranking.options import RankingOptions
from preceptor.ranking.rank import Ranking, rank
from preceptor.ranking.verdict import Claim, claim_in
from preceptor.types import Code, Warning

TEACHERS = ("ann", "ben", "cat")


def ranked(
    categories: Sequence[str | None],
    metric: Metric | None = None,
    *,
    truncated: int = 0,
    seed: int = 0,
    **values: Array,
) -> Ranking:
    rows, n = next(iter(values.values())).shape
    teachers = TEACHERS[:rows]
    cut = {"ann": truncated}
    return rank(
        Measurements(teachers, n, values, truncated=cut, categories=tuple(categories)),
        student="S",
        metrics=[metric or AverageReward()],
        options=RankingOptions(n_resamples=50, seed=seed),
    )


def planted(lead: float = 1.0) -> Ranking:
    """Return a ranking of 4 kinds of 60 instructions, where ann is the best of `sums` alone."""
    categories = [("sums", "code", "odes", "maps")[place % 4] for place in range(240)]
    reward = np.random.default_rng(3).normal(5, 1, (3, 240))
    reward[0, ::4] += lead
    return ranked(categories, reward=reward)


def test_p_is_the_largest_over_all_rivals_and_adjusted_by_holm_over_the_categories():
    """Against Student's paired test and Holm's step-down written out; symmetric values need no mending."""
    rng = np.random.default_rng(5)
    half = rng.normal(0, 1, (3, 120))
    reward = 5 + np.concatenate([half, -half], axis=1)
    shifts = np.array([[0.4, 0.0, 0.1], [0.0, 0.2, 0.1], [0.05, 0.0, 0.0]]).T
    kinds = np.tile(np.arange(120) % 3, 2)
    reward += shifts[:, kinds]
    found = ranked([f"kind {one}" for one in kinds], reward=reward).categories
    largest = []
    for place, category in enumerate(found):
        values = reward[:, kinds == place]
        best = int(values.mean(axis=1).argmax())
        p_values = {}
        for other in {0, 1, 2} - {best}:
            apart = values[best] - values[other]
            ratio = apart.mean() / (apart.std(ddof=1) / np.sqrt(len(apart)))
            p_values[other] = float(2 * student_t.sf(ratio, len(apart) - 1))
        rival = max(p_values, key=lambda one: p_values[one])
        assert (category.name, category.best) == (f"kind {place}", TEACHERS[best])
        assert category.rival == TEACHERS[rival]
        assert category.p_value == pytest.approx(p_values[rival], abs=1e-9)
        largest.append(p_values[rival])
    for p, category in zip(largest, found, strict=True):
        # A p is adjusted to the largest of what it and all smaller ones are times those left.
        smaller = [one for one in largest if one <= p]
        steps = [one * sum(other >= one for other in largest) for one in smaller]
        assert category.p_adjusted == pytest.approx(min(1.0, max(steps)), abs=1e-9)


def test_holm_gives_what_his_paper_s_steps_give():
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.9, 0.8]) == [1.0, 1.0]
    assert holm([]) == []


def test_a_winner_of_one_category_is_named_and_nobody_in_the_others():
    ranking = planted()
    assert ranking.category_winners() == {"sums": "ann"}
    claims = {one.name: claim_in(ranking, one)[0] for one in ranking.categories}
    assert claims == {
        "sums": Claim.FIRST,
        **dict.fromkeys(("code", "odes", "maps"), Claim.NO_CLEAR_WINNER),
    }
    text = str(ranking)
    assert "sums (n 60): ann is first, reward" in text
    assert "p <0.001." in text
    assert "maps (n 60): no clear winner." in text


def test_of_equal_teachers_a_winner_of_any_of_8_categories_is_named_in_at_most_1_of_20_studies():
    """Of 60 studies 3 are 5%; more than 8 are less likely than 1 in 250 at that rate."""
    categories = [f"kind {place % 8}" for place in range(8 * 40)]
    rng = np.random.default_rng(11)
    named = unadjusted = 0
    for _ in range(60):
        ranking = ranked(categories, reward=rng.normal(0, 1, (2, len(categories))))
        named += bool(ranking.category_winners())
        unadjusted += any((one.p_value or 0) <= 0.05 for one in ranking.categories)
    assert named <= 8 < 12 <= unadjusted


def test_small_kinds_and_what_has_none_are_one_without_a_name_and_nobody_is_named_below_30():
    sizes = {"large": 40, "fair": 29, "small": 19, None: 45}
    categories = [name for name, n in sizes.items() for _ in range(n)]
    reward = np.random.default_rng(1).normal([[6], [5]], 0.1, (2, len(categories)))
    ranking = ranked(categories, reward=reward)
    assert [(one.name, one.n) for one in ranking.categories] == [
        ("large", 40),
        ("fair", 29),
        (None, 64),
    ]
    large, fair, others = ranking.categories
    assert (large.best, fair.best, others.best) == ("ann", "ann", None)
    assert large.p_adjusted == large.p_value
    assert fair.p_adjusted is None
    assert others.means["ann"]["reward"].value == pytest.approx(reward[0, 69:].mean())
    assert ranking.category_winners() == {"large": "ann"}


@pytest.mark.parametrize("names", [[None] * 60, ["sums"] * 60, list(map(str, range(60)))])
def test_one_category_alone_is_no_table(names: list[str | None]):
    assert ranked(names, reward=np.random.default_rng(0).normal(size=(2, 60))).categories == ()


def test_a_category_s_metric_is_formed_of_its_own_means():
    rng = np.random.default_rng(1)
    reward, loss = rng.normal(1, 0.2, (2, 80)), rng.uniform(1, 2, (2, 80))
    names = ["sums", "letters"] * 40
    found = ranked(
        names, CompatibilityAdjustedReward(beta=2), reward=reward, loss=loss, entropy=loss
    )
    sums = next(one for one in found.categories if one.name == "sums").means["ben"]
    mine = reward[1, ::2].mean(), loss[1, ::2].mean()
    assert set(sums) == {"reward", "loss", "car"}
    assert sums["reward"].value == pytest.approx(mine[0], abs=1e-12)
    assert sums["car"].value == pytest.approx(mine[0] / (1 + 2 * mine[1]), abs=1e-12)


def test_where_the_metric_has_no_meaning_in_a_category_nobody_leads_it():
    names = ["sums"] * 40 + ["letters"] * 40
    loss = np.array([[0.0] * 40 + [1.0] * 40] * 2)
    letters, sums = ranked(
        names, RankSurprisalRatio(), token_rank=np.ones((2, 80)), loss=loss
    ).categories
    assert (sums.best, set(sums.means["ann"])) == (None, {"loss", "token_rank"})
    assert letters.means["ann"]["rsr"].value == 1.0
    # CAR is formed of rewards that are positive over all, and not within one category.
    reward = np.random.default_rng(2).normal([[-1.0] * 40 + [9.0] * 40] * 2, 0.1)
    letters, sums = ranked(
        names, CompatibilityAdjustedReward(), reward=reward, loss=loss + 1
    ).categories
    assert (letters.best is None, sums.best) == (False, None)


def test_nobody_is_named_in_a_category_where_nobody_is_recommended_at_all():
    loss = np.random.default_rng(0).normal(2, 0.1, (2, 80)) - [[1], [0]]
    ranking = ranked(["sums", "letters"] * 40, AverageLoss(), loss=loss)
    assert ranking.verdict().claim is Claim.NO_RECOMMENDATION
    assert all(one.p_adjusted is not None and one.p_adjusted < 1e-6 for one in ranking.categories)
    assert ranking.category_winners() == {}
    assert "Nobody is recommended in any category" in str(ranking)


@pytest.mark.parametrize(
    "code, about, named",
    [
        ("chosen-by-own-reward", ("ann",), False),
        ("chosen-by-own-reward", ("ben",), True),
        ("missing-scores", (), False),
        ("copies", ("ann",), True),
    ],
)
def test_what_keeps_a_leader_from_being_named_keeps_a_category_s_too(
    code: Code, about: tuple[str, ...], named: bool
):
    ranking = planted()
    warned = replace(ranking, warnings=(*ranking.warnings, Warning(code, "so", about)))
    assert bool(warned.category_winners()) is named


def test_a_winner_that_changes_with_beta_or_of_cut_responses_leads_so_far():
    rng = np.random.default_rng(4)
    names = ["sums", "letters"] * 60
    reward = rng.normal([[1.0], [2.0]], 0.1, (2, 120))
    loss = rng.normal([[1.0], [4.0]], 0.1, (2, 120))
    turned = ranked(names, CompatibilityAdjustedReward(), reward=reward, loss=loss)
    claim, against = claim_in(turned, turned.categories[0])
    assert claim is Claim.LEADS_SO_FAR
    assert "the winner changes under beta = 0 (ben)" in against[0]
    cut = ranked(names, reward=reward[::-1], truncated=20)
    assert claim_in(cut, cut.categories[0]) == (
        Claim.LEADS_SO_FAR,
        ("many of its responses were cut off",),
    )


def test_categories_are_in_the_json_with_what_is_claimed_and_come_back_equal():
    ranking = planted()
    categories = ranking.to_dict()["categories"]
    assert isinstance(categories, list)
    told = {one["name"]: (one["best"], one["claim"]) for one in categories}
    assert told["sums"] == ("ann", "first")
    assert Ranking.from_json(ranking.to_json()) == ranking
