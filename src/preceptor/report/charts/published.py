"""The paper's own results as charts: from its printed tables, nothing read off its figures.

What the tables hold is drawn with the same dots and lines as a user's study, so the two compare. Source: Xu
et al. (NAACL 2025), tables 2 to 9; AP is the mean of AlpacaEval 2 LC and Arena-Hard.
"""

from collections.abc import Iterable, Mapping, Sequence
from decimal import Decimal
from typing import Any

from preceptor.agreement.bootstrap import bonett_wright
from preceptor.report.charts.dots import Dot, dot_chart, dot_rows, dots_data, dots_height, ends_text
from preceptor.report.charts.parts import (
    Chart,
    Families,
    Row,
    altair,
    name_layer,
    name_rows,
    named,
    shown,
    tips,
    whole_spec,
)
from preceptor.report.charts.ranking import size_axis
from preceptor.studies import (
    STUDENTS,
    TABLE_1,
    TABLE_2,
    TABLE_3,
    TABLE_4,
    TABLE_6,
    TABLE_8,
    TABLE_9,
    average_performance,
    families,
    mean_correlations,
    size_comparisons,
)

HEIGHT = 380
RANKED = 19
"""Teachers behind each rho of tables 4 and 9: those of table 7."""


def paper_charts() -> tuple[Chart, ...]:
    """Return what tables 2 to 9 hold of the paper's figures, and the tables that have none."""
    return (
        _performance(),
        _sizes(
            "paper-size",
            title="The paper: size against performance within families",
            source="Mean AP over five students (table 7)",
            performance=_mean_performance(),
        ),
        _paradox(),
        _sizes(
            "paper-larger-student",
            title="The paper: size against performance for the student Llama-3.1-8B",
            source="AP as printed in table 6, the mean of its three scores",
            performance={str(row.teacher): float(row.average or 0) for row in TABLE_6},
        ),
        _open_and_closed(),
        _sampling(),
        _correlations(),
        _reward_models(),
        _samples(),
    )


def _chart(
    name: str, dots: Iterable[Dot], *, title: str, caption: str, axes: Sequence[str]
) -> Chart:
    """Return dots; `axes` names the value, the line and the group."""
    rows = dot_rows(dots)
    value, line, group = axes
    alternative = f"{title}. {value} by {line}, least to most: {ends_text(rows)}."
    chart = dot_chart(rows, title=value, what=line, groups=group)
    return Chart(
        name=name,
        section="paper",
        ranking=None,
        title=title,
        caption=caption,
        alternative=alternative,
        spec=whole_spec(
            chart, height=dots_height(rows), alternative=alternative, **dots_data(rows)
        ),
    )


def _performance() -> Chart:
    performance = average_performance()
    return _chart(
        "paper-average-performance",
        (
            (teacher, student, performance[student][teacher], None)
            for members in families().values()
            for teacher in members
            for student in STUDENTS
        ),
        title="The paper: average performance of five students by teacher",
        caption=(
            "The paper's figure 2, from table 7: AP in percent of each student fine-tuned on each teacher's "
            f"responses, n = {RANKED} teachers, one run each and no interval printed. Families together, "
            "from the smallest teacher to the largest; further right is better."
        ),
        axes=("AP (%)", "teacher", "student"),
    )


def _mean_performance() -> Mapping[str, float]:
    performance = average_performance()
    return {
        teacher: sum(performance[student][teacher] for student in STUDENTS) / len(STUDENTS)
        for teacher in performance[STUDENTS[0]]
    }


def _sizes(name: str, *, title: str, source: str, performance: Mapping[str, float]) -> Chart:
    """Return AP against size, a line for each family."""
    alt = altair()
    rows = _size_rows(performance)
    name_rows(rows, "size")
    kinds = Families(tuple(families()))
    base = named()
    place: dict[str, Any] = {
        "x": size_axis([row["size"] for row in rows]),
        "y": alt.Y("value:Q", title="AP (%)", scale=alt.Scale(zero=False, nice=False, padding=12)),
    }
    look = kinds.encodings(row["family"] for row in rows)
    line = base.mark_line(strokeWidth=1.5, opacity=0.6)
    line = line.encode(**place, color=look["color"], order="size:Q")
    tip = tips(whole="teacher", size_text="parameters", value_text="AP (%)")
    point = base.mark_point(filled=True, size=80, opacity=1).encode(**place, tooltip=tip, **look)
    listing = "; ".join(f"{row['label']} {row['value_text']}" for row in rows)
    alternative = f"{title}. {source}, by family and size: {listing}."
    return Chart(
        name=name,
        section="paper",
        ranking=None,
        title=title,
        caption=(
            f"{source}, against the teacher's size, n = {len(rows)} teachers; one run each and no interval "
            "printed. Lines join families; where one falls, the larger relative is the worse teacher. "
            "Numbers are places by AP."
        ),
        alternative=alternative,
        spec=whole_spec(
            line + point + name_layer(base, **place),
            height=HEIGHT,
            alternative=alternative,
            rows=rows,
        ),
    )


def _size_rows(performance: Mapping[str, float]) -> list[Row]:
    order = sorted(performance, key=lambda teacher: -performance[teacher])
    return [
        {"label": one.label, "whole": one.label, "family": one.family, "size": one.size}
        | {"size_text": f"{one.size:g}B", "number": f"{order.index(one.label) + 1}"}
        | {"value": performance[one.label], "value_text": shown(performance[one.label])}
        for one in TABLE_1
        if one.label in performance and one.size
    ]


def _paradox() -> Chart:
    pairs = size_comparisons()
    worse = sum(len(pair.worse_for) for pair in pairs)
    return _chart(
        "paper-paradox",
        (
            (
                f"{_size(pair.smaller)} to {_size(pair.larger)} {pair.family}",
                student,
                float(change),
                None,
            )
            for pair in pairs
            for student, change in pair.differences.items()
        ),
        title="The paper: what a larger relative changes",
        caption=(
            f"AP with the larger teacher less AP with the smaller, in points, for every pair of relatives in "
            f"table 7 and each student; left of 0 is the Larger Models' Paradox: {worse} of "
            f"{len(pairs) * len(STUDENTS)}. n = 1 run for each teacher and student, so no intervals; pairs "
            "share runs and are not independent."
        ),
        axes=("AP of the larger less AP of the smaller (points)", "pair", "student"),
    )


def _size(teacher: str) -> str:
    return next(f"{one.size:g}B" for one in TABLE_1 if one.label == teacher)


def _open_and_closed() -> Chart:
    ordered = sorted(TABLE_2, key=lambda row: -(row.average or Decimal()))
    scores = (("AP", "average"), ("AlpacaEval 2 LC", "alpaca_lc"), ("Arena-Hard", "arena_hard"))
    return _chart(
        "paper-open-and-closed",
        (
            (row.label, title, float(getattr(row, field)), None)
            for row in ordered
            for title, field in scores
        ),
        title="The paper: open teachers and GPT-4",
        caption=(
            "Table 2: AP and its two parts for Llama-3.1-Minitron-4B fine-tuned on Mix-100K answered by "
            "n = 7 teachers, as printed (one AP does not follow from its parts); one run each, no "
            "interval printed."
        ),
        axes=("percent", "teacher", "score"),
    )


def _sampling() -> Chart:
    return _chart(
        "paper-sampling",
        (
            (row.method or "", row.label, float(row.average or 0), None)
            for row in sorted(TABLE_3, key=lambda row: -(row.average or Decimal()))
        ),
        title="The paper: best of N, sampling and greedy decoding",
        caption=(
            "Table 3: AP of two students by how Gemma-2-9b-it's responses were chosen: best and worst of "
            "N = 5 at temperature 0.8 by a reward model, one sample at 0.8, and greedy. n = 1 run each, no "
            "interval printed."
        ),
        axes=("AP (%)", "method", "student"),
    )


def _correlations() -> Chart:
    ends = bonett_wright(0.8, RANKED)
    cells = {(cell.metric, cell.student): cell for cell in TABLE_4}
    means = mean_correlations()
    dots: list[Dot] = []
    for metric, mean in means.items():
        dots += [(metric, s, float(cells[metric, s].rho), None) for s in STUDENTS]
        dots.append((metric, "mean over students", float(mean), None))
    return _chart(
        "paper-agreement",
        dots,
        title="The paper: how well each metric predicts the order by AP",
        caption=(
            f"Table 4: Spearman's rho of each metric with AP, n = {RANKED} teachers, best mean first. No "
            f"interval is printed; with so few teachers that of a rho of 0.8 spans {ends.low:.2f} to "
            f"{ends.high:.2f} (95%, Bonett and Wright)."
        ),
        axes=("Spearman's rho", "metric", "student"),
    )


_NAMES = {
    "reward_skywork_8b": "reward, Skywork 8B",
    "car_skywork_8b": "CAR, Skywork 8B",
    "reward_skywork_27b": "reward, Skywork 27B",
    "car": "CAR, Skywork 27B",
}


def _reward_models() -> Chart:
    return _chart(
        "paper-reward-models",
        (
            (str(cell.student), _NAMES.get(cell.metric, cell.metric), float(cell.rho), None)
            for cell in TABLE_9
        ),
        title="The paper: CAR and reward alone with two reward models",
        caption=(
            f"Table 9: Spearman's rho with AP over n = {RANKED} teachers, for each student; no interval "
            "printed. CAR lies right of its own reward where the student's loss helps."
        ),
        axes=("Spearman's rho", "student", "metric"),
    )


def _samples() -> Chart:
    return _chart(
        "paper-samples",
        ((row.label, row.student, float(row.average or 0), None) for row in TABLE_8),
        title="The paper: what another sample of instructions changes",
        caption=(
            "Table 8: AP as printed (the mean of three scores) for n = 4 samples of 80K instructions. Their "
            "spread is the only yardstick of noise that the paper prints."
        ),
        axes=("AP (%)", "sample", "student"),
    )
