"""The common set holds exactly the instructions everyone has, or is refused with who costs what."""

import numpy as np
import pytest

from preceptor.config.metrics import metric_named
from preceptor.errors import StudyError
from preceptor.ranking.measurements import Measurements, common_instructions, require_measures
from preceptor.ranking.metrics import CompatibilityAdjustedReward

GAP = np.nan


def measured(reward, loss=None, *, instructions=None, **more) -> Measurements:
    values = {"reward": np.array(reward)} | ({} if loss is None else {"loss": np.array(loss)})
    teachers = tuple("ABCDEF"[: len(reward)])
    return Measurements(teachers, instructions or len(reward[0]), values, **more)


def test_only_instructions_with_every_needed_measure_of_every_teacher_are_kept():
    given = measured(
        [[1.0, 2.0, GAP, 4.0, 5.0], [1.0, 2.0, 3.0, 4.0, 5.0]],
        [[1.0, 2.0, 3.0, 4.0, 5.0], [GAP, 7.0, 8.0, 9.0, 10.0]],
    )
    common = common_instructions(given, ["reward", "loss"], min_coverage=0.5)
    assert common.n == 3
    assert common.values["loss"].tolist() == [[2.0, 4.0, 5.0], [7.0, 9.0, 10.0]]
    assert common.values["reward"].tolist() == [[2.0, 4.0, 5.0], [2.0, 4.0, 5.0]]


def test_a_measure_nobody_needs_costs_no_instruction_and_is_told_of():
    given = measured([[1.0, 2.0, 3.0]], [[GAP, 2.0, 3.0]])
    common = common_instructions(given, ["reward"], min_coverage=0.5)
    assert common.n == 3
    assert list(common.values) == ["reward"]
    assert common.notes == ("Not shown, because some responses lack it: loss.",)


def test_a_gap_in_a_denominator_is_a_gap():
    given = measured(
        [[1.0, 2.0, 3.0]], [[1.0, 2.0, 3.0]], denominators={"loss": np.array([[5.0, GAP, 6.0]])}
    )
    common = common_instructions(given, ["loss"], min_coverage=0.5)
    assert common.denominators["loss"].tolist() == [[5.0, 6.0]]


def test_losses_are_told_per_teacher_and_reason_most_first():
    given = measured(
        [[1.0, GAP, 3.0, 4.0, 5.0], [1.0, 2.0, GAP, GAP, 5.0]],
        dropped={"B": {"missing": 1, "empty": 1}},
    )
    common = common_instructions(given, ["reward"], min_coverage=0.1)
    assert common.dropped == ({"no reward": 1}, {"missing": 1, "empty": 1})
    assert common.notes == (
        "3 of 5 instructions are left out because a teacher lacks them: "
        "'B' 2 (missing 1, empty 1); 'A' 1 (no reward 1).",
    )


def test_a_loss_that_no_reason_covers_is_told_as_unexplained():
    given = measured([[1.0, GAP, GAP, 4.0]], instructions=6, dropped={"A": {"empty": 1}})
    common = common_instructions(given, ["reward"], min_coverage=0.1)
    assert common.dropped == ({"empty": 1, "unexplained": 1},)


def test_truncated_responses_are_kept_and_told():
    given = measured([[1.0, 2.0]], truncated={"A": 2})
    common = common_instructions(given, ["reward"], min_coverage=0.5)
    assert common.n == 2
    assert common.notes == (
        "Responses cut at the maximum length and judged by their start: 'A' 2.",
    )


def test_complete_measurements_carry_no_note():
    common = common_instructions(measured([[1.0, 2.0]]), ["reward"], min_coverage=1.0)
    assert common.notes == ()
    assert common.dropped == ({},)


def test_too_low_coverage_is_refused_and_names_the_teacher_that_costs_the_most():
    given = measured(
        [
            [1.0, GAP, 3.0, 4.0, 5.0, 6.0],
            [1.0, 2.0, GAP, GAP, GAP, 6.0],
            [1.0, 2.0, 3.0, 4.0, 5.0, 6.0],
        ],
        dropped={"B": {"null reward": 3}},
    )
    with pytest.raises(StudyError) as refusal:
        common_instructions(given, ["reward"], min_coverage=0.5)
    message = str(refusal.value)
    assert "Only 2 of 6 instructions" in message
    assert "at least 3" in message
    assert "'B' 3 (null reward 3); 'A' 1 (no reward 1)" in message
    assert "'B' costs the most: 5 could be compared without it" in message


def test_the_costliest_teacher_is_the_one_whose_absence_frees_the_most_not_the_one_with_most_gaps():
    given = measured(
        [
            [GAP, GAP, GAP, 4.0, 5.0, 6.0],
            [GAP, GAP, GAP, 4.0, 5.0, 6.0],
            [1.0, 2.0, 3.0, GAP, GAP, 6.0],
        ]
    )
    with pytest.raises(StudyError, match="'C' costs the most: 3 could be compared without it"):
        common_instructions(given, ["reward"], min_coverage=0.5)


def test_coverage_counts_the_instructions_asked_for():
    given = measured([[1.0, 2.0, 3.0]], instructions=7)
    with pytest.raises(StudyError, match="Only 3 of 7"):
        common_instructions(given, ["reward"], min_coverage=0.5)
    assert common_instructions(given, ["reward"], min_coverage=0.4).n == 3


def test_one_common_instruction_is_refused_at_any_coverage():
    given = measured([[1.0, GAP], [1.0, 2.0]])
    with pytest.raises(StudyError, match="at least 2"):
        common_instructions(given, ["reward"], min_coverage=0.0)


def test_a_teacher_without_any_data_is_named():
    given = measured([[1.0, 2.0], [1.0, 2.0]], [[1.0, 2.0], [GAP, GAP]])
    with pytest.raises(StudyError, match="No loss at all for 'B'"):
        common_instructions(given, ["reward", "loss"], min_coverage=0.0)


@pytest.mark.parametrize(
    ("kind", "measure", "remedy"),
    [
        (
            "car",
            "reward",
            "--reward-column NAME, --reward-model ID, or a reference answer in every row",
        ),
        ("loss", "loss", "--student"),
        ("ifd", "ifd", "--student"),
    ],
)
def test_a_missing_measure_names_metric_measure_and_remedy(kind, measure, remedy):
    with pytest.raises(StudyError, match=f"'{kind}' needs the measure '{measure}'.*{remedy}"):
        require_measures([metric_named(kind)], ["length"])


def test_present_measures_satisfy():
    require_measures([CompatibilityAdjustedReward()], ["loss", "reward"])


def test_repeated_teachers_are_refused():
    with pytest.raises(StudyError, match="each label once"):
        Measurements(("A", "A"), 1, {"reward": np.ones((2, 1))})


def test_no_teachers_are_refused():
    with pytest.raises(StudyError, match="at least one"):
        Measurements((), 1, {"reward": np.ones((0, 1))})


def test_measures_of_other_shapes_are_refused():
    with pytest.raises(StudyError, match=r"'loss' has shape \(1, 3\)"):
        measured([[1.0, 2.0]], [[1.0, 2.0, 3.0]])
    with pytest.raises(StudyError, match="at most 1 instructions"):
        measured([[1.0, 2.0]], instructions=1)


def test_an_infinite_number_is_refused():
    with pytest.raises(StudyError, match="'reward' has an infinite number"):
        measured([[1.0, np.inf]])


def test_denominators_of_rewards_or_of_nothing_are_refused():
    for name in ("reward", "loss"):
        with pytest.raises(StudyError, match=name):
            measured([[1.0, 2.0]], denominators={name: np.ones((1, 2))})
