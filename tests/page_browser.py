"""A headless browser for tests of pages, which takes down everything that a page should never do."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

NAMES = ("chromium", "chromium-browser", "google-chrome")

PATIENCE = 240_000
"""Milliseconds that anything may take: a busy machine opens even a small page in minutes."""

WATCH = """
window.__fired = undefined;
document.addEventListener("securitypolicyviolation", (event) => {
  (window.__violations ||= []).push(event.violatedDirective + " " + event.blockedURI);
});
"""


@dataclass
class Watched:
    """A page in the browser and what it did: requests, console errors, dialogs."""

    page: Any
    requests: list[str] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)
    dialogs: list[str] = field(default_factory=list)

    def faults(self) -> list[str]:
        """Return everything that it should not have done."""
        outside = [url for url in self.requests if not url.startswith(("file:", "data:", "blob:"))]
        violations = self.page.evaluate("window.__violations || []")
        fired = self.page.evaluate("window.__fired === undefined ? [] : ['fired']")
        return [*outside, *self.errors, *self.dialogs, *violations, *fired]


@contextmanager
def browser() -> Iterator[Any]:
    """Yield headless Chromium; skip with the reason where there is none."""
    found = next((path for name in NAMES if (path := shutil.which(name))), None)
    if found is None:
        pytest.skip(f"no browser: none of {', '.join(NAMES)} is on PATH")
    sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    # Chromium's sandbox refuses to run as root.
    flags = ["--no-sandbox"] if os.geteuid() == 0 else []
    with sync_api.sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=found, args=flags, timeout=PATIENCE)
        yield started
        started.close()


@contextmanager
def watched(started: Any, path: Path, **context: Any) -> Iterator[Watched]:
    """Open a file in a fresh context and watch it; keywords are those of playwright's contexts."""
    fresh = started.new_context(**({"viewport": {"width": 1280, "height": 900}} | context))
    fresh.add_init_script(WATCH)
    fresh.set_default_timeout(PATIENCE)
    tab = fresh.new_page()
    seen = Watched(tab)
    tab.on("request", lambda request: seen.requests.append(request.url))
    tab.on("pageerror", lambda error: seen.errors.append(str(error)))
    tab.on(
        "console",
        lambda message: (
            seen.errors.append(message.text) if message.type in ("error", "warning") else None
        ),
    )

    def dismiss(dialog: Any) -> None:
        seen.dialogs.append(dialog.message)
        dialog.dismiss()

    tab.on("dialog", dismiss)
    tab.goto(path.as_uri())
    yield seen
    fresh.close()


def seen_whole(tab: Any) -> None:
    """Scroll through the page, so that everything that waits to be seen is drawn."""
    tab.evaluate(
        """async () => {
          for (let y = 0; y < document.documentElement.scrollHeight; y += 500) {
            scrollTo({ top: y, behavior: "instant" });
            // What is in view is told of once a frame: two frames must pass, however slow they are.
            await new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)));
          }
        }"""
    )
    charts = tab.locator("figure.chart").count()
    # Waiting for a function would evaluate text, which the page's policy forbids.
    if charts:
        tab.locator("figure.drawn svg.marks").nth(charts - 1).wait_for(state="attached")


def explorer_of(tab: Any) -> Any:
    """Scroll to the explorer and return it once it shows an example."""
    part = tab.locator("[data-explorer]:visible")
    part.scroll_into_view_if_needed()
    part.locator(".asked").wait_for()
    return part
