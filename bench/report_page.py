"""Measure how large a report's page is and how long a browser takes to open it, against a blank page.

The largest page that is promised (20 teachers, 1,000 instructions, 60 examples of 4,000
characters with tokens) is opened five times from a file; the median of the times until the browser calls it
loaded is printed as JSON beside that of a blank page, so that the browser's own part is known.
"""

import json
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "tests"))
ROUNDS = 5


def opened(browser: Any, path: Path) -> dict[str, float]:
    """Return medians over fresh contexts: until the verdict can be seen, and until all is loaded."""
    painted, loaded = [], []
    for _ in range(ROUNDS):
        context = browser.new_context(viewport={"width": 1280, "height": 900})
        tab = context.new_page()
        start = time.perf_counter()
        tab.goto(path.as_uri(), wait_until="load")
        loaded.append(time.perf_counter() - start)
        painted.append(tab.evaluate(FIRST_PAINT) / 1000)
        context.close()
    return {
        "first_paint_s": round(statistics.median(painted), 3),
        "load_s": round(statistics.median(loaded), 3),
    }


FIRST_PAINT = """() => new Promise((done) => requestAnimationFrame(() => setTimeout(() => done(
  performance.getEntriesByName("first-contentful-paint")[0]?.startTime ?? 0))))"""


def main() -> None:
    """Print the size, the time to write and the times to open."""
    from page_browser import browser
    from preceptor.report.page import page
    from test_page import large_report

    report = large_report()
    page(report)  # the chart script is bundled at the first page
    start = time.perf_counter()
    text = page(report)
    written = time.perf_counter() - start
    with tempfile.TemporaryDirectory() as folder, browser() as started:
        path, blank = Path(folder, "report.html"), Path(folder, "blank.html")
        path.write_text(text, encoding="utf-8")
        blank.write_text("<!doctype html><title>blank</title><p>blank", encoding="utf-8")
        found = {
            "bytes": path.stat().st_size,
            "write_s": round(written, 3),
            "page": opened(started, path),
            "blank": opened(started, blank),
            "rounds": ROUNDS,
        }
    print(json.dumps(found, indent=2))


if __name__ == "__main__":
    main()
