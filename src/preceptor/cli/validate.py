"""The part of `preceptor run` and `preceptor plan` that puts a prediction to the proof.

The one idea: the predicted order is printed before the first student is tuned, for it is what was wanted to
know, and the proof can take days.
"""

import json
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from preceptor.cli.output import console, progress_on, put, typed_command

if TYPE_CHECKING:
    from preceptor.config.base import Machine
    from preceptor.config.study import Study
    from preceptor.pipeline.estimate import Outlook
    from preceptor.validation.result import LoopResult


_OUTCOME = "this study's own evaluation of the students it tuned"


def run_loop(study: "Study", machine: "Machine", outputs: Sequence[str | None]) -> None:
    """Go through the loop, and print and write what it finds."""
    from rich.console import Console

    from preceptor.pipeline import load as opening
    from preceptor.pipeline import rank as runner
    from preceptor.report.estimate import described, rewards_of
    from preceptor.report.terminal import print_lines, print_orders, print_ranking
    from preceptor.report.validation import print_loop
    from preceptor.validation.validate import Loop

    aside = Console(stderr=True)
    screen = Console(stderr=True) if "-" in outputs else console()
    loop = Loop.open(study, machine)
    source = opening.source_of(study, machine)
    print_lines(aside, described(source))
    with progress_on(aside) as shown:
        data = opening.open_data(study, machine, shown, source=source)
        print_lines(aside, rewards_of(data))
        found = list(runner.outcomes(data, study, machine, shown))
    predicted = [outcome.ranking for outcome in found]
    for ranking in predicted:
        print_ranking(screen, ranking)
    print_orders(screen, predicted)
    with progress_on(aside) as shown:
        result = replace(loop, progress=shown).proven(data, predicted)
    print_loop(screen, result)
    json_path, csv_path, html_path = outputs
    if json_path:
        put(json_path, json.dumps(result.to_dict(), indent=2, allow_nan=False) + "\n")
    if csv_path:
        put(csv_path, observed_csv(result))
    if html_path:
        from preceptor.report.build import report_of
        from preceptor.report.page import page

        report = report_of(found, machine, command=typed_command(), outcome=_OUTCOME)
        # The loop's own agreement: it was worked out once, and by the names that the study gives.
        put(html_path, page(replace(report, agreement=result.agreement)))


def observed_csv(result: "LoopResult") -> str:
    """Return the observed orders as `preceptor agree --observed` reads them."""
    import csv
    import io

    rows = result.observed_records()
    buffer = io.StringIO()
    writer = csv.DictWriter(buffer, list(rows[0]))
    writer.writeheader()
    writer.writerows(rows)
    return buffer.getvalue()


def plan_loop(study: "Study", machine: "Machine", outlook: "Outlook") -> None:
    """Print what the proof would take, after what the prediction would."""
    from preceptor.report.validation import print_loop_outlook
    from preceptor.validation.estimate import loop_outlook
    from preceptor.validation.validate import Loop

    print_loop_outlook(console(), loop_outlook(Loop.open(study, machine), outlook.data))
