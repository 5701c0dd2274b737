"""Rankings as one self-contained HTML page that opens offline and runs no script."""

from preceptor.evidence import Report

_HEAD = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Preceptor: ranking of teachers</title>
<style>
body { font: 16px/1.5 system-ui, sans-serif; max-width: 72rem; margin: 2rem auto; padding: 0 1rem }
section { margin-bottom: 3rem; overflow-x: auto }
</style>
</head>
<body>
"""


def page(report: Report) -> str:
    """Return the page; every text from data is escaped by `Ranking._repr_html_`."""
    rankings = (one.ranking for one in report.evidence)
    body = "\n".join(f"<section>{ranking._repr_html_()}</section>" for ranking in rankings)
    return f"{_HEAD}{body}\n</body>\n</html>\n"


def published_page() -> str:
    """Return the paper's own study as a page."""
    return f"{_HEAD}</body>\n</html>\n"
