"""A report as the card of a data set on the Hub: what the Hub's pages read, then the report as Markdown.

Names and titles come from models and data: those above the rule pass the Hub library's YAML writer on one
line, those below it are escaped by `markdown`.
"""

from preceptor.export.card import one_line
from preceptor.report.data import Report
from preceptor.report.markdown import markdown

_TAGS = ("leaderboard", "teacher-selection", "preceptor")


def hub_card(report: Report) -> str:
    """Return the README of a data set repository that shows the report; it says nothing of a licence."""
    from huggingface_hub import DatasetCardData

    data = DatasetCardData(pretty_name=one_line(report.title), tags=list(_TAGS))
    return f"---\n{data}\n---\n\n{markdown(report)}"
