"""Predicted and observed orders meet on the same teachers and students, and nothing is dropped unsaid."""

from collections.abc import Mapping

import numpy as np
import pytest
import scipy.stats

from preceptor.agreement.bootstrap import permutation_test, permuted_rhos
from preceptor.agreement.compare import Comparison, compare
from preceptor.agreement.orders import ANY_STUDENT, Prediction
from preceptor.agreement.table import AgreementTable
from preceptor.errors import StudyError
from table_seven import TEACHERS, average_performance

AP = average_performance()
Columns = Mapping[str, list[float | None]]


def prediction(
    columns: Columns, student: str = ANY_STUDENT, *, teachers: tuple[str, ...] = TEACHERS, **fields
) -> Prediction:
    names = list(columns)
    rows = zip(teachers, *columns.values(), strict=True)
    values = {teacher: dict(zip(names, numbers, strict=True)) for teacher, *numbers in rows}
    return Prediction(student, fields.pop("file", "a.json"), values, **fields)


def random_columns(*names: str, seed: int = 0) -> dict[str, list[float]]:
    rng = np.random.default_rng(seed)
    return {name: rng.uniform(1, 2, size=19).tolist() for name in names}


def titles(comparison: Comparison) -> list[str]:
    return [column.title for column in comparison.columns]


def test_a_proxy_is_judged_on_every_student_beside_the_baselines():
    found = compare([prediction(random_columns("car", "loss"), "google/gemma-3-270m")], AP)
    assert found.students == tuple(AP)
    assert found.teachers == TEACHERS
    assert titles(found) == ["car", "loss", "size", "prior"]
    assert (found.columns[1].values == found.columns[1].values[0]).all()
    assert (found.columns[1].predicted == -found.columns[1].values).all()


def test_a_students_own_prediction_is_judged_on_that_student_alone():
    ones = [prediction(random_columns("car", seed=k), student) for k, student in enumerate(AP)]
    found = compare(ones, AP)
    assert titles(found) == ["car", "size", "prior"]
    for k, row in enumerate(found.columns[0].values):
        assert row.tolist() == random_columns("car", seed=k)["car"]
    hub = compare([prediction(random_columns("car"), "Qwen/Qwen2.5-3B")], AP)
    assert hub.students == ("Qwen2.5-3B",)
    assert (
        "Students without a prediction in every column: Qwen2-1.5B, Gemma 2-2B" in hub.left_out[0]
    )


def test_the_prior_of_one_row_still_comes_from_all_the_other_students():
    alone = compare([prediction(random_columns("car"))], AP, students=["Qwen/Qwen2.5-3B"])
    everyone = compare([prediction(random_columns("car"))], AP)
    assert alone.students == ("Qwen2.5-3B",)
    assert (alone.column("prior").values[0] == everyone.column("prior").values[2]).all()
    # The leave-one-student-out prior of Qwen2.5-3B on table 7; see test_agreement.
    table = AgreementTable(alone, draws=100)
    assert table.cells[0][-1].rho == pytest.approx(0.878456, abs=1e-6)


def test_teachers_on_one_side_only_are_listed():
    teachers = (*TEACHERS[:5], "stranger")
    found = compare([prediction({"car": [1.0, 2.0, 3.0, 4.0, None, 6.0]}, teachers=teachers)], AP)
    assert found.teachers == TEACHERS[:4]
    assert any("predicted but not observed: stranger" in note for note in found.left_out)
    assert any(
        "observed but not predicted: Gemma-2-27b-it, Llama-3-8B" in note for note in found.left_out
    )
    assert "Left out, no car in 'a.json': Gemma-2-9b-it." in found.left_out


def test_a_teacher_that_one_student_was_not_observed_with_is_left_out_for_all_and_listed():
    partial = {"A": AP["Qwen2-1.5B"], "B": dict(list(AP["Gemma 2-2B"].items())[:-1])}
    found = compare([prediction(random_columns("car"))], partial)
    assert found.teachers == TEACHERS[:-1]
    assert "Left out, not observed for B: Qwen2.5-72B-Instruct." in found.left_out
    # For A alone it stays, and B can be no peer of the prior.
    alone = compare([prediction(random_columns("car"))], partial, students=["A"])
    assert alone.teachers == TEACHERS
    assert titles(alone) == ["car", "size"]
    assert any(note.startswith("No prior") for note in alone.left_out)


def test_a_size_that_is_not_known_costs_the_baseline_and_not_the_teacher():
    teachers = tuple(f"model-{k}" for k in range(4))
    observed = {"A": dict(zip(teachers, (1.0, 2.0, 3.0, 4.0), strict=True))}
    found = compare([prediction({"car": [1.0, 2.0, 3.0, 4.0]}, teachers=teachers)], observed)
    assert titles(found) == ["car"]
    assert found.families == teachers
    assert any("No baseline of size" in note for note in found.left_out)


def test_columns_of_one_metric_are_told_apart_by_what_differs():
    columns = random_columns("car", "length")
    others = {**random_columns("car", seed=1), "length": columns["length"]}
    rewarded = [
        prediction(columns, rewards="model one"),
        prediction(others, rewards="model two"),
    ]
    assert titles(compare(rewarded, AP))[:3] == ["car (model one)", "length", "car (model two)"]
    students = [prediction(columns, "p", file="a.json"), prediction(others, "q", file="b.json")]
    assert titles(compare(students, AP))[0] == "car (p, a.json)"
    own = [prediction(columns, student) for student in AP]
    mixed = titles(compare([*own, prediction(others, "proxy")], AP))
    assert mixed[:3] == ["car", "length", "car (proxy, a.json)"]


def test_two_predictions_of_the_same_thing_are_refused():
    twice = [prediction(random_columns("car"), "Gemma 2-2B", file=name) for name in ("a", "b")]
    with pytest.raises(StudyError, match="'a' and 'b' both predict"):
        compare(twice, AP)


def test_columns_without_a_declared_direction_are_not_judged():
    given = [prediction(random_columns("car", "score"))]
    plain = compare(given, AP)
    assert "score" not in titles(plain)
    assert any("not judged: score" in note for note in plain.left_out)
    declared = compare(given, AP, directions={"score": False})
    assert not declared.column("score").higher_is_better
    with pytest.raises(StudyError, match="--higher-is-better score"):
        compare(given, AP, metrics=["score"])


def test_a_declared_direction_cannot_be_turned():
    with pytest.raises(StudyError, match="Lower is better for 'loss' by declaration"):
        compare([prediction(random_columns("loss"))], AP, directions={"loss": True})


@pytest.mark.parametrize(
    "asked, said",
    [
        ({"metrics": ["cra"]}, "Did you mean 'car'"),
        ({"students": ["Gemma 2-9B"]}, "Did you mean 'Gemma 2-2B'"),
    ],
)
def test_unknown_names_are_refused_with_the_nearest(asked: dict, said: str):
    with pytest.raises(StudyError, match=said):
        compare([prediction(random_columns("car"))], AP, **asked)


def test_too_few_teachers_in_common_are_refused():
    with pytest.raises(StudyError, match="Only 2 teachers"):
        compare([prediction({"car": [1.0, 2.0]}, teachers=TEACHERS[:2])], AP)
    with pytest.raises(StudyError, match="have no metric"):
        compare([prediction(random_columns("score"))], AP)


def test_likelihood_is_not_shown_beside_the_loss_unless_asked_for():
    losses = random_columns("loss")
    given = [prediction({**losses, "likelihood": [-loss for loss in losses["loss"]]})]
    assert "likelihood" not in titles(compare(given, AP))
    assert titles(compare(given, AP, metrics=["likelihood"]))[0] == "likelihood"


@pytest.fixture(scope="module")
def table() -> AgreementTable:
    rng = np.random.default_rng(2)
    mean = np.mean([list(row.values()) for row in AP.values()], axis=0)
    columns = {
        "car": (mean + rng.normal(size=19)).tolist(),
        "reward": (mean + 2 * rng.normal(size=19)).tolist(),
        "loss": (2 - mean / 10 + 0.2 * rng.normal(size=19)).tolist(),
    }
    return AgreementTable(compare([prediction(columns)], AP), draws=400, seed=1)


def test_every_cell_is_scipys_number(table: AgreementTable):
    for row, student in zip(table.cells, AP, strict=True):
        for cell, column in zip(row, table.comparison.columns, strict=True):
            predicted = column.predicted[list(AP).index(student)]
            observed = list(AP[student].values())
            assert cell.rho == pytest.approx(scipy.stats.spearmanr(predicted, observed).statistic)
            assert cell.tau == pytest.approx(scipy.stats.kendalltau(predicted, observed).statistic)
            assert cell.ends.low < cell.rho < cell.ends.high
            chance = permuted_rhos(
                predicted[None],
                np.array([observed]),
                draws=400,
                rng=np.random.default_rng([1, 1]),
            )[:, 0]
            shuffled = permutation_test(cell.rho, chance, teachers=19)
            assert cell.permutation[:3] == pytest.approx(shuffled[:3])
            assert cell.permutation.adjusted >= shuffled.p_value or column.baseline


def test_the_mean_row_is_the_mean_of_the_cells_and_surer_than_one(table: AgreementTable):
    for place, mean in enumerate(table.means):
        cells = [row[place] for row in table.cells]
        assert mean.rho == pytest.approx(np.mean([cell.rho for cell in cells]))
        assert mean.regret == pytest.approx(np.mean([cell.regret for cell in cells]))
        width = mean.ends.high - mean.ends.low
        assert width < max(cell.ends.high - cell.ends.low for cell in cells)
    assert table.means[-1].rho == pytest.approx(0.922466, abs=1e-6)  # the prior; see test_agreement


def test_a_difference_is_paired_and_so_narrower_than_two_intervals(table: AgreementTable):
    found = {one.column: one for one in table.differences("car")}
    assert set(found) == {"reward", "loss", "size", "prior"}
    by_title = {mean.column: mean for mean in table.means}
    for one in found.values():
        assert one.value == pytest.approx(by_title[one.column].rho - by_title["car"].rho)
        assert one.ends.low <= one.value <= one.ends.high
        clear = one.ends.low > 0 or one.ends.high < 0
        assert (one.needed == 19) == clear
        assert one.needed is None or one.needed >= 19
    prior, car = by_title["prior"].ends, by_title["car"].ends
    apart = np.hypot(prior.high - prior.low, car.high - car.low)
    assert found["prior"].ends.high - found["prior"].ends.low < 1.2 * apart
    assert found["size"].p_better < 0.05


def test_a_metric_against_its_own_copy_has_no_difference():
    columns = random_columns("car")
    found = compare(
        [prediction({**columns, "copy": columns["car"]})], AP, directions={"copy": True}
    )
    (copy, *_) = AgreementTable(found, draws=100).differences("car")
    assert (copy.value, copy.ends, copy.p_better, copy.needed) == (0, (0, 0), 0.5, None)


def test_an_unknown_column_to_compare_with_is_refused(table: AgreementTable):
    with pytest.raises(StudyError, match="Did you mean 'prior'"):
        table.differences("priro")


def test_leaving_a_family_out_is_the_plain_value_of_the_rest(table: AgreementTable):
    families = np.array(table.comparison.families)
    for found, column in zip(table.by_family(), table.comparison.columns, strict=True):
        means = {}
        for family in set(families):
            kept = families != family
            pairs = zip(column.predicted, table.comparison.observed, strict=True)
            rhos = [scipy.stats.spearmanr(p[kept], o[kept]).statistic for p, o in pairs]
            means[family] = np.mean(rhos)
        assert found.lowest[0] == pytest.approx(min(means.values()))
        assert found.lowest[1] == min(means, key=means.__getitem__)
        assert found.highest[0] == pytest.approx(max(means.values()))


def test_pairs_within_and_across_families_make_up_kendalls_tau(table: AgreementTable):
    families = np.array(table.comparison.families)
    within = int((families[:, None] == families).sum() - 19) // 2
    for found, mean in zip(table.by_family(), table.means, strict=True):
        right = (within * found.within + (171 - within) * found.across) / 171
        if found.column not in ("size", "prior"):  # which have ties
            assert 2 * right - 1 == pytest.approx(mean.tau)


def test_one_family_alone_cannot_be_held_out():
    gemmas = ("Gemma-2-2b-it", "Gemma-2-9b-it", "Gemma-2-27b-it")
    found = compare([prediction({"car": [1.0, 2.0, 3.0]}, teachers=gemmas)], AP)
    with pytest.raises(StudyError, match="'Gemma 2'"):
        AgreementTable(found, draws=100).by_family()


def test_calibration_needs_rewards_and_losses_of_one_source(table: AgreementTable):
    assert table.calibration().teachers == 19
    transformed = compare([prediction(random_columns("reward", "loss"), transformed=True)], AP)
    tried = AgreementTable(transformed, draws=100).calibration().tried
    assert {one.candidate.transform for one in tried} == {"raw"}
    with pytest.raises(StudyError, match="one column 'loss' and found 0"):
        AgreementTable(compare([prediction(random_columns("reward"))], AP), draws=100).calibration()


def test_few_teachers_and_relatives_are_warned_of(table: AgreementTable):
    small, related = table.warnings()
    assert "With 19 teachers the 95% interval of a rho of 0.8 spans 0.49 to 0.93" in small
    assert "19 teachers are of 6 families" in related
    few = compare([prediction({"car": [1.0, 2.0, 3.0]}, teachers=TEACHERS[:3])], AP)
    assert "No interval below 8 teachers: 3" in AgreementTable(few, draws=100).warnings()[0]


def test_four_teachers_in_the_same_order_have_no_interval_and_their_p():
    names = ("Gemma-2-2b-it", "Qwen2.5-3B-Instruct", "Phi-3-small", "Llama-3-8B-Instruct")
    observed = {"A": dict(zip(names, (1.0, 2.0, 3.0, 4.0), strict=True))}
    found = compare([prediction({"car": [1.0, 2.0, 3.0, 4.0]}, teachers=names)], observed)
    table = AgreementTable(found, draws=100)
    assert table.means[0].rho == pytest.approx(1)
    assert np.isnan(table.means[0].ends).all()
    assert table.means[0].permutation.p_value == pytest.approx(2 / 24)
    # The baselines are not among what p is adjusted for.
    assert table.means[0].permutation.adjusted == pytest.approx(2 / 24)
    assert all(np.isnan(one.ends).all() for one in table.differences("car"))


def test_whole_families_are_drawn_where_teachers_are_related(table: AgreementTable):
    assert table.related
    for one, mean in zip(table.by_family(), table.means, strict=True):
        assert one.ends == mean.ends
    names = [f"model-{k}" for k in range(9)]
    observed = {"A": dict(zip(names, map(float, range(9)), strict=True))}
    car = [float(k) for k in (0, 2, 1, 3, 4, 6, 5, 7, 8)]
    strangers = compare([prediction({"car": car}, teachers=tuple(names))], observed)
    assert not AgreementTable(strangers, draws=100).related


def test_a_constant_prediction_has_no_rho_and_stands_as_none_in_records():
    found = compare([prediction({"car": [1.0] * 19})], AP)
    record = AgreementTable(found, draws=100).means[0].record()
    assert record["rho"] is None
    assert record["permutation_p"] is None
    assert record["top_three"] == pytest.approx(3 / 19)


def test_one_seed_gives_the_same_numbers_and_another_does_not(table: AgreementTable):
    again = AgreementTable(table.comparison, draws=400, seed=1)
    other = AgreementTable(table.comparison, draws=400, seed=2)
    records = [[mean.record() for mean in one.means] for one in (again, table)]
    assert records[0] == records[1]
    assert other.means[0].ends != table.means[0].ends
    assert other.means[0].rho == table.means[0].rho
    with pytest.raises(StudyError, match="100 or more"):
        AgreementTable(table.comparison, draws=10)
