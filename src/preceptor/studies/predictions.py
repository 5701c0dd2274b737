"""What tables 4 and 9 say of metrics: which predicts best, and what the student's own numbers add.

A claim about a metric is a comparison of two cells of one row, so it is looked at for each student
and not only for the mean.
"""

from collections.abc import Mapping
from decimal import Decimal

from preceptor.studies.finding import Case, Finding, mean, place
from preceptor.studies.tables import STUDENTS, TABLE_4, TABLE_9


def mean_correlations() -> Mapping[str, Decimal]:
    """Return each metric's mean rho over the five students of table 4, recomputed, best first."""
    metrics = dict.fromkeys(cell.metric for cell in TABLE_4)
    means = {
        metric: mean([cell.rho for cell in TABLE_4 if cell.metric == metric and cell.student])
        for metric in metrics
    }
    return dict(sorted(means.items(), key=lambda item: -item[1]))


def prediction_findings() -> tuple[Finding, ...]:
    """Return what is claimed of CAR, of the student's own likelihoods, and of CAR beside its reward."""
    return (_car_is_best(), _self_over_gpt2(), _car_over_reward())


def _car_is_best() -> Finding:
    cases = []
    for student in STUDENTS:
        values = {cell.metric: cell.rho for cell in TABLE_4 if cell.student == student}
        best = max((name for name in values if name != "car"), key=lambda name: values[name])
        numbers = f"car {values['car']}, {best} {values[best]}"
        cases.append(Case(student, place(values, "car") == 1, numbers))
    means = ", ".join(f"{metric} {value:.4f}" for metric, value in mean_correlations().items())
    return Finding(
        name="CAR predicts best",
        claim="CAR has the highest rho.",
        cases=tuple(cases),
        note=f"Mean over students: {means}.",
        source="table 4's caption and section 4.5",
        tables=(4,),
    )


def _self_over_gpt2() -> Finding:
    values = {(cell.student, cell.metric): cell.rho for cell in TABLE_4}
    cases = tuple(
        Case(
            f"{own}, {student}",
            values[student, own] > values[student, reference],
            f"{values[student, own]} against {values[student, reference]}",
        )
        for own, reference in (("perplexity", "ppl_gpt2"), ("ifd", "ifd_gpt2"))
        for student in STUDENTS
    )
    return Finding(
        name="The student's own likelihoods against GPT-2's",
        claim="PPL-Self and IFD-Self have a higher rho than PPL-GPT2 and IFD-GPT2.",
        cases=cases,
        note=(
            "The appendix calls both low; the mean rho of ifd (0.8374) is above that of the 8B reward "
            "(0.8039)."
        ),
        source="appendix B.4",
        tables=(4,),
    )


def _car_over_reward() -> Finding:
    values = {(cell.student, cell.metric): cell.rho for cell in TABLE_9}
    cases = tuple(
        Case(
            f"{size}, {student}",
            values[student, car] > values[student, reward],
            f"CAR {values[student, car]}, reward {values[student, reward]}",
        )
        for size, car, reward in (
            ("8B", "car_skywork_8b", "reward_skywork_8b"),
            ("27B", "car", "reward_skywork_27b"),
        )
        for student in STUDENTS
    )
    gains = [
        mean([values[student, car] - values[student, reward] for student in STUDENTS])
        for car, reward in (("car_skywork_8b", "reward_skywork_8b"), ("car", "reward_skywork_27b"))
    ]
    return Finding(
        name="CAR against its reward alone",
        claim="CAR has a higher rho than the reward it is made of.",
        cases=cases,
        note=f"Mean gain: {gains[0]:+.4f} with the 8B reward model, {gains[1]:+.4f} with the 27B.",
        source="table 9's caption and appendix B.5",
        tables=(9,),
    )
