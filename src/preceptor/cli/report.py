"""`preceptor report`: a study as one page, from what is stored.

It is made of stored responses and scores in seconds, or says what is missing.
"""

from pathlib import Path
from typing import TYPE_CHECKING

import click

from preceptor.cli.command import Command
from preceptor.cli.options import group, rehash_option
from preceptor.cli.output import load_numpy, put, require_comparison, typed_command
from preceptor.errors import counted

if TYPE_CHECKING:
    from preceptor.agreement.orders import Observed
    from preceptor.report.data import Report

_options = group(
    click.argument("study_file", metavar="[STUDY.TOML]", required=False),
    click.option(
        "--html",
        "html_path",
        metavar="FILE",
        default="report.html",
        show_default=True,
        help="Write the report as one HTML page; - for standard output.",
    ),
    click.option(
        "--markdown", "markdown_path", metavar="FILE", help="Write the report as Markdown too."
    ),
    click.option(
        "--card",
        "card_path",
        metavar="FILE",
        help="Write the report as the card of a data set on the Hub too: README.md of its repository.",
    ),
    click.option("--charts", "charts_folder", metavar="DIR", help="Write every chart there too."),
    click.option(
        "--observed",
        metavar="NAME|FILE",
        help="Compare with what fine-tuning gave: a study of `preceptor studies`, a CSV 'teacher, student, "
        "AP', or a JSON of rankings. xu2024 without STUDY.TOML: the paper's own page.",
    ),
)


@click.command(cls=Command, made=lambda: [rehash_option()])
@_options
def report(
    study_file: str | None,
    html_path: str,
    markdown_path: str | None,
    card_path: str | None,
    charts_folder: str | None,
    observed: str | None,
) -> None:
    """Write the report of a study that has been run, as one offline page."""
    if study_file is None:
        _of_the_paper(html_path, observed, alone=not (markdown_path or card_path or charts_folder))
        return
    load_numpy()
    from preceptor import api
    from preceptor.report.markdown import markdown
    from preceptor.report.page import page

    outcomes, source = _observed(study_file, observed)
    found = api.study_report(study_file, observed=outcomes, outcome=source, command=typed_command())
    _put(html_path, page(found))
    if markdown_path:
        _put(markdown_path, markdown(found))
    if card_path:
        from preceptor.report.hub_card import hub_card

        _put(card_path, hub_card(found))
    if charts_folder:
        _save_charts(found, charts_folder)
    require_comparison([len(one.ranking) for one in found.rankings])


def _of_the_paper(html_path: str, observed: str | None, *, alone: bool) -> None:
    if observed != "xu2024" or not alone:
        raise click.UsageError(
            "There is no study to report: give STUDY.TOML, or --observed xu2024 with no more than "
            "--html for the paper's own."
        )
    from preceptor.report.page import published_page

    _put(html_path, published_page())


def _observed(study_file: str, name: str | None) -> "tuple[Observed | None, str | None]":
    """Return what was observed, and where that is from in words."""
    if name is None:
        return None, None
    from preceptor.config.study import StudyFile
    from preceptor.studies.own import observed_of

    return observed_of(name, StudyFile.read(study_file).runtime.store)


def _save_charts(found: "Report", folder: str) -> None:
    from preceptor.report.charts.figures import charts_of, save_charts

    try:
        files = save_charts(charts_of(found), Path(folder))
    except OSError as error:
        raise click.ClickException(f"Cannot write to '{folder}': {error.strerror}.") from error
    click.echo(f"wrote {counted(len(files), 'file')} to {folder}", err=True)


def _put(path: str, text: str) -> None:
    put(path, text)
    if path != "-":
        click.echo(f"wrote {path}", err=True)
