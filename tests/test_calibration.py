"""Calibration finds a beta that is really there, judges it where it was not chosen, and owns up to noise."""

import math

import numpy as np
import pytest

from preceptor.agreement.bootstrap import resample
from preceptor.agreement.calibration import (
    BETAS,
    DEFAULT,
    MEAN_TRANSFORMS,
    Calibration,
    Candidate,
    HeldOut,
    Labels,
    calibrate,
    candidates,
    fit_beta,
    fitted,
    hold_out_families,
    hold_out_students,
)
from preceptor.agreement.correlation import Array, spearman
from preceptor.errors import StudyError

FAMILIES = [name for name in "abcdef" for _ in range(4)]
STUDENTS = ["one", "two", "three"]


def data(beta: float, *, noise: float = 0.0, seed: int = 0) -> tuple[Array, Array, Array]:
    """Return rewards, losses and outcomes of 3 students and 24 teachers, the outcomes made by `beta`."""
    rng = np.random.default_rng(seed)
    reward = np.tile(rng.uniform(1, 3, size=24), (3, 1))
    loss = rng.uniform(0.3, 2.5, size=(3, 24))
    observed = reward / (1 + beta * loss)
    return reward, loss, observed + noise * rng.normal(size=observed.shape)


def calibrated(reward: Array, loss: Array, observed: Array) -> Calibration:
    counts = resample(24, draws=300, rng=np.random.default_rng(1))
    labels = Labels(STUDENTS, FAMILIES)
    return calibrate(reward, loss, observed, counts=counts, labels=labels, tried=candidates())


def test_candidates_are_every_pair_and_the_default_comes_first():
    found = candidates()
    assert found[0] == DEFAULT == Candidate(3.0, "raw")
    assert set(found) == {Candidate(beta, name) for beta in BETAS for name in MEAN_TRANSFORMS}
    assert candidates([1.0], ["sigmoid"]) == (DEFAULT, Candidate(1.0, "sigmoid"))


@pytest.mark.parametrize(
    "wrong", [{"transforms": ["sigmoyd"]}, {"betas": [-1.0]}, {"betas": [math.nan]}]
)
def test_candidates_that_are_no_reading_of_car_are_refused(wrong: dict[str, list]):
    with pytest.raises(StudyError, match=r"sigmoid|beta"):
        candidates(**wrong)


@pytest.mark.parametrize("beta", [0.0, 0.3, 1.0, 10.0])
def test_the_beta_that_made_the_outcomes_is_found(beta: float):
    reward, loss, observed = data(beta)
    assert fit_beta(reward, loss, observed, tried=candidates(transforms=["raw"])).beta == beta


def test_the_default_stands_unless_it_is_beaten():
    # With one loss for all teachers every beta gives the same order.
    reward, _, observed = data(0.0)
    assert fit_beta(reward, np.ones_like(reward), observed, tried=candidates()) == DEFAULT


def test_minmax_gives_shift_mins_order_so_that_one_of_them_is_tried():
    reward, loss, observed = data(1.0, noise=0.1)
    for beta in BETAS:
        rhos = [
            spearman(fitted(reward, loss, Candidate(beta, name))[0], observed[0])
            for name in ("shift-min", "minmax")
        ]
        assert rhos[0] == rhos[1]


def test_a_student_held_out_has_no_say_in_the_choice():
    reward, loss, observed = data(10.0)
    observed[0] = data(0.0)[2][0]
    held = hold_out_students(
        reward, loss, observed, tried=candidates(transforms=["raw"]), names=STUDENTS
    )
    assert [one.name for one in held] == STUDENTS
    assert held[0].chosen.beta == 10.0
    assert held[0].value == spearman(fitted(reward, loss, held[0].chosen)[0], observed[0]) < 1
    assert held[0].default == spearman(fitted(reward, loss, DEFAULT)[0], observed[0])


def test_a_family_held_out_has_no_say_in_the_choice():
    reward, loss, observed = data(10.0)
    members = np.array(FAMILIES) == "b"
    observed[:, members] = data(0.0)[2][:, members]
    held = hold_out_families(
        reward, loss, observed, tried=candidates(transforms=["raw"]), families=FAMILIES
    )
    assert [one.name for one in held] == sorted(set(FAMILIES))
    assert {one.name: one.chosen.beta for one in held}["b"] == 10.0
    assert held[1].value < 1
    # Other families are judged on pairs with members of b too, so none need be perfect.
    assert all(0 <= one.value <= 1 for one in held)


def test_a_single_student_or_family_cannot_be_held_out():
    reward, loss, observed = (values[:1] for values in data(1.0))
    assert hold_out_students(reward, loss, observed, tried=candidates(), names=["one"]) == ()
    assert hold_out_families(reward, loss, observed, tried=candidates(), families=["a"] * 24) == ()


def test_a_beta_far_from_the_default_is_told_apart():
    found = calibrated(*data(0.0))
    assert found.best.beta == 0.0
    assert found.ends.low > 0
    assert found.difference == pytest.approx(1 - found.tried[0].rho)
    assert sum(one.chosen for one in found.tried) == pytest.approx(1)
    assert "more than the choice of 24 teachers explains" in found.verdict()


def test_noise_is_not_taken_for_a_better_beta():
    reward, loss, _ = data(3.0)
    observed = np.random.default_rng(5).normal(size=reward.shape)
    found = calibrated(reward, loss, observed)
    assert found.difference > 0  # the best of thirty always looks better where it was chosen
    assert found.ends.low <= 0 or np.mean([one.value - one.default for one in found.students]) <= 0
    assert "too few to tell it from the default: keep beta 3" in found.verdict()


def test_an_in_sample_gain_that_is_lost_on_what_was_held_out_is_no_gain():
    chosen = Candidate(30.0, "raw")
    loses = (HeldOut("one", chosen, 0.5, 0.6), HeldOut("two", chosen, 0.6, 0.6))
    found = calibrated(*data(0.0))
    worse = Calibration(
        found.tried, chosen, 0.1, type(found.ends)(0.01, 0.2), loses, (), found.teachers
    )
    assert "keep beta 3" in worse.verdict()
    assert "-0.050 in rho on students held out" in worse.verdict()


def test_the_default_is_not_beaten_by_its_own_outcomes():
    found = calibrated(*data(3.0))
    assert found.best == DEFAULT
    assert found.difference == 0
    assert "No candidate agrees better" in found.verdict()


def test_a_missing_mean_is_refused():
    reward, loss, observed = data(1.0)
    loss[0, 0] = math.nan
    with pytest.raises(StudyError, match="NaN"):
        fit_beta(reward, loss, observed, tried=candidates())
