"""Charts hold the ranked's numbers and are valid Vega-Lite whatever names say.

What is drawn is checked in the spec; that it is drawn, with the page (test_page_browser.py).
"""

import json
import math
import struct
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from preceptor.report.charts.beta import beside_best
from preceptor.report.charts.figures import (
    Chart,
    charts_of,
    published_charts,
    save_charts,
    theme,
)
from preceptor.report.data import RankingData, Report
from preceptor.studies import STUDENTS, average_performance
from small_report import small_ranking_data, small_report

pytest.importorskip("altair", reason="charts need the extra 'report'")
pytest.importorskip("vl_convert", reason="charts need the extra 'report'")

HOSTILE = (
    '<img src=x onerror="alert(1)">',
    'a"]; alert(2); datum["x',
    "line\nbreak\u202eright to left\u200f and \ud800",
    "http://example.org/</script><script>alert(3)</script>",
    "n" * 80,
    "n" * 79 + "m",
)


def of_one(ranked: RankingData) -> dict[str, Chart]:
    report = Report((ranked,), title="t", command="c")
    return {chart.name: chart for chart in charts_of(report)}


@pytest.fixture(scope="module")
def drawn() -> tuple[Chart, ...]:
    return charts_of(small_report(6, students=("One student", "Another")))


@pytest.fixture(scope="module")
def charts(drawn: tuple[Chart, ...]) -> dict[str, Chart]:
    return {chart.name: chart for chart in drawn}


@pytest.fixture(scope="module")
def hostile() -> dict[str, Chart]:
    ranked = small_ranking_data(8, names=HOSTILE, student=HOSTILE[0])
    families = dict(ranked.families) | {HOSTILE[0]: HOSTILE[1], HOSTILE[1]: HOSTILE[3]}
    first, *others = ranked.ranking.categories
    ranking = replace(ranked.ranking, categories=(replace(first, name=HOSTILE[0]), *others))
    distributions = (replace(ranked.distributions[0], measure=HOSTILE[3]),)
    return of_one(replace(ranked, ranking=ranking, families=families, distributions=distributions))


@pytest.fixture(scope="module")
def published() -> tuple[Chart, ...]:
    return published_charts()


def rows(chart: Chart, name: str = "rows") -> list[dict[str, Any]]:
    datasets: Any = chart.spec["datasets"]
    return list(datasets[name])


def texts(value: object) -> Iterator[str]:
    """Yield every text of a spec outside its data: keys and values."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for key, part in value.items():
            if key not in ("datasets", "domain", "values", "description", "title"):
                yield str(key)
                yield from texts(part)
    elif isinstance(value, list):
        for part in value:
            yield from texts(part)


def test_names_are_unique_and_the_second_ranking_has_a_suffix(
    drawn: tuple[Chart, ...], charts: dict[str, Chart]
):
    assert {"leaderboard", "leaderboard-2", "risk-and-return-2", "beta-rank-2"} <= set(charts)
    assert charts["leaderboard"].ranking == 0
    assert charts["leaderboard-2"].ranking == 1
    assert charts["agreement"].ranking is None
    assert len(drawn) == len(charts)


def test_every_section_is_drawn(charts: dict[str, Chart]):
    sections = {chart.section for chart in charts.values()}
    assert sections == {
        "leaderboard", "risk", "beta", "size", "distribution", "category", "agreement",
    }  # fmt: skip


@pytest.mark.parametrize("which", ["charts", "published", "hostile"])
def test_specs_are_valid_and_name_no_address_or_colour(which: str, request: pytest.FixtureRequest):
    import altair
    import jsonschema

    vega_lite = jsonschema.Draft7Validator(altair.load_schema())
    found = request.getfixturevalue(which)
    for chart in found.values() if isinstance(found, dict) else found:
        vega_lite.validate(json.loads(json.dumps(chart.spec, allow_nan=False)))
        assert chart.spec["width"] == "container"
        said = list(texts(chart.spec))
        assert not {"url", "href", "$schema", "config"} & set(said), chart.name
        assert not [one for one in said if "://" in one or one.startswith("#")], chart.name
        assert chart.title and chart.caption and chart.alternative


def test_the_leaderboard_holds_the_rankings_estimates(charts: dict[str, Chart]):
    ranking = small_report(6, students=("One student", "Another")).rankings[1].ranking
    drawn = rows(charts["leaderboard-2"])
    assert [row["whole"] for row in drawn] == [result.teacher for result in ranking.teachers]
    for row, result in zip(drawn, ranking.teachers, strict=True):
        estimate = result.estimates[ranking.by]
        assert (row["value"], row["value_low"], row["value_high"]) == (
            estimate.value,
            estimate.low,
            estimate.high,
        )
    assert ranking.teachers[0].teacher in charts["leaderboard-2"].alternative


def test_risk_and_return_holds_the_means_and_lines_of_equal_car(charts: dict[str, Chart]):
    chart = charts["risk-and-return"]
    ranking = small_report(6, students=("One student",)).rankings[0].ranking
    for row, result in zip(rows(chart), ranking.teachers, strict=True):
        assert row["x"] == result.estimates["loss"].value
        assert row["y"] == result.estimates["reward"].value
    guides = rows(chart, "guides")
    assert len(guides) >= 2
    for guide in guides:
        car = float(guide["text"].removeprefix("CAR "))
        # Equation 3 with the paper's beta of 3.
        assert guide["y"] / (1 + 3 * guide["x"]) == pytest.approx(car)
        assert guide["y2"] / (1 + 3 * guide["x2"]) == pytest.approx(car)


def test_paths_lead_from_the_smaller_relative_to_the_larger(charts: dict[str, Chart]):
    chart = charts["risk-and-return"]
    places = {row["whole"]: (row["x"], row["y"]) for row in rows(chart)}
    pieces = {row["family"]: row for row in rows(chart, "pieces")}
    gemma = pieces["Gemma 2"]
    assert (gemma["x"], gemma["y"]) == places["Gemma-2-9b-it"]
    assert (gemma["x2"], gemma["y2"]) == places["Gemma-2-27b-it"]


def test_without_rewards_length_stands_against_loss_and_no_beta_is_swept():
    found = of_one(small_ranking_data(5, reward=False))
    assert "length-and-loss" in found
    assert rows(found["length-and-loss"], "guides") == []
    assert not [name for name in found if name.startswith(("beta", "risk"))]


def test_beta_charts_hold_the_sweep(charts: dict[str, Chart]):
    sweep = small_ranking_data(6).sweep
    assert sweep is not None
    drawn = rows(charts["beta-rank"])
    assert [row["y"] for row in drawn] == sweep.ranks.T.ravel().tolist()
    values = rows(charts["beta-value"])
    assert [row["y"] for row in values] == beside_best(sweep.values).T.ravel().tolist()
    assert rows(charts["beta-rank"], "chosen") == [{"beta": 3.0, "text": "beta = 3"}]


def test_a_share_of_a_best_car_that_is_not_positive_is_no_number():
    shares = beside_best(np.array([[4.0, 2.0, np.nan], [-1.0, -2.0, -3.0]]))
    assert shares[0, :2].tolist() == [1.0, 0.5]
    assert np.isnan(shares[0, 2])
    assert np.isnan(shares[1]).all()


def test_distributions_and_categories_hold_counts_quantiles_and_n(charts: dict[str, Chart]):
    ranked = small_ranking_data(6)
    distribution = ranked.distributions[0]
    bars, strips = (rows(charts["distribution-reward"], name) for name in ("bars", "strips"))
    assert [row["q50"] for row in bars] == distribution.quantiles[:, 2].tolist()
    assert sum(row["count"] for row in strips) == distribution.counts.sum()
    best = ranked.ranking.teachers[0].teacher
    cell = rows(charts["by-category"])[0]
    largest = ranked.ranking.categories[0]
    assert cell["value"] == largest.means[best]["reward"].value
    assert cell["category"] == f"{largest.name} (n {largest.n})"


def test_agreement_holds_rho_and_its_interval(charts: dict[str, Chart]):
    table = small_report(6).agreement
    assert table is not None
    drawn = {(row["line"], row["group"]): row for row in rows(charts["agreement"])}
    cell = table.cells[2][1]
    row = drawn[cell.column, str(cell.student)]
    assert (row["value"], row["low"], row["high"]) == (cell.rho, cell.ends.low, cell.ends.high)
    assert drawn["car", "mean over students"]["value"] == table.means[0].rho
    assert len([name for name in charts if name.startswith("predicted-and-observed")]) == 5


def test_published_charts_hold_table_seven(published: tuple[Chart, ...]):
    chart = next(chart for chart in published if chart.name == "paper-average-performance")
    drawn = {(row["group"], row["line"]): row["value"] for row in rows(chart)}
    assert len(drawn) == 95
    for student in STUDENTS:
        for teacher, value in average_performance()[student].items():
            assert drawn[student, teacher] == value
    assert {chart.section for chart in published} == {"paper"}


def test_what_is_not_a_number_is_null():
    ranked = small_ranking_data(3)
    distribution = ranked.distributions[0]
    quantiles = distribution.quantiles.copy()
    quantiles[1] = np.nan
    counts = distribution.counts.copy()
    counts[1] = 0
    last = ranked.ranking.teachers[-1]
    broken = replace(last.estimates["reward"], value=math.nan)
    first, second = ranked.ranking.teachers[:2]
    open_ended = replace(second.estimates["loss"], low=math.nan, high=math.nan)
    teachers = (
        first,
        replace(second, estimates={**second.estimates, "loss": open_ended}),
        replace(last, estimates={**last.estimates, "reward": broken}),
    )
    found = of_one(
        replace(
            ranked,
            distributions=(replace(distribution, quantiles=quantiles, counts=counts),),
            ranking=replace(ranked.ranking, teachers=teachers),
        )
    )
    bars = rows(found["distribution-reward"], "bars")
    assert bars[1]["q50"] is None
    assert bars[1]["q50_text"] == "no data"
    assert len(rows(found["risk-and-return"])) == 2
    json.dumps([chart.spec for chart in found.values()], allow_nan=False)


def test_one_teacher_alone_is_drawn(tmp_path: Path):
    found = of_one(small_ranking_data(1))
    assert "leaderboard" in found
    assert "size-and-score" not in found
    save_charts([found["leaderboard"], found["risk-and-return"]], tmp_path)


def test_hostile_names_stay_data(hostile: dict[str, Chart]):
    for chart in hostile.values():
        for text in texts(chart.spec):
            assert "alert" not in text, chart.name
            assert "nnnn" not in text, chart.name
    keys = [row["key"] for row in rows(hostile["leaderboard"])]
    assert len(set(keys)) == 8
    assert all(key.isprintable() and len(key) <= 43 for key in keys)
    assert "n" * 80 in [row["whole"] for row in rows(hostile["leaderboard"])]


def test_names_that_every_object_of_javascript_has_are_drawn(tmp_path: Path):
    names = ("constructor", "toString", "__proto__", "hasOwnProperty", "valueOf")
    ranked = small_ranking_data(5, names=names)
    categories = tuple(
        replace(one, name=name) for one, name in zip(ranked.ranking.categories, names, strict=False)
    )
    ranking = replace(ranked.ranking, categories=categories)
    named = replace(ranked, families={name: name for name in names}, ranking=ranking)
    drawn = [of_one(named)[chart] for chart in ("leaderboard", "risk-and-return", "by-category")]
    for path in save_charts(drawn, tmp_path)[::2]:
        assert path.read_text(encoding="utf-8").count("<path") > 5, path.name


def test_pictures_are_of_sensible_size_and_hold_no_script(
    tmp_path: Path, hostile: dict[str, Chart]
):
    folder = tmp_path / "new" / "folder"
    paths = save_charts([hostile["leaderboard"], hostile["risk-and-return"]], folder)
    assert [path.name for path in paths] == [
        "leaderboard.svg", "leaderboard.png", "risk-and-return.svg", "risk-and-return.png",
    ]  # fmt: skip
    for path in paths:
        if path.suffix == ".svg":
            text = path.read_text(encoding="utf-8")
            assert text.startswith("<svg")
            assert "<script" not in text and "<img" not in text
        else:
            width, height = struct.unpack(">II", path.read_bytes()[16:24])
            assert 1500 < width < 2600
            assert 300 < height < 2600


def luminance(colour: str) -> float:
    """Return the relative luminance of #rrggbb by WCAG 2."""
    parts = [int(colour[place : place + 2], 16) / 255 for place in (1, 3, 5)]
    red, green, blue = (
        part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts
    )
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def contrast(one: str, other: str) -> float:
    low, high = sorted((luminance(one), luminance(other)))
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize(("dark", "page"), [(False, "#ffffff"), (True, "#161b22")])
def test_texts_have_a_contrast_of_four_and_a_half_and_marks_of_three(dark: bool, page: str):
    config: Any = theme(dark=dark)
    ink, quiet = config["axis"]["labelColor"], config["axis"]["titleColor"]
    for background in (page, *config["range"]["heatmap"]):
        assert contrast(ink, background) >= 4.5
    assert contrast(quiet, page) >= 4.5
    for colour in config["range"]["category"]:
        assert contrast(colour, page) >= 3
