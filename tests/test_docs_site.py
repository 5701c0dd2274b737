"""The documentation's site is built strictly, offline, and loads nothing from elsewhere."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
LOADED = re.compile(
    r"<(?:link|script|img|iframe|source)\b[^>]*?\b(?:src|href)=\"?(?:https?:)?//([^\" >]+)"
)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("mkdocs", reason="the site needs the extra docs")
    folder = tmp_path_factory.mktemp("site")
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(folder)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        env={"PATH": "", "HOME": str(folder), "NO_MKDOCS_2_WARNING": "1"},
    )
    assert done.returncode == 0, done.stderr
    assert "WARNING" not in done.stderr
    return folder


def test_every_page_is_in_the_site_and_found_from_the_home_page(site: Path):
    pages = {path.relative_to(ROOT / "docs") for path in ROOT.glob("docs/**/*.md")}
    home = (site / "index.html").read_text(encoding="utf-8")
    for page in pages:
        html = site / page.with_suffix(".html")
        assert html.is_file(), page
        folder = page.parts[0]
        assert f'href="{folder}/index.html"' in home or page.parent == Path(), page


def test_a_page_loads_nothing_from_elsewhere(site: Path):
    for path in site.glob("**/*.html"):
        found = LOADED.findall(path.read_text(encoding="utf-8"))
        assert not found, f"{path.relative_to(site)}: {found}"


def test_files_that_are_no_pages_come_along(site: Path):
    page = (site / "how-to" / "extend.html").read_text(encoding="utf-8")
    target = re.search(r'href="([^"]+reward_per_token\.py)"', page)
    assert target is not None
    assert (site / "how-to" / target[1]).resolve().is_file()
    assert not list(site.glob("**/render_*.py"))
