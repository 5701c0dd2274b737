"""Races: bounds that hold at every look, bets, covariates, and who leaves when."""

import itertools
import math

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.optimize import brentq
from scipy.stats import norm

from preceptor.errors import StudyError
from preceptor.ranking.measurements import Common
from preceptor.ranking.metrics import METRICS
from preceptor.ranking.quantities import formed, measured
from preceptor.ranking.race.betting import Bets, Ratio
from preceptor.ranking.race.contrasts import contrasts
from preceptor.ranking.race.covariates import adjusted
from preceptor.ranking.race.options import RaceOptions
from preceptor.ranking.race.race import Race
from preceptor.ranking.race.sequences import looks, reach, tuning, width_with

Array = NDArray[np.float64]
CAR, REWARD = METRICS["car"], METRICS["reward"]


def common(**values: Array) -> Common:
    return Common(next(iter(values.values())).shape[1], values, {}, (), ())


def run(race: Race, every: int | None = None, **values: Array) -> Race:
    """Look as a race does, or after every so many rows, until it ends."""
    rows, before = next(iter(values.values())).shape[1], 0
    ends = looks(race.options.start, rows) if every is None else range(every, rows + 1, every)
    for n in ends:
        at = [race.teachers.index(name) for name in race.running]
        seen = {name: array[at, :n] for name, array in values.items()}
        race.look(common(**seen), rows=n, fresh=n - before)
        before = n
        if race.ending:
            break
    return race


@pytest.mark.parametrize("alpha", [0.05, 0.005])
@pytest.mark.parametrize("n", [50, 700, 30_000])
def test_the_bound_is_at_most_a_little_above_the_exact_boundary_of_its_mixture(
    n: int, alpha: float
) -> None:
    prior = tuning(alpha)

    def wealth(total: float) -> float:
        """Half-normal mixture of the exponential martingale of a sum with variance n."""
        scaled = total / math.sqrt(n + prior)
        return float(
            2 * math.sqrt(prior / (n + prior)) * math.exp(scaled**2 / 2) * norm.cdf(scaled)
        )

    exact = brentq(lambda total: wealth(total) - 1 / alpha, 0, 10 * math.sqrt(n))
    found = reach(n, alpha) * math.sqrt(n)
    assert exact <= found <= 1.03 * exact


def test_a_pool_is_known_when_all_of_it_is_seen_and_a_large_pool_is_a_population() -> None:
    assert reach(100, 0.05, pool=100) == 0
    assert reach(100, 0.05, pool=99) == 0
    assert reach(100, 0.05, pool=10**9) == pytest.approx(reach(100, 0.05), rel=1e-6)
    assert reach(900, 0.05, pool=1000) < reach(900, 0.05) / 2


@pytest.mark.parametrize("known", [0.0005, 0.005])
def test_a_mean_partly_known_of_all_rows_is_outside_its_bound_no_more_often_than_allowed(
    known: float,
) -> None:
    rng = np.random.default_rng(5)
    fixed = rng.normal(size=4000) * math.sqrt(known)
    total, outside, before = np.zeros(4000), np.zeros(4000, dtype=bool), 0
    for n in looks(50, 3000):
        total += rng.normal(size=4000) * math.sqrt(n - before)
        error = np.array([1 / math.sqrt(n)])
        outside |= fixed + total / n > width_with(np.sqrt([known]), error, n, 0.05)[0]
        before = n
    assert 0.001 < outside.mean() <= 0.05


def test_a_bound_with_nothing_known_is_that_of_a_mean_and_with_all_known_the_normal_one() -> None:
    nothing, some = np.zeros(1), np.ones(1)
    assert width_with(nothing, some, 300, 0.01)[0] == pytest.approx(reach(300, 0.01), rel=0.002)
    assert width_with(some, nothing, 300, 0.01)[0] == pytest.approx(norm.isf(0.01))


def test_looks_grow_by_a_tenth_and_end_with_the_last_row() -> None:
    found = looks(50, 1000)
    assert found[0] == 50 and found[-1] == 1000
    assert all(b <= math.ceil(1.1 * a) for a, b in itertools.pairwise(found))
    assert looks(50, 30) == [30]


@pytest.mark.parametrize("target", ["population", "pool"])
def test_the_best_teacher_is_dropped_in_at_most_one_race_of_twenty(target: str) -> None:
    rng = np.random.default_rng(0)
    dropped = 0
    for _ in range(100):
        rewards = np.exp(rng.normal(size=(3, 300)) * 0.8 + rng.normal(size=300) * 0.5)
        # Equal in the population: the true best of the pool is whoever it is, of the population the first.
        best = str(rewards.mean(axis=1).argmax()) if target == "pool" else "0"
        race = Race(REWARD, "012", 300, RaceOptions(target=target))
        dropped += best not in run(race, reward=rewards).running
    # One in twenty gives more than 11 of 100 in 0.4% of such tests.
    assert dropped <= 11


def test_a_better_teacher_wins_and_who_beat_whom_is_said() -> None:
    rng = np.random.default_rng(1)
    loss = rng.gamma(4, 0.2, size=(3, 3000))
    reward = rng.normal(np.array([[2.0], [1.7], [1.0]]), 0.5, size=(3, 3000))
    race = run(Race(CAR, "abc", 3000), reward=reward, loss=loss)
    assert race.ending == "best" and race.running == ("a",)
    assert {name for look in race.looks for name in look.dropped} == {"b", "c"}
    left = next(look.rows for look in race.looks if "c" in look.dropped)
    assert left < race.looks[-1].rows
    last = race.looks[-1]
    gap = last.behind["b"]
    n = last.rows
    mean = reward[:, :n].mean(axis=1) / (1 + 3 * loss[:, :n].mean(axis=1))
    assert last.values["a"] == pytest.approx(mean[0]) and gap.value == pytest.approx(
        mean[0] - mean[1]
    )
    # The delta method, written out.
    below = 1 + 3 * loss[:, :n].mean(axis=1)[:, None]
    psi = (reward[:, :n] - mean[:, None] * (1 + 3 * loss[:, :n])) / below
    width = reach(n, 0.025) * (psi[0] - psi[1]).std(ddof=1) / math.sqrt(n)
    assert gap.low == pytest.approx(gap.value - width, rel=1e-4)
    assert gap.high == pytest.approx(gap.value + width, rel=1e-4)
    assert gap.low > 0


def test_a_metric_of_which_less_is_better_races_downwards() -> None:
    rng = np.random.default_rng(2)
    loss = rng.gamma(4, np.array([[0.2], [0.3]]), size=(2, 1000))
    race = run(Race(METRICS["loss"], "ab", 1000), loss=loss)
    assert race.running == ("a",)
    assert race.looks[-1].values["a"] < race.looks[-1].values["b"]
    assert race.looks[-1].behind["b"].value > 0


def test_teachers_within_the_tolerance_end_the_race_as_equal() -> None:
    rng = np.random.default_rng(3)
    reward = rng.normal(np.array([[1.0], [0.999], [0.5]]), 0.3, size=(3, 20_000))
    race = run(Race(REWARD, "abc", 20_000, RaceOptions(tolerance=0.05)), reward=reward)
    assert race.ending == "equal" and set(race.running) == {"a", "b"}
    assert race.looks[-1].rows < 20_000


def test_texts_that_are_the_same_never_drop_each_other() -> None:
    rng = np.random.default_rng(4)
    one = rng.normal(1, 0.3, size=500)
    race = run(Race(REWARD, "ab", 500), reward=np.stack([one, one]))
    assert race.ending == "rows" and race.running == ("a", "b")


def test_a_difference_that_rests_on_one_row_drops_nobody() -> None:
    reward = np.zeros((2, 200))
    reward[0, 10] = 1e6
    reward[:, ::7] += 0.001
    race = run(Race(REWARD, "ab", 200), reward=reward)
    assert race.running == ("a", "b")


def test_what_is_known_of_every_row_shortens_the_race_and_keeps_its_answer() -> None:
    rng = np.random.default_rng(5)
    reward = rng.beta(0.6, 0.6, size=(4, 3000))
    loss = rng.normal(1.0, 0.2, size=(4, 3000)).clip(0.1) + np.array([[0.0], [0.1], [0.1], [0.1]])
    options = RaceOptions(target="pool")
    plain = run(Race(CAR, "abcd", 3000, options), reward=reward, loss=loss)
    known = run(Race(CAR, "abcd", 3000, options, {"reward": reward}), reward=reward, loss=loss)
    truth = reward.mean(axis=1) / (1 + 3 * loss.mean(axis=1))
    assert known.running == ("abcd"[truth.argmax()],)
    assert known.looks[-1].rows < 0.5 * plain.looks[-1].rows


def test_covariates_that_part_what_two_teachers_share_are_left_out() -> None:
    rng = np.random.default_rng(12)
    hard, noise = rng.normal(size=(2, 2000))
    reward = hard + rng.normal(np.array([[0.1], [0.0]]), 0.3, size=(2, 2000))
    plain = run(Race(REWARD, "ab", 2000), reward=reward)
    told = run(Race(REWARD, "ab", 2000, known={"length": np.stack([hard, noise])}), reward=reward)
    assert not told.known and told.looks == plain.looks


def test_a_measure_known_of_every_row_has_its_mean_over_all_rows_and_no_error_left() -> None:
    rng = np.random.default_rng(6)
    reward, length = rng.normal(size=(2, 100)), rng.gamma(2, 50, size=(2, 100))
    seen = common(reward=reward[:, :60])
    rest, explained = adjusted(measured(seen), {"reward": reward, "length": length})
    assert rest["reward"].point == pytest.approx(reward.mean(axis=1))
    assert not rest["reward"].influence.any()
    # By ordinary least squares on the rows seen.
    rest, explained = adjusted(measured(seen), {"length": length})
    for row in range(2):
        slope, constant = np.polyfit(length[row, :60], reward[row, :60], 1)
        assert rest["reward"].point[row] == pytest.approx(constant + slope * length[row].mean())
        left = reward[row, :60] - constant - slope * length[row, :60]
        assert rest["reward"].influence[row] == pytest.approx(left * math.sqrt(59 / 58))
        part = slope * (length[row] - length[row].mean())
        assert explained["reward"].influence[row] == pytest.approx(part)


def test_contrasts_are_means_and_errors_of_differences() -> None:
    rng = np.random.default_rng(7)
    values = rng.exponential(size=(3, 80))
    found = contrasts(formed(REWARD, measured(common(reward=values))), np.array([1.0, 1.1, 1.0]))
    difference = values[0] - 1.1 * values[1]
    assert found.gap[0, 1] == pytest.approx(difference.mean())
    assert found.error[0, 1] == pytest.approx(difference.std(ddof=1) / math.sqrt(80))
    centred = difference - difference.mean()
    assert found.skewness[0, 1] == pytest.approx((centred**3).mean() / (centred**2).mean() ** 1.5)


def test_wealth_is_the_product_over_rows_of_one_plus_stake_times_gain() -> None:
    rng = np.random.default_rng(8)
    right = (rng.random((2, 120)) < np.array([[0.8], [0.5]])).astype(float)
    bets = Bets(2, 0.05)
    for part in (slice(0, 7), slice(7, 120)):
        bets.extend(Ratio(right[:, part], np.ones_like(right[:, part]), 1, 1), [0, 1])
    wealth, total, squares = 1.0, 0.0, 0.25
    for row, gain in enumerate(right[0] - right[1], 1):
        stake = min(max(total / row / (squares / row), 0.0), 0.5)
        wealth *= 1 + stake * gain
        total, squares = total + gain, squares + gain**2
    assert bets.duel.log[0, 1, 0, 0] == pytest.approx(math.log(wealth))


@pytest.mark.parametrize("pool", [None, 500])
def test_bets_agree_with_those_of_confseq(pool: int | None) -> None:
    betting = pytest.importorskip(
        "confseq.betting", reason="confseq is an oracle, not a dependency"
    )
    rng = np.random.default_rng(9)
    gains = rng.random(400) - rng.random(400) * 0.8
    before = np.concatenate([[0], np.cumsum(gains)[:-1]])
    squares = 0.25 + np.concatenate([[0], np.cumsum(gains**2)[:-1]])
    fair = np.zeros(400) if pool is None else before / (pool - np.arange(400))

    def stakes(x: Array, m: float) -> Array:
        # Differences within -1..1, moved to 0..1 with the null mean 1/2: gains are 2 (x - m).
        return np.asarray(2 * np.clip(before / squares, 0, 0.5 / (1 + np.abs(fair))))

    theirs = betting.betting_mart(
        (gains + 1) / 2, 0.5, N=pool, lambdas_fn_positive=stakes, theta=1, trunc_scale=1
    )
    bets = Bets(2, 0.05, pool=pool)
    above = np.stack([np.maximum(gains, 0), np.maximum(-gains, 0)])
    bets.extend(Ratio(above, np.ones_like(above), 1, 1), [0, 1])
    assert bets.duel.log[0, 1, 0, 0] == pytest.approx(math.log(theirs[-1]))


@pytest.mark.parametrize("target", ["population", "pool"])
def test_bets_on_car_find_the_better_teacher_and_never_both(target: str) -> None:
    rng = np.random.default_rng(10)
    reward = rng.beta(2, np.array([[2.0], [4.0]]), size=(2, 800))
    loss = rng.gamma(8, 0.1, size=(2, 800))
    options = RaceOptions(method="betting", max_loss=4, target=target)
    race = run(Race(CAR, "ab", 800, options), every=100, reward=reward, loss=loss)
    assert race.ending == "best" and race.running == ("a",)


def test_bets_on_equal_right_and_wrong_answers_err_in_at_most_one_race_of_twenty() -> None:
    rng = np.random.default_rng(11)
    named = 0
    for _ in range(150):
        right = (rng.random((2, 200)) < 0.9).astype(float)
        race = Race(REWARD, "ab", 200, RaceOptions(method="betting"))
        named += run(race, every=25, reward=right).ending == "best"
    # One in twenty gives more than 15 of 150 in 0.4% of such tests.
    assert named <= 15


def test_betting_refuses_what_it_has_no_bounds_for() -> None:
    options = RaceOptions(method="betting")
    with pytest.raises(StudyError, match="needs a bound on the loss"):
        Race(CAR, "ab", 100, options)
    with pytest.raises(StudyError, match="not for rsr"):
        Race(METRICS["rsr"], "ab", 100, options)
    with pytest.raises(StudyError, match="found rewards from -1 to 3"):
        rewards = np.array([[3.0, 0.5], [-1.0, 0.5]])
        run(Race(REWARD, "ab", 2, options), reward=rewards)
