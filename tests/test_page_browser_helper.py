"""The browser of the tests never waits for ever, whatever the page in it does."""

import time
from pathlib import Path

import pytest

import page_browser
from page_browser import FramesStopped, browser, seen_whole, watched


def test_a_browser_is_killed_in_the_middle_of_an_endless_wait_and_started_again(tmp_path: Path):
    sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    path = tmp_path / "empty.html"
    path.write_text("<!doctype html><title>empty</title>", "utf-8")
    with browser() as started:
        begun = time.monotonic()
        with (
            pytest.raises(sync_api.Error, match="closed"),
            watched(started, path, longest=3.0) as seen,
        ):
            seen.page.evaluate("new Promise(() => {})")
        assert time.monotonic() - begun < 60
        with watched(started, path) as seen:
            assert seen.page.title() == "empty"


STILL = "<!doctype html><script>requestAnimationFrame = () => 0</script>"


def test_frames_that_stop_are_told_of(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    path = tmp_path / "still.html"
    path.write_text(STILL, "utf-8")
    monkeypatch.setattr(page_browser, "FRAME", 200)
    with (
        browser() as started,
        watched(started, path) as seen,
        pytest.raises(FramesStopped, match=r"no frame in 0\.2 s after scrolling to 0"),
    ):
        seen_whole(seen.page)


def test_a_wait_in_vain_is_the_browsers_fault_only_where_frames_stopped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    path = tmp_path / "page.html"
    with browser() as started:
        path.write_text("<!doctype html><title>alive</title>", "utf-8")
        with pytest.raises(sync_api.TimeoutError), watched(started, path) as seen:
            seen.page.locator("#missing").wait_for(timeout=100)
        monkeypatch.setattr(page_browser, "FRAME", 200)
        path.write_text(STILL, "utf-8")
        with pytest.raises(FramesStopped), watched(started, path) as seen:
            seen.page.locator("#missing").wait_for(timeout=100)
