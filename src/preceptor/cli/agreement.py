"""`preceptor agreement`: how well predicted orders match what was observed after fine-tuning.

All of it takes a second or two, so the whole table, every metric against every student with its interval, is
always shown; options only add to it.
"""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import click

from preceptor.cli.command import Command
from preceptor.cli.options import complete_metric, group, one_stream, runtime_options
from preceptor.cli.output import console, put, put_json

if TYPE_CHECKING:
    from preceptor.agreement.calibration import Calibration
    from preceptor.agreement.orders import Prediction
    from preceptor.agreement.table import AgreementTable, Difference, FamilyAgreement
    from preceptor.config.catalogue import Catalogue

_options = group(
    click.argument("predictions", nargs=-1, required=True),
    click.option(
        "--observed",
        metavar="NAME|FILE",
        help="A study of `preceptor studies`, as xu2024, a CSV 'teacher, student, AP', or a JSON of "
        "rankings. Default: the study whose own measures are the predictions.",
    ),
    click.option(
        "--dimension",
        metavar="NAME",
        help="Of a file of outcomes in several dimensions, such as `preceptor run --csv` writes: which.",
    ),
    click.option(
        "--metric",
        "metrics",
        multiple=True,
        metavar="NAME",
        shell_complete=complete_metric,
        help="Judge only this column. Repeatable. Default: all with a declared direction.",
    ),
    click.option(
        "--student",
        "students",
        multiple=True,
        metavar="NAME",
        help="Judge only on this observed student. Repeatable.",
    ),
    click.option(
        "--higher-is-better",
        multiple=True,
        metavar="NAME",
        help="Direction of a column that is no metric of this package. Repeatable.",
    ),
    click.option(
        "--lower-is-better", multiple=True, metavar="NAME", help="The other direction. Repeatable."
    ),
    click.option(
        "--baseline",
        metavar="METRIC",
        shell_complete=complete_metric,
        help="Compare every other column with this one on the same teachers, e.g. prior.",
    ),
    click.option(
        "--by-family",
        is_flag=True,
        help="Leave out one family at a time: relatives are not independent.",
    ),
    click.option(
        "--catalogue",
        metavar="FILE",
        help="Families and sizes of teachers of your own: a catalogue file, or a study file.",
    ),
    click.option(
        "--calibrate", is_flag=True, help="Fit beta and reward transform, judge them held out."
    ),
    click.option(
        "--seed", type=click.IntRange(min=0), default=0, show_default=True, help="Draws teachers."
    ),
    click.option(
        "--n-resamples",
        type=click.IntRange(min=1),
        default=2000,
        show_default=True,
        help="Bootstrap resamples.",
    ),
    click.option(
        "--json",
        "json_path",
        metavar="FILE",
        callback=one_stream,
        help="Write all of it; - for standard output.",
    ),
    click.option(
        "--csv",
        "csv_path",
        metavar="FILE",
        callback=one_stream,
        help="Write a row for each metric and student.",
    ),
)


class _Answers(NamedTuple):
    """What was asked for beside the table; None for what was not."""

    differences: "list[Difference] | None"
    families: "list[FamilyAgreement] | None"
    calibration: "Calibration | None"


@click.command(cls=Command, made=lambda: runtime_options(only=("store",)))
@_options
def agreement(json_path: str | None, csv_path: str | None, **given: Any) -> None:
    """Measure how well predicted orders of teachers match observed ones.

    PREDICTIONS are files that `preceptor rank` wrote with --json or --csv, or a study that prints measures,
    as rsr2026.
    """
    from preceptor.agreement.compare import compare
    from preceptor.agreement.table import AgreementTable
    from preceptor.config.study import read_catalogue
    from preceptor.studies.own import named, observed_of

    store, names = given["store"], tuple(dict.fromkeys(given["predictions"]))
    if given["observed"] is None and (len(names) > 1 or named(names[0], store) is None):
        raise click.UsageError("Give --observed: a study of `preceptor studies`, or a file.")
    given["observed"] = given["observed"] or names[0]
    observed, source = observed_of(given["observed"], store, given["dimension"])
    predictions, directions, catalogue = _predictions((*names, given["observed"]), names, store)
    directions |= _directions(given["higher_is_better"], given["lower_is_better"])
    comparison = compare(
        predictions,
        observed,
        metrics=given["metrics"],
        students=given["students"],
        directions=directions,
        catalogue=read_catalogue(given["catalogue"]) + catalogue,
    )
    table = AgreementTable(comparison, draws=given["n_resamples"], seed=given["seed"])
    answers = _Answers(
        differences=table.differences(given["baseline"]) if given["baseline"] else None,
        families=table.by_family() if given["by_family"] else None,
        calibration=table.calibration() if given["calibrate"] else None,
    )
    if "-" not in (json_path, csv_path):
        _print(table, answers, source=source)
    if json_path:
        put_json(json_path, _record(table, given, answers))
    if csv_path:
        put(csv_path, _csv(table))


def _predictions(
    known: Sequence[str], names: Sequence[str], store: str
) -> "tuple[list[Prediction], dict[str, bool], Catalogue]":
    """Return what files and studies predict, and the directions and catalogues of the studies."""
    from preceptor.agreement.orders import read_predictions
    from preceptor.config.catalogue import Catalogue
    from preceptor.errors import StudyError
    from preceptor.studies.own import named
    from preceptor.studies.study import declared

    studies = {name: one for name in known if (one := named(name, store)) is not None}
    predictions: list[Prediction] = []
    directions: dict[str, bool] = {}
    catalogue = Catalogue(())
    for one in studies.values():
        directions |= declared(one)
        catalogue += one.catalogue
    for name in names:
        if name in studies and not studies[name].predictions:
            raise StudyError(
                f"The study '{name}' prints no measures: give the predictions as a file."
            )
        predictions += studies[name].predictions if name in studies else read_predictions(name)
    return predictions, directions, catalogue


def _directions(higher: Sequence[str], lower: Sequence[str]) -> dict[str, bool]:
    from preceptor.errors import StudyError

    both = set(higher).intersection(lower)
    if both:
        raise StudyError(
            f"'{min(both)}' is given to both --higher-is-better and --lower-is-better: expected one."
        )
    return dict.fromkeys(higher, True) | dict.fromkeys(lower, False)


def _print(table: "AgreementTable", answers: _Answers, *, source: str) -> None:
    from preceptor.report import agreement as report

    screen = console()
    report.print_agreement(screen, table, source=source)
    if answers.differences is not None:
        report.print_differences(screen, table, answers.differences)
    if answers.families is not None:
        report.print_families(screen, answers.families)
    if answers.calibration is not None:
        report.print_calibration(screen, answers.calibration)
    report.print_notes(screen, table.comparison.left_out, table.warnings())


def _record(table: "AgreementTable", given: Mapping[str, Any], answers: _Answers) -> dict[str, Any]:
    comparison = table.comparison
    return {
        "students": comparison.students,
        "teachers": comparison.teachers,
        "teacher_families": comparison.families,
        "columns": [
            {
                "title": column.title,
                "metric": column.metric,
                "higher_is_better": column.higher_is_better,
                "baseline": column.baseline,
            }
            for column in comparison.columns
        ],
        "cells": [cell.record() for row in table.cells for cell in row],
        "means": [mean.record() for mean in table.means],
        **{name: _plain(answer) for name, answer in answers._asdict().items()},
        "verdict": answers.calibration and answers.calibration.verdict(),
        "left_out": comparison.left_out,
        "warnings": table.warnings(),
        "settings": {name: _plain(value) for name, value in given.items()},
    }


def _plain(value: Any) -> Any:
    """Return dataclasses and named tuples as objects, and what is no number as None."""
    import math
    from dataclasses import fields, is_dataclass

    if is_dataclass(value):
        return {field.name: _plain(getattr(value, field.name)) for field in fields(value)}
    if isinstance(value, tuple) and hasattr(value, "_asdict"):
        return {name: _plain(part) for name, part in value._asdict().items()}
    if isinstance(value, list | tuple):
        return [_plain(part) for part in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _csv(table: "AgreementTable") -> str:
    from preceptor.store.files import csv_text

    rows = [cell.record() for row in table.cells for cell in row]
    rows += [mean.record() | {"student": "mean"} for mean in table.means]
    return csv_text(rows)
