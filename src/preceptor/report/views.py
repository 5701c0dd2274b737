"""Pictures of a ranking by itself, without the store: what `Ranking.to_html` and `Ranking.plot` give."""

from typing import Any

from preceptor.config.catalogue import SHIPPED
from preceptor.errors import StudyError
from preceptor.ranking.result import Ranking
from preceptor.report.charts.figures import drawn_by, picture_spec
from preceptor.report.charts.parts import altair, families_of
from preceptor.report.data import RankingData, Report
from preceptor.report.page import page


def page_of(ranking: Ranking) -> str:
    """Return the page of a report with what the ranking holds."""
    title = f"Teachers for {ranking.student}"
    return page(Report((_ranking_data(ranking),), title, command=""))


def chart_of(ranking: Ranking, name: str) -> Any:
    """Return a chart of this name as altair's; see `Ranking.plot`."""
    ranked = _ranking_data(ranking)
    drawn = drawn_by(name, ranked, families_of([ranked]))
    if not drawn:
        raise StudyError(
            f"The ranking does not hold what the chart '{name}' shows. `preceptor report` draws it from what "
            "is stored."
        )
    return altair().Chart.from_dict(picture_spec(drawn[0]))


def _ranking_data(ranking: Ranking) -> RankingData:
    tokens = {
        result.teacher: result.estimates["tokens"].value
        for result in ranking.teachers
        if "tokens" in result.estimates
    }
    return RankingData(
        ranking=ranking,
        families={name: SHIPPED.family(name) for name in ranking.order},
        sizes={name: SHIPPED.size(name) for name in ranking.order},
        tokens=tokens,
    )
