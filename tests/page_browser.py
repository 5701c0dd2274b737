"""A headless browser for tests of pages, which takes down everything that a page should never do.

Every wait has an end. Chromium may stop drawing frames for good (version 156 with
software rendering: about one page in twelve of ours, when it is scrolled while its charts are drawn;
a page of text never), and what waits for a frame then waits for ever. So frames that stop are an
error of their own, also where a step had waited for them in vain, and the tests marked `needs_frames`
are run again after this error and no other. The browser of a page that is open too long is killed.
"""

import os
import shutil
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

NAMES = ("chromium-headless-shell", "chromium", "chromium-browser", "google-chrome")

PATIENCE = 120_000
"""Milliseconds that one step may take: a busy machine opens even a small page in a minute."""

FRAME = 30_000
"""Milliseconds after which frames that do not come are held to have stopped."""

LONGEST = 600.0
"""Seconds that a page may be open; then its browser is killed, which ends whatever waits for it."""

needs_frames = pytest.mark.flaky(reruns=4, only_rerun="^FramesStopped")
"""Runs a test again, on a new page, when frames were seen to stop; for nothing else."""

STOPPED = """(limit) => new Promise((done) => {
  requestAnimationFrame(() => requestAnimationFrame(() => done(false)));
  setTimeout(() => done(true), limit);
})"""

WATCH = """
window.__fired = undefined;
document.addEventListener("securitypolicyviolation", (event) => {
  (window.__violations ||= []).push(event.violatedDirective + " " + event.blockedURI);
});
"""


class FramesStopped(Exception):
    """The browser draws no more frames, though the page's own timers still run."""


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


class Browser:
    """Headless Chromium, started again when it is gone."""

    def __init__(self, start: Callable[[], Any]):
        self._start = start
        self._started: Any = None

    def new_context(self, **options: Any) -> Any:
        """Return a fresh context; keywords are playwright's."""
        if self._started is None or not self._started.is_connected():
            self._started = self._start()
        return self._started.new_context(**options)

    def process(self) -> int:
        """Return the running browser's process, which playwright itself does not tell."""
        session = self._started.new_browser_cdp_session()
        processes = session.send("SystemInfo.getProcessInfo")["processInfo"]
        session.detach()
        return next(int(one["id"]) for one in processes if one["type"] == "browser")


@contextmanager
def browser() -> Iterator[Browser]:
    """Yield headless Chromium; skip with the reason where there is none."""
    found = next((path for name in NAMES if (path := shutil.which(name))), None)
    if found is None:
        pytest.skip(f"no browser: none of {', '.join(NAMES)} is on PATH")
    sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    # Chromium's sandbox refuses to run as root.
    flags = ["--no-sandbox"] if os.geteuid() == 0 else []
    with sync_api.sync_playwright() as playwright:
        yield Browser(
            lambda: playwright.chromium.launch(executable_path=found, args=flags, timeout=PATIENCE)
        )


@contextmanager
def watched(
    started: Browser, path: Path, longest: float = LONGEST, **context: Any
) -> Iterator[Watched]:
    """Open a file in a fresh context for so many seconds and watch it; keywords are of the context.

    A step that waited in vain while frames had stopped raises `FramesStopped`.
    """
    from playwright.sync_api import TimeoutError as WaitedInVain

    fresh = started.new_context(**({"viewport": {"width": 1280, "height": 900}} | context))
    ending = threading.Timer(longest, os.kill, (started.process(), signal.SIGKILL))
    ending.daemon = True
    ending.start()
    try:
        yield _watch(fresh, path)
    except WaitedInVain as error:
        if fresh.pages and fresh.pages[0].evaluate(STOPPED, FRAME):
            raise FramesStopped(f"no frame in {FRAME / 1000:g} s") from error
        raise
    finally:
        ending.cancel()
        fresh.close()


def _watch(fresh: Any, path: Path) -> Watched:
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
    return seen


def seen_whole(tab: Any) -> None:
    """Scroll through the page, so that everything that waits to be seen is drawn."""
    # What is in view is told of once a frame: two frames must pass, however slow they are.
    stopped = tab.evaluate(
        f"""async (limit) => {{
          const stopped = {STOPPED};
          for (let y = 0; y < document.documentElement.scrollHeight; y += 500) {{
            scrollTo({{ top: y, behavior: "instant" }});
            if (await stopped(limit)) return y;
          }}
          return null;
        }}""",
        FRAME,
    )
    if stopped is not None:
        raise FramesStopped(f"no frame in {FRAME / 1000:g} s after scrolling to {stopped}")
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
