"""The part of `preceptor run` and `preceptor plan` that validates a prediction.

The predicted order is printed before the first student is trained: validation can take days.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import click

from preceptor.cli.command import Option
from preceptor.cli.output import (
    console,
    progress_on,
    put,
    put_json,
    require_comparison,
    typed_command,
)
from preceptor.cli.rank import carry_out

if TYPE_CHECKING:
    from preceptor.config.runtime import Runtime
    from preceptor.config.study import Study
    from preceptor.pipeline.estimate import CostEstimate
    from preceptor.pipeline.outcome import Outcome
    from preceptor.validation.estimate import ValidationEstimate
    from preceptor.validation.result import ValidationResult


def seeds_option() -> Option:
    """Return the option that says how often every student is fine-tuned."""
    return Option(
        ["--seeds"],
        type=click.IntRange(1, 100),
        metavar="K",
        help="Fine-tuning runs per teacher in a validation. Default: as the study file says, else 1.",
        section="Validation",
    )


def with_seeds(study: "Study", seeds: int | None) -> "Study":
    """Return the study with so many fine-tuning runs per teacher, where a number is given."""
    if seeds is None:
        return study
    if study.train is None:
        raise click.UsageError(
            "--seeds is given, and the study has no [train]: it fine-tunes nobody."
        )
    return study.model_copy(update={"train": study.train.model_copy(update={"seeds": seeds})})


_OUTCOME = "this study's own evaluation of the students it fine-tuned"


def run_validation(study: "Study", runtime: "Runtime", outputs: Sequence[str | None]) -> None:
    """Validate a study, and print and write what it finds."""
    from preceptor.pipeline.pipeline import Pipeline
    from preceptor.report.validation import print_validation
    from preceptor.validation.validate import Validation

    screen = console(aside="-" in outputs)
    validation = Validation.open(study, runtime)
    found: list[Outcome] = []
    data = carry_out(Pipeline(study, runtime), found, screen)
    predicted = [outcome.ranking for outcome in found]
    with progress_on() as shown:
        result = replace(validation, progress=shown).validated(data, predicted)
    print_validation(screen, result)
    json_path, csv_path, html_path = outputs
    if json_path:
        put_json(json_path, result.to_dict())
    if csv_path:
        put(csv_path, observed_csv(result))
    if html_path:
        from preceptor.report.build import report_of
        from preceptor.report.page import page

        report = report_of(found, runtime, command=typed_command(), outcome=_OUTCOME)
        # The validation's own agreement: it was worked out once, and by the names that the study gives.
        observed = replace(
            report,
            agreement=result.agreement,
            conclusions=tuple(result.sentences()),
            dimensions=result.dimensions,
        )
        put(html_path, page(observed))
    require_comparison([len(ranking) for ranking in predicted])


def observed_csv(result: "ValidationResult") -> str:
    """Return the observed orders as `preceptor agreement --observed` reads them."""
    from preceptor.store.files import csv_text

    return csv_text(result.observed_records())


def estimated_validation(
    study: "Study", runtime: "Runtime", estimate: "CostEstimate"
) -> "ValidationEstimate":
    """Return what validation would take, after what the prediction would."""
    from preceptor.validation.estimate import validation_estimate
    from preceptor.validation.validate import Validation

    return validation_estimate(Validation.open(study, runtime), estimate.data)
