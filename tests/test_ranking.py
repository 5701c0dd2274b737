"""A ranking comes from the common instructions, is paired, and does not depend on positions."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from preceptor.config.metrics import metric_named
from preceptor.errors import StudyError
from preceptor.ranking.metrics import CompatibilityAdjustedReward, sigmoid
from preceptor.ranking.options import RankingOptions
from preceptor.ranking.rank import Measurements, rank
from preceptor.ranking.stability import BETAS
from preceptor.ranking.verdict import Claim

QUICK = RankingOptions(n_resamples=200)


def measurements(teachers: int = 3, instructions: int = 60, seed: int = 0) -> Measurements:
    rng = np.random.default_rng(seed)
    shape = (teachers, instructions)
    values = {
        "reward": rng.uniform(0.2, 1.0, shape) + 0.05 * np.arange(teachers)[:, None],
        "loss": rng.uniform(0.5, 2.5, shape),
    }
    return Measurements(tuple("ABCDEFGH"[:teachers]), instructions, values)


def places(ranking) -> list[tuple[str, int]]:
    return [(result.teacher, result.rank) for result in ranking.teachers]


def test_car_of_a_small_table_is_as_computed_by_hand():
    # Xu et al. 2025, eq. 3, beta = 3. A: 0.5 / (1 + 3 * 1) = 0.125; B: 0.9 / (1 + 3 * 2) = 0.12857.
    given_values = {
        "reward": np.array([[0.4, 0.6], [0.8, 1.0]]),
        "loss": np.array([[0.5, 1.5], [1.0, 3.0]]),
    }
    ranking = rank(Measurements(("A", "B"), 2, given_values), student="S", options=QUICK)
    assert ranking.by == "car"
    assert places(ranking) == [("B", 1), ("A", 2)]
    assert ranking.to_records()[0]["car"] == pytest.approx(0.9 / 7)
    assert ranking.to_records()[1]["car"] == pytest.approx(0.125)
    assert ranking.to_records()[1]["likelihood"] == pytest.approx(-1.0)


def test_beta_decides_between_reward_and_compatibility():
    given_values = {
        "reward": np.array([[0.5, 0.5], [0.9, 0.9]]),
        "loss": np.array([[1.0, 1], [2, 2]]),
    }
    table = Measurements(("A", "B"), 2, given_values)
    for beta, best in ((3, "B"), (10, "A")):  # 0.5/11 = 0.0455 beats 0.9/21 = 0.0429
        car = CompatibilityAdjustedReward(beta=beta)
        assert rank(table, student="S", metrics=[car], options=QUICK).teachers[0].teacher == best


def test_the_same_seed_gives_the_same_result_and_another_seed_another_interval():
    one, again = (rank(measurements(), student="S", options=QUICK) for _ in range(2))
    other = rank(measurements(), student="S", options=RankingOptions(n_resamples=200, seed=1))
    assert one == again
    assert one.to_records()[0]["car"] == other.to_records()[0]["car"]
    assert one.to_records()[0]["car_low"] != other.to_records()[0]["car_low"]


@settings(max_examples=20, deadline=None)
@given(order=st.permutations(range(4)))
def test_the_order_of_teachers_in_the_input_changes_nothing(order):
    table = measurements(4)
    moved = Measurements(
        tuple(table.teachers[place] for place in order),
        table.instructions,
        {name: array[list(order)] for name, array in table.values.items()},
    )
    one, other = (rank(t, student="S", options=QUICK) for t in (table, moved))
    assert places(one) == places(other)
    for ours, theirs in zip(one.to_records(), other.to_records(), strict=True):
        assert theirs == ours


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 1000))
def test_the_order_of_instructions_in_the_input_changes_no_value(seed):
    table = measurements()
    order = np.random.default_rng(seed).permutation(table.instructions)
    moved = Measurements(
        table.teachers, 60, {name: array[:, order] for name, array in table.values.items()}
    )
    one, other = (rank(t, student="S", options=QUICK) for t in (table, moved))
    assert places(one) == places(other)
    for ours, theirs in zip(one.teachers, other.teachers, strict=True):
        for name, estimate in ours.estimates.items():
            assert theirs.estimates[name].value == pytest.approx(estimate.value, rel=1e-12)


@pytest.mark.parametrize("transform", ["raw", "minmax"])
def test_an_instruction_only_one_teacher_answered_changes_no_number(transform):
    table = measurements()
    extra = np.array([[-50.0], [np.nan], [np.nan]])
    wider = Measurements(
        table.teachers, 61, {name: np.hstack([v, extra]) for name, v in table.values.items()}
    )
    options = RankingOptions(n_resamples=200, transform=transform)
    one, other = (rank(t, student="S", options=options) for t in (table, wider))
    assert one.to_records() == other.to_records()
    assert "1 of 61 instructions are left out" in other.warnings[-1].text


def test_the_memory_layout_of_the_input_changes_no_number():
    table = measurements()
    other = Measurements(
        table.teachers, 60, {name: np.asfortranarray(v) for name, v in table.values.items()}
    )
    one, same = (rank(t, student="S", options=QUICK) for t in (table, other))
    assert one == same


def test_identical_teachers_share_the_rank_and_the_probability():
    table = measurements(2)
    doubled = Measurements(
        ("A", "twin of B", "B"), 60, {name: v[[0, 1, 1]] for name, v in table.values.items()}
    )
    ranking = rank(doubled, student="S", options=RankingOptions(n_resamples=501))
    twins = [result for result in ranking.teachers if "B" in result.teacher]
    assert twins[0].rank == twins[1].rank
    assert twins[0].p_rank == twins[1].p_rank
    assert sum(result.p_best for result in ranking.teachers) == pytest.approx(1.0)


def test_wholly_tied_teachers_have_no_clear_winner():
    same = {"reward": np.full((2, 40), 0.5), "loss": np.ones((2, 40))}
    ranking = rank(Measurements(("B", "A"), 40, same), student="S", options=QUICK)
    assert places(ranking) == [("A", 1), ("B", 1)]
    assert [result.p_best for result in ranking.teachers] == [0.5, 0.5]
    assert ranking.verdict().text.startswith("No clear winner by car for S: A or B")


def test_lower_is_better_where_the_metric_says_so():
    values = {"loss": np.array([[1.0] * 40, [2.0] * 40])}
    table = Measurements(("A", "B"), 40, values)
    ranking = rank(table, student="S", by="loss", options=QUICK)
    assert places(ranking) == [("A", 1), ("B", 2)]
    assert ranking.teachers[0].p_best == 1.0
    assert ranking.teachers[1].p_leader_beats == 1.0


def test_p_beats_the_runner_up_agrees_with_the_integral_over_the_prior():
    # Two teachers, true difference normal with sd s sqrt(2) per-instruction sds, s half-Cauchy (1): given s,
    # P(the leader is better) is Student's at t sqrt(k), k = n s^2 / (1 + n s^2), and t / sqrt(1 + n s^2)
    # is Student's too.
    from scipy import integrate, stats

    table = measurements(2, 400, seed=3)
    ranking = rank(table, student="S", by="reward", options=RankingOptions(n_resamples=20_000))
    leader, second = (table.teachers.index(result.teacher) for result in ranking.teachers)
    difference = table.values["reward"][leader] - table.values["reward"][second]
    t = stats.ttest_1samp(difference, 0).statistic

    def weighed(s: float, of: bool) -> float:
        wider = 1 + 400 * s**2
        density = stats.t.pdf(t / wider**0.5, 399) / wider**0.5 / (1 + s**2)
        return density * (stats.t.cdf(t * (1 - 1 / wider) ** 0.5, 399) if of else 1.0)

    whole, part = (integrate.quad(weighed, 0, 20, args=(of,), limit=200)[0] for of in (False, True))
    assert ranking.teachers[1].p_leader_beats == pytest.approx(part / whole, abs=0.01)


def test_default_order_is_car_then_reward_then_likelihood():
    whole = measurements().values
    for names, by in (
        (("reward", "loss"), "car"),
        (("reward",), "reward"),
        (("loss",), "likelihood"),
    ):
        table = Measurements(("A", "B", "C"), 60, {name: whole[name] for name in names})
        assert rank(table, student="S", options=QUICK).by == by


def test_an_unknown_order_names_the_nearest_metric():
    with pytest.raises(StudyError, match="Did you mean 'likelihood'"):
        rank(measurements(), student="S", by="likelyhood")


def test_a_metric_whose_measure_is_missing_is_refused():
    with pytest.raises(StudyError, match="'ifd' needs the measure 'ifd'"):
        rank(measurements(), student="S", metrics=[metric_named("ifd")])


def test_measures_that_feed_no_metric_are_refused():
    table = Measurements(("A",), 3, {"entropy": np.ones((1, 3))})
    with pytest.raises(StudyError, match="feed no known metric"):
        rank(table, student="S")


@dataclass(frozen=True)
class WinRate:
    """A user's metric that is registered nowhere."""

    needs: ClassVar[tuple[str, ...]] = ("win",)
    higher_is_better: ClassVar[bool] = True
    kind: str = "win_rate"
    scale: float = 100.0

    def __call__(self, win: np.ndarray) -> np.ndarray:
        return self.scale * win


def test_any_object_of_the_metric_shape_works_unregistered():
    wins = {"win": np.array([[0.0, 1.0] * 20, [1.0, 1.0] * 20])}
    ranking = rank(
        Measurements(("A", "B"), 40, wins), student="S", metrics=[WinRate()], options=QUICK
    )
    assert ranking.by == "win_rate"
    assert ranking.to_records()[0]["win_rate"] == 100.0
    assert ranking.settings["metrics"] == {"win_rate": {"scale": 100.0}}
    assert ranking.warnings == ()
    assert ranking.stability is None


@pytest.mark.parametrize("kinds", [("win_rate", "win_rate"), ("p_best",)])
def test_a_metric_with_a_taken_name_is_refused(kinds):
    table = Measurements(("A",), 2, {"win": np.ones((1, 2))})
    with pytest.raises(StudyError, match="cannot name a metric"):
        rank(table, student="S", metrics=[WinRate(kind=kind) for kind in kinds])


def test_a_metric_that_is_not_finite_is_refused_not_ranked():
    values = {"token_rank": np.ones((2, 40)), "loss": np.array([[0.0] * 40, [1.0] * 40])}
    with pytest.raises(StudyError, match="'rsr' is NaN or infinite"):
        rank(Measurements(("A", "B"), 40, values), student="S", options=QUICK)


def test_a_metric_that_returns_another_shape_is_refused():
    class Total(WinRate):
        def __call__(self, win: np.ndarray) -> np.ndarray:
            return win.sum()

    table = Measurements(("A", "B"), 2, {"win": np.ones((2, 2))})
    with pytest.raises(StudyError, match="one number for every mean"):
        rank(table, student="S", metrics=[Total()], options=QUICK)


def test_denominators_make_a_ratio_of_sums():
    # Sums of nll over token counts: A (2 + 8) / (1 + 9) = 1.0, where the mean of ratios is 1.444.
    table = Measurements(
        ("A", "B"),
        2,
        {"loss": np.array([[2.0, 8.0], [4.0, 4.0]])},
        denominators={"loss": np.array([[1.0, 9.0], [2.0, 2.0]])},
    )
    records = rank(table, student="S", options=QUICK).to_records()
    assert {r["teacher"]: r["loss"] for r in records} == {"A": pytest.approx(1.0), "B": 2.0}
    assert records[1]["loss_low"] == records[1]["loss_high"] == 2.0


def test_denominators_that_sum_to_zero_are_refused():
    table = Measurements(
        ("A",), 2, {"loss": np.ones((1, 2))}, denominators={"loss": np.zeros((1, 2))}
    )
    with pytest.raises(StudyError, match="positive"):
        rank(table, student="S", options=QUICK)


def test_the_transform_is_applied_to_the_rewards_that_are_reported():
    table = measurements()
    ranking = rank(table, student="S", options=RankingOptions(n_resamples=50, transform="sigmoid"))
    expected = sigmoid(table.values["reward"]).mean(axis=1)
    for result in ranking.teachers:
        value = result.estimates["reward"].value
        assert value == pytest.approx(expected[table.teachers.index(result.teacher)])
    assert ranking.settings["transform"] == "sigmoid"


def test_a_negative_mean_reward_is_told_and_a_transform_heals_it():
    table = measurements()
    low = Measurements(table.teachers, 60, {**table.values, "reward": table.values["reward"] - 5})
    told = rank(low, student="S", options=QUICK)
    assert "CAR REWARDS INCOMPATIBILITY" in told.warnings[0].text
    assert told.by == "reward"
    assert "CAR has no meaning with these rewards: the order is by reward." in told.verdict().text
    forced = rank(low, student="S", by="car", options=QUICK)
    assert (forced.by, forced.verdict().claim) == ("car", Claim.NO_RECOMMENDATION)
    assert forced.verdict().reasons[0].code == "negative-reward"
    healed = rank(low, student="S", options=RankingOptions(n_resamples=50, transform="shift-min"))
    assert not healed.warnings


def test_stability_names_the_beta_at_which_the_winner_turns():
    # A: 0.5 and loss 1, B: 0.9 and loss 2: B leads while 0.9 (1 + b) > 0.5 (1 + 2 b), so to b = 4.
    values = {
        "reward": np.array([[0.5] * 40, [0.9] * 40]),
        "loss": np.array([[1.0] * 40, [2.0] * 40]),
    }
    stability = rank(Measurements(("A", "B"), 40, values), student="S", options=QUICK).stability
    turned = [variant.name for variant in stability.variants if not variant.same_winner]
    assert turned == ["beta = 5", "beta = 10"]
    assert stability.variants[0].winners == ("B",)
    assert [variant.swapped_pairs for variant in stability.variants].count(1) == 2
    assert stability.pairs == 1


def test_rewards_beyond_0_to_1_have_no_zero_of_their_own_and_are_tried_transformed():
    # At 5 and 9 sigmoid makes both near 1: 0.9933 / 4 beats 0.9999 / 7. Shifted, A has 0, which B beats.
    values = {
        "reward": np.array([[5.0] * 40, [9.0] * 40]),
        "loss": np.array([[1.0] * 40, [2.0] * 40]),
    }
    stability = rank(Measurements(("A", "B"), 40, values), student="S", options=QUICK).stability
    winners = {variant.name: variant.winners for variant in stability.variants}
    assert winners["transform = sigmoid"] == ("A",)
    assert winners["transform = shift-min"] == winners["transform = minmax"] == ("B",)


def test_stability_at_beta_zero_is_the_order_by_reward_and_at_the_chosen_beta_no_change():
    table = measurements(5)
    ranking = rank(table, student="S", options=QUICK)
    variants = {variant.name: variant for variant in ranking.stability.variants}
    best = table.teachers[int(table.values["reward"].mean(axis=1).argmax())]
    assert variants["beta = 0"].winners == (best,)
    assert variants["beta = 3"].same_order
    assert variants["transform = raw"].same_order
    assert len(variants) == len(BETAS) + 4


def test_stability_starts_from_the_chosen_transform_and_the_untransformed_rewards():
    # Raw: A -1 / 4 = -0.25 beats B -0.9 / 2.5 = -0.36. Sigmoid: B 0.289 / 2.5 beats A 0.269 / 4.
    values = {
        "reward": np.array([[-1.0] * 40, [-0.9] * 40]),
        "loss": np.array([[1.0] * 40, [0.5] * 40]),
    }
    options = RankingOptions(n_resamples=50, transform="sigmoid")
    ranking = rank(Measurements(("A", "B"), 40, values), student="S", options=options)
    variants = {variant.name: variant for variant in ranking.stability.variants}
    assert ranking.teachers[0].teacher == "B"
    assert variants["transform = sigmoid"].same_order
    assert variants["transform = raw"].winners == ("A",)
    assert variants["beta = 3"].same_order


def test_stability_is_that_of_the_metric_that_orders():
    # Means 2 and 1.5; sigmoid of -6 and 10 is 0.5013 on average, of 1.5 it is 0.8176.
    values = {
        "reward": np.array([[-6.0, 10.0] * 20, [1.5] * 40]),
        "loss": np.ones((2, 40)),
        "token_rank": np.array([[3.0] * 40, [2.0] * 40]),
    }
    table = Measurements(("A", "B"), 40, values)
    stability = rank(table, student="S", by="reward", options=QUICK).stability
    assert (stability.by, stability.winners) == ("reward", ("A",))
    assert {v.name: v.winners for v in stability.turned} == {"transform = sigmoid": ("B",)}
    assert rank(table, student="S", by="rsr", options=QUICK).stability is None


def test_the_mean_over_tokens_is_another_reading_of_the_loss_of_car():
    # A: losses 1 and 3 over 100 and 10 tokens. Over responses 2, over tokens (100 + 30) / 110 = 1.1818.
    tokens = np.array([[100.0, 10.0] * 20, [50.0] * 40])
    loss = np.array([[1.0, 3.0] * 20, [1.5] * 40])
    values = {
        "reward": np.full((2, 40), 0.5), "loss": loss, "tokens": tokens, "information": loss * tokens,
    }  # fmt: skip
    stability = rank(Measurements(("A", "B"), 40, values), student="S", options=QUICK).stability
    variant = next(v for v in stability.variants if v.name == "reduction = corpus-token-mean")
    assert stability.winners == ("B",)
    assert variant.winners == ("A",)
    assert variant.values["A"] == pytest.approx(0.5 / (1 + 3 * 130 / 110))
    read = {"reading": {"conditioning": "unconditional"}}
    other = rank(Measurements(("A", "B"), 40, values), student="S", settings=read, options=QUICK)
    assert all(v.name != "reduction = corpus-token-mean" for v in other.stability.variants)


def test_a_loss_without_the_instruction_is_tried_where_it_was_measured():
    # Before the instruction 1 and 2, alone 3 and 2: 0.5 / 10 falls behind 0.5 / 7.
    flat = {"loss": (1.0, 2.0), "loss_unconditional": (3.0, 2.0), "reward": (0.5, 0.5)}
    values = {name: np.outer(means, np.ones(40)) for name, means in flat.items()}
    stability = rank(Measurements(("A", "B"), 40, values), student="S", options=QUICK).stability
    assert [v.name for v in stability.turned] == ["beta = 0", "conditioning = unconditional"]
    assert stability.turned[1].values == {"A": pytest.approx(0.05), "B": pytest.approx(0.5 / 7)}
    assert stability.against() == [
        "the winner changes under conditioning = unconditional (B)",
        "the first place is shared under beta = 0 (A and B)",
    ]


def longer(slope: float) -> Measurements:
    """Return teachers of quality 0 and 0.1, of which the worse writes twice as much, which pays `slope`."""
    rng = np.random.default_rng(0)
    length = np.round(rng.uniform(50, 400, (2, 200))) * np.array([[2.0], [1.0]])
    hard = rng.normal(size=200)
    reward = 3 + np.array([[0.0], [0.1]]) + hard + slope * np.log1p(length)
    reward += 0.01 * rng.normal(size=reward.shape)
    return Measurements(("long", "good"), 200, {"reward": reward, "length": length})


def test_rewards_at_equal_length_undo_what_length_pays():
    found = rank(longer(0.5), student="S", by="reward", options=QUICK).stability
    variant = next(v for v in found.variants if v.name == "rewards at equal length")
    assert (found.winners, variant.winners) == (("long",), ("good",))
    # Known by construction: the two differ by their quality alone.
    assert variant.values["good"] - variant.values["long"] == pytest.approx(0.1, abs=0.01)


def test_rewards_that_do_not_depend_on_length_are_not_controlled_for_it():
    found = rank(longer(0.0), student="S", by="reward", options=QUICK).stability
    assert "rewards at equal length" not in [variant.name for variant in found.variants]


def test_stability_divides_by_the_denominators_too():
    # Loss A 10 / 10 = 1, B 4 / 1 = 4: CAR 0.5 / 4 beats 0.8 / 13. The sums alone say the opposite.
    table = Measurements(
        ("A", "B"),
        40,
        {"reward": np.array([[0.5] * 40, [0.8] * 40]), "loss": np.array([[10.0] * 40, [4.0] * 40])},
        denominators={"loss": np.array([[10.0] * 40, [1.0] * 40])},
    )
    ranking = rank(table, student="S", options=QUICK)
    variants = {variant.name: variant for variant in ranking.stability.variants}
    assert ranking.teachers[0].teacher == "A"
    assert variants["beta = 3"].winners == ("A",)


def test_settings_state_what_was_used_and_keep_what_was_given():
    ranking = rank(measurements(), student="S", settings={"template": "plain"}, options=QUICK)
    assert ranking.settings["template"] == "plain"
    assert ranking.settings["n_resamples"] == 200
    assert ranking.settings["seed"] == 0
    assert ranking.settings["metrics"]["car"] == {"beta": 3.0}


def test_dropped_and_truncated_stay_with_their_teacher():
    table = measurements(2)
    told = Measurements(
        table.teachers,
        60,
        table.values,
        dropped={"B": {"empty": 2}},
        truncated={"A": 7},
    )
    results = {result.teacher: result for result in rank(told, student="S", options=QUICK).teachers}
    assert (results["B"].dropped, results["B"].truncated) == ({"empty": 2}, 0)
    assert (results["A"].dropped, results["A"].truncated) == ({}, 7)


def test_too_little_coverage_is_refused():
    table = measurements(2)
    table.values["loss"][1, :40] = np.nan
    with pytest.raises(StudyError, match="'B' costs the most"):
        rank(table, student="S")
    half = RankingOptions(n_resamples=50, min_coverage=0.3)
    assert rank(table, student="S", options=half).teachers[0].n == 20


def test_impossible_options_are_refused():
    with pytest.raises(StudyError, match="Did you mean 'sigmoid'"):
        RankingOptions(transform="sigmoyd")
    with pytest.raises(StudyError, match="at least 1 resample"):
        RankingOptions(n_resamples=0)
    with pytest.raises(StudyError, match="coverage of 0 to 1"):
        RankingOptions(min_coverage=50)
