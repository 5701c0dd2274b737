"""Agreement equals scipy's with ties, eq. 2 without, refuses NaN, and its intervals mean what they say."""

import math
from itertools import permutations

import numpy as np
import pytest
import scipy.stats
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from preceptor.agreement.bootstrap import (
    PermutationTest,
    adjusted_p_values,
    bonett_wright,
    design_effect,
    percentile_ends,
    permutation_test,
    permuted_rhos,
    resample,
    resample_families,
    resampled_spearman,
    rho_interval,
    without_each_family,
)
from preceptor.agreement.correlation import (
    Array,
    kendall,
    leave_one_out_prior,
    midranks,
    pairs_right,
    same_family,
    spearman,
    spearman_without_ties,
    top_one_regret,
    top_three_hit,
)
from preceptor.errors import StudyError
from table_seven import average_performance

DISTINCT = st.lists(st.integers(-1000, 1000), min_size=2, max_size=25, unique=True)
TIED = st.lists(st.tuples(st.integers(0, 4), st.integers(0, 4)), min_size=3, max_size=20)


def generator(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def array(*values: float) -> Array:
    return np.array(values, dtype=np.float64)


def shuffled(predicted: Array, observed: Array, *, draws: int = 1) -> PermutationTest:
    chance = permuted_rhos(predicted, observed, draws=draws, rng=generator())
    seen = np.mean([spearman(*pair) for pair in zip(predicted, observed, strict=True)])
    return permutation_test(float(seen), chance.mean(axis=1), teachers=predicted.shape[1])


def table_seven() -> Array:
    return np.array([list(row.values()) for row in average_performance().values()])


@given(TIED)
def test_spearman_and_kendall_are_scipys_with_ties(pairs: list[tuple[int, int]]):
    one, other = np.array(pairs, dtype=np.float64).T
    if len(set(one)) == 1 or len(set(other)) == 1:
        assert math.isnan(spearman(one, other))
        assert math.isnan(kendall(one, other))
        return
    assert spearman(one, other) == pytest.approx(scipy.stats.spearmanr(one, other).statistic)
    assert kendall(one, other) == pytest.approx(scipy.stats.kendalltau(one, other).statistic)


@given(TIED)
def test_midranks_are_scipys_from_the_best_down(pairs: list[tuple[int, int]]):
    scores = np.array(pairs, dtype=np.float64)[:, 0]
    assert midranks(scores) == pytest.approx(scipy.stats.rankdata(-scores))


@given(DISTINCT, st.randoms(use_true_random=False))
def test_equation_2_equals_spearman_where_nothing_ties(values: list[int], shuffler):
    others = list(values)
    shuffler.shuffle(others)
    one, other = array(*values), array(*others)
    assert spearman_without_ties(one, other) == pytest.approx(spearman(one, other), abs=1e-12)


def test_equation_2_on_an_order_worked_by_hand():
    # Ranks 1 2 3 4 5 against 2 1 4 3 5: four differences of 1, so 1 - 6 * 4 / (5 * 24) = 0.8.
    assert spearman_without_ties(array(5, 4, 3, 2, 1), array(4, 5, 2, 3, 1)) == pytest.approx(0.8)


def test_equation_2_is_refused_with_ties_for_which_it_is_another_number():
    with pytest.raises(StudyError, match="mid-ranks"):
        spearman_without_ties(array(1, 1, 2), array(1, 2, 3))


@given(DISTINCT, st.randoms(use_true_random=False))
def test_monotone_transforms_change_nothing_and_reversal_flips_the_sign(
    values: list[int], shuffler
):
    others = list(values)
    shuffler.shuffle(others)
    one, other = array(*values), array(*others)
    for measure in (spearman, kendall):
        value = measure(one, other)
        assert measure(np.arctan(one / 500), other**3) == pytest.approx(value, abs=1e-12)
        assert measure(-one, other) == pytest.approx(-value, abs=1e-12)
        assert measure(other, one) == pytest.approx(value, abs=1e-12)


def test_numbers_that_only_rounding_parts_tie():
    # 0.1 + 0.2 is not 0.3 in binary; as average performances they are the same.
    assert list(midranks(array(0.1 + 0.2, 0.3, 0.1))) == [1.5, 1.5, 3]


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_score_that_is_no_number_is_refused(bad: float):
    with pytest.raises(StudyError, match="1 of 3 scores"):
        spearman(array(1, 2, bad), array(1, 2, 3))
    with pytest.raises(StudyError, match="Leave it out"):
        shuffled(array(1, 2, 3)[None], array(1, bad, 3)[None], draws=9)


def test_other_teachers_or_a_single_one_are_refused():
    with pytest.raises(StudyError, match="same teachers"):
        spearman(array(1, 2, 3), array(1, 2))
    with pytest.raises(StudyError, match="at least two"):
        kendall(array(1), array(1))


def test_the_regret_is_what_the_top_pick_loses_against_the_best():
    assert top_one_regret(array(3, 2, 1), array(8, 10, 4)) == pytest.approx((2, 0.2))
    assert top_one_regret(array(1, 2, 0), array(8, 10, 4)) == (0, 0)
    # Two top picks tie: their mean performance is 7.
    assert top_one_regret(array(3, 1, 3), array(10, 9, 4)).points == pytest.approx(3)
    assert math.isnan(top_one_regret(array(1, 2), array(-1, -3)).share)


def test_the_top_three_hit_is_the_shared_part_of_three():
    observed = array(9, 8, 7, 3, 2, 1)
    assert top_three_hit(array(1, 2, 3, 4, 5, 6), observed) == 0
    assert top_three_hit(array(6, 1, 4, 5, 2, 3), observed) == pytest.approx(2 / 3)
    # Places two and three are shared by teachers 2 to 5: each is half in, two of them are observed.
    assert top_three_hit(array(9, 5, 5, 5, 5, 1), observed) == pytest.approx((1 + 0.5 + 0.5) / 3)
    assert top_three_hit(np.ones(6), observed) == pytest.approx(3 / 6)
    with pytest.raises(StudyError, match="three teachers"):
        top_three_hit(array(1, 2), array(1, 2))


def test_pairs_right_counts_only_the_chosen_pairs():
    predicted, observed = array(4, 3, 1, 2), array(4, 3, 2, 1)
    related = same_family(["a", "a", "b", "b"])
    assert pairs_right(predicted, observed, related) == 0.5
    assert pairs_right(predicted, observed, ~related & ~np.eye(4, dtype=bool)) == 1
    assert pairs_right(np.ones(4), observed, related) == 0.5
    assert math.isnan(pairs_right(predicted, np.ones(4), related))


def test_the_share_of_pairs_right_is_kendall_without_ties():
    one, other = generator(1).normal(size=(2, 12))
    pairs = ~np.eye(12, dtype=bool)
    assert 2 * pairs_right(one, other, pairs) - 1 == pytest.approx(kendall(one, other))


def test_a_resampled_cell_is_the_statistic_of_the_repeated_teachers():
    predicted, observed = generator(2).integers(0, 6, size=(2, 3, 11)).astype(np.float64)
    counts = resample(11, draws=40, rng=generator(3))
    rhos = resampled_spearman(predicted, observed, counts)
    for draw in range(40):
        picked = np.repeat(np.arange(11), counts[draw].astype(int))
        for cell in range(3):
            one, other = predicted[cell][picked], observed[cell][picked]
            assert rhos[draw, cell] == pytest.approx(scipy.stats.spearmanr(one, other).statistic)


def test_a_family_left_out_is_the_plain_value_of_the_rest():
    predicted, observed = generator(4).normal(size=(2, 1, 6))
    names, counts = without_each_family(["b", "a", "b", "a", "c", "c"])
    assert names == ("a", "b", "c")
    rest = [0, 2, 4, 5]
    expected = spearman(predicted[0, rest], observed[0, rest])
    assert resampled_spearman(predicted, observed, counts)[0, 0] == pytest.approx(expected)


def test_families_are_picked_whole():
    families = ["a", "b", "a", "c", "b"]
    counts = resample_families(families, draws=500, rng=generator())
    assert (counts[:, 0] == counts[:, 2]).all()
    assert (counts[:, 1] == counts[:, 4]).all()
    assert (counts[:, [0, 1, 3]].sum(axis=1) == 3).all()
    assert len(np.unique(counts, axis=0)) == 10  # multisets of three of three families


def test_a_draw_of_one_teacher_alone_is_no_agreement():
    counts = array(3, 0, 0)[None]
    predicted, observed = array(1, 2, 3)[None], array(1, 3, 2)[None]
    assert math.isnan(resampled_spearman(predicted, observed, counts)[0, 0])


def test_undefined_draws_are_left_out_unless_they_are_most():
    assert percentile_ends(array(0.5, math.nan, 0.5, 0.5)) == (0.5, 0.5)
    assert math.isnan(percentile_ends(array(0.5, math.nan, math.nan)).low)


def test_the_bootstrap_interval_is_scipys():
    one = generator(5).normal(size=19)
    other = one + generator(6).normal(size=19)
    counts = resample(19, draws=9000, rng=generator(7))
    ends = percentile_ends(resampled_spearman(one[None], other[None], counts)[:, 0])

    def rho(left: Array, right: Array) -> float:
        return float(scipy.stats.spearmanr(left, right).statistic)

    expected = scipy.stats.bootstrap(
        (one, other), rho, n_resamples=2000, paired=True, vectorized=False, method="percentile",
        rng=generator(8),
    ).confidence_interval  # fmt: skip
    assert ends == pytest.approx((expected.low, expected.high), abs=0.04)


def test_one_seed_gives_the_same_draws():
    again = [resample(9, draws=50, rng=generator(11)) for _ in range(2)]
    assert (again[0] == again[1]).all()


def test_the_permutation_test_is_exact_for_few_teachers():
    one, other = generator(9).normal(size=(2, 6))
    seen = spearman(one, other)
    chance = [spearman(one, other[list(order)]) for order in permutations(range(6))]
    expected = np.mean([abs(value) >= abs(seen) - 1e-12 for value in chance])
    got = shuffled(one[None], other[None])
    assert got.p_value == pytest.approx(expected)
    # scipy counts every order too where it is told of more resamples than there are orders.
    reference = scipy.stats.permutation_test(
        (one,), lambda x: scipy.stats.spearmanr(x, other).statistic,
        permutation_type="pairings", n_resamples=1000, vectorized=False,
    )  # fmt: skip
    # scipy doubles the smaller tail; rho's distribution is symmetric where nothing ties.
    assert got.p_value == pytest.approx(reference.pvalue)
    assert got.low == pytest.approx(-got.high)


def test_a_sampled_permutation_p_is_near_the_exact_one_and_never_0():
    one, other = generator(10).normal(size=(2, 9))
    got = shuffled(one[None], other[None], draws=4000).p_value
    chance = [spearman(one, other[generator(seed).permutation(9)]) for seed in range(3000)]
    # The orders that tie with the one seen count, however the processor rounds them.
    expected = np.mean(np.abs(chance) >= abs(spearman(one, other)) - 1e-12)
    assert got == pytest.approx(expected, abs=0.03)
    perfect = shuffled(one[None], one[None], draws=99)
    assert perfect.p_value == pytest.approx(1 / 100)


def test_a_shuffle_serves_all_students_at_once():
    # Students that say the same twice are no more evidence than one.
    one, other = generator(12).normal(size=(2, 7))
    alone = shuffled(one[None], other[None])
    twice = shuffled(np.stack([one, one]), np.stack([other, other]))
    assert twice.p_value == pytest.approx(alone.p_value)


def test_a_constant_has_no_p_value():
    got = shuffled(np.ones((1, 5)), array(1, 2, 3, 4, 5)[None])
    assert all(map(math.isnan, got))


def test_the_adjusted_p_is_how_often_the_strongest_of_all_is_as_strong():
    observed = generator(17).normal(size=6)
    predicted = generator(18).normal(size=(3, 6))
    strongest = [
        max(abs(scipy.stats.spearmanr(row, observed[list(order)]).statistic) for row in predicted)
        for order in permutations(range(6))
    ]
    seen = [scipy.stats.spearmanr(row, observed).statistic for row in predicted]
    expected = [np.mean(np.array(strongest) >= abs(rho) - 1e-9) for rho in seen]
    both = predicted, np.tile(observed, (3, 1))
    chance = permuted_rhos(*both, draws=1, rng=generator())
    assert adjusted_p_values(np.array(seen), chance, teachers=6) == pytest.approx(expected)
    turned = adjusted_p_values(-np.array(seen), chance, teachers=6)
    assert turned == pytest.approx(expected)


def test_a_rho_of_no_order_is_not_among_those_a_p_is_adjusted_for():
    chance = np.array([[0.5, math.nan], [-0.2, math.nan]])
    got = adjusted_p_values(np.array([0.4, math.nan]), chance, teachers=2)
    assert got[0] == 0.5
    assert math.isnan(got[1])


def test_bonett_and_wrights_interval_by_hand():
    # 0.5 shrunk by 6 / (19 * 360) is 0.499561; its z is 0.548721, and half the interval is
    # 1.959964 * sqrt((1 + 0.499561^2 / 2) / 16) = 0.519654.
    assert bonett_wright(0.5, 19) == pytest.approx((0.029059, 0.788855), abs=2e-5)
    # Eight teachers in one order: 1 - 6 / 504 = 0.988095, z 2.559033, half 1.069134.
    assert bonett_wright(1.0, 8) == pytest.approx((0.903345, 0.998586), abs=5e-4)
    assert all(map(math.isnan, (*bonett_wright(1.0, 7), *bonett_wright(math.nan, 19))))


def test_an_interval_has_the_outer_ends_of_the_draws_and_of_the_formula():
    low, high = bonett_wright(0.5, 19)
    assert rho_interval(0.5, np.full(9, 0.5), teachers=19) == (low, high)
    assert rho_interval(0.5, np.full(9, -0.9), teachers=19) == (-0.9, high)
    assert rho_interval(0.5, np.full(9, 0.95), teachers=19) == (low, 0.95)
    assert all(map(math.isnan, rho_interval(1.0, np.ones(9), teachers=4)))


def test_relatives_widen_and_students_narrow_an_interval():
    alone = generator(19).normal(size=(500, 2))
    one = np.var(alone, axis=0).mean()
    shared = np.var(alone.mean(axis=1)) / one
    assert design_effect(alone, alone, 0) == pytest.approx(shared)
    wider = design_effect(alone, 2 * alone, 5)
    assert wider == pytest.approx(shared * 4 * 5 / 4)
    assert design_effect(alone, alone / 9, 5) == pytest.approx(shared)  # relatives never narrow it


def test_the_interval_holds_the_true_rho_about_as_often_as_it_says():
    # Bivariate normal with r = 0.9: rho = 6 / pi * asin(r / 2). 300 samples: a standard error of 0.013.
    truth, rng = 6 / math.pi * math.asin(0.45), generator(13)
    one, noise = rng.normal(size=(2, 300, 9))
    other = 0.9 * one + math.sqrt(0.19) * noise
    draws = resampled_spearman(one, other, resample(9, draws=300, rng=rng))
    inside = 0
    for sample, pair in enumerate(zip(one, other, strict=True)):
        low, high = rho_interval(spearman(*pair), draws[:, sample], teachers=9)
        inside += low <= truth <= high
    assert inside / 300 >= 0.93


def test_the_bootstrap_interval_covers_the_true_rho_at_least_as_often_as_it_says():
    # As above with r = 0.88. It is a little wide: ties among the copies of a teacher pull rho down.
    truth, rng = 6 / math.pi * math.asin(0.44), generator(16)
    one, noise = rng.normal(size=(2, 400, 19))
    other = 0.88 * one + math.sqrt(1 - 0.88**2) * noise
    draws = resampled_spearman(one, other, resample(19, draws=500, rng=rng))
    low, high = np.quantile(draws, (0.025, 0.975), axis=0)
    assert 0.93 <= np.mean((low <= truth) & (truth <= high)) <= 0.995


def test_the_prior_never_sees_its_own_student():
    observed = table_seven()
    prior = leave_one_out_prior(observed)
    changed = observed.copy()
    changed[2] = generator(14).normal(size=19)
    assert (leave_one_out_prior(changed)[2] == prior[2]).all()
    assert (leave_one_out_prior(changed)[0] != prior[0]).any()
    with pytest.raises(StudyError, match="two students"):
        leave_one_out_prior(observed[:1])


def test_the_prior_agrees_with_table_7_at_0_922_on_average():
    # Recomputed from table 7 (mean rank of AP over the other four students) with scipy 1.16; the
    # figure of about 0.922 is that of the project's notes on baselines.
    observed = table_seven()
    rhos = [spearman(*pair) for pair in zip(leave_one_out_prior(observed), observed, strict=True)]
    assert rhos == pytest.approx([0.945474, 0.905578, 0.878456, 0.946445, 0.936376], abs=1e-6)
    assert np.mean(rhos) == pytest.approx(0.922466, abs=1e-6)


@pytest.mark.parametrize(
    "printed, swaps",
    [
        # Table 4, column CAR. A swap of ranks i and j adds 2 (i - j)^2 to the sum of d^2, which is
        # (1 - rho) 1140 for n = 19: 132, 114, 216, 108 and 64.
        (0.8842, [(0, 8), (1, 2), (3, 4)]),
        (0.9000, [(0, 7), (1, 3), (8, 10)]),
        (0.8105, [(0, 10), (1, 3), (5, 7)]),
        (0.9053, [(0, 7), (1, 2), (8, 10)]),
        (0.9439, [(0, 4), (5, 9)]),
    ],
)
def test_table_4s_car_is_equation_2_over_nineteen_teachers(
    printed: float, swaps: list[tuple[int, int]]
):
    order = np.arange(19.0)
    for one, other in swaps:
        order[[one, other]] = order[[other, one]]
    for measure in (spearman, spearman_without_ties):
        assert round(measure(order, np.arange(19.0)), 4) == printed


@given(arrays(np.float64, (4, 8), elements=st.floats(-10, 10).map(lambda x: round(x, 1))))
def test_every_statistic_stays_in_its_range(scores: Array):
    predicted, observed = scores[:2], scores[2:]
    counts = resample(8, draws=20, rng=generator())
    values = resampled_spearman(predicted, observed, counts)
    assert np.all(np.isnan(values) | (np.abs(values) <= 1))
    assert 0 <= top_three_hit(predicted[0], observed[0]) <= 1
    assert top_one_regret(predicted[0], observed[0]).points >= 0
