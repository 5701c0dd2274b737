"""Every relative link of a document leads to a file that is there, and every anchor to a heading."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md", "SECURITY.md")]
PAGES += sorted(ROOT.glob("docs/**/*.md"))
LINK = re.compile(r"\]\(\s*<?([^)\s>]+)>?(?:\s+\"[^\"]*\")?\)|(?:src|href)=\"([^\"]+)\"")
FENCE = re.compile(r"^ {0,8}(```+|~~~+).*?^ {0,8}\1", re.M | re.S)
CODE = re.compile(r"(`+)(?!`).+?(?<!`)\1(?!`)", re.S)
MENTION = re.compile(r"(?<![\w/.])docs/[\w/-]+\.(?:md|py)\b")
ELSEWHERE = re.compile(r"dataset-formats/")
"""A document of another project that a comment names."""


def prose(text: str) -> str:
    return CODE.sub("", FENCE.sub("", text))


def anchors(text: str) -> set[str]:
    """Return the anchors of a page's headings, as both GitHub and the site make them."""
    found: set[str] = set()
    for title in re.findall(r"^#{1,6} (.+?)\s*$", FENCE.sub("", text), re.M):
        given = re.search(r"\{ *#([\w-]+) *\}$", title)
        plain = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", title).replace("`", "")
        slug = re.sub(r"\s", "-", re.sub(r"[^\w\s-]", "", plain).strip().lower())
        found.add(given[1] if given else slug)
    return found | set(re.findall(r"<a (?:id|name)=\"([^\"]+)\"", text))


def broken(page: Path) -> list[str]:
    """Return what is wrong with the relative links of a page."""
    wrong = []
    for groups in LINK.findall(prose(page.read_text(encoding="utf-8"))):
        target = groups[0] or groups[1]
        if re.match(r"[a-z]+:", target):
            continue
        path, _, anchor = target.partition("#")
        there = (page.parent / path).resolve() if path else page
        if not there.exists():
            wrong.append(f"{target}: no such file")
        elif anchor and there.suffix == ".md" and anchor not in anchors(there.read_text("utf-8")):
            wrong.append(f"{target}: no such heading")
    return wrong


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_relative_link_leads_somewhere(page: Path):
    assert not broken(page)


def test_a_broken_link_and_a_broken_anchor_are_seen(tmp_path: Path):
    (tmp_path / "there.md").write_text("# One `name`, two\n```\n# not a heading\n```\n")
    page = tmp_path / "page.md"
    page.write_text(
        "[a](there.md#one-name-two) [b](there.md#not-a-heading) [c](gone.md) `[d](code.md)`\n"
        '<img src="gone.png"> [e](https://example.org/x) [f](#top)\n# Top\n'
    )
    assert broken(page) == [
        "there.md#not-a-heading: no such heading",
        "gone.md: no such file",
        "gone.png: no such file",
    ]


NAMING = ("*.md", "Makefile", "docs/**/*.md", "examples/*.toml")
NAMING += tuple(
    f"{folder}/**/*.{end}" for folder in ("src", "bench", "tests") for end in ("py", "toml")
)


def test_every_page_that_a_text_names_is_there():
    gone = [
        f"{path.relative_to(ROOT)}: {found}"
        for pattern in NAMING
        for path in sorted(ROOT.glob(pattern))
        for found in MENTION.findall(path.read_text(encoding="utf-8"))
        if not ELSEWHERE.search(found) and not (ROOT / found).is_file()
    ]
    assert not gone


def test_the_readme_is_short():
    assert len((ROOT / "README.md").read_text(encoding="utf-8").splitlines()) <= 120
