"""A report as Markdown."""

from preceptor.evidence import Report


def markdown(report: Report) -> str:
    """Return the title and each ranking's verdict."""
    verdicts = (one.ranking.verdict() for one in report.evidence)
    return "\n\n".join([f"# {report.title}", *verdicts]) + "\n"
