"""The page is one file that opens offline, runs nothing, and shows no label as markup."""

import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

from preceptor.evidence import Evidence, Report
from preceptor.report import page as module
from preceptor.results import Ranking
from small_study import ranking_of


def page(rankings: list[Ranking]) -> str:
    found = tuple(Evidence(ranking, {}, {}) for ranking in rankings)
    return module.page(Report(found, "Teachers", "preceptor"))


class Tags(HTMLParser):
    """Collects tags, their attributes, and text."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.text = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += attrs

    def handle_data(self, data: str) -> None:
        self.text += data


def parsed(text: str) -> Tags:
    tags = Tags()
    tags.feed(text)
    tags.close()
    return tags


def test_a_page_needs_nothing_from_elsewhere_and_runs_no_script(tmp_path: Path):
    text = page([ranking_of(tmp_path)])
    tags = parsed(text)
    assert {"script", "link", "img", "iframe"}.isdisjoint(tags.tags)
    names = {name for name, _ in tags.attributes}
    assert {"src", "href"}.isdisjoint(names)
    assert not any(name.startswith("on") for name in names)
    assert "default-src 'none'" in text
    assert not re.search(r"https?://|@import|url\(", text)


def test_every_ranking_has_its_section_with_verdict_and_teachers(tmp_path: Path):
    ranking = ranking_of(tmp_path)
    other = replace(ranking, student="another student")
    tags = parsed(page([ranking, other]))
    assert tags.tags.count("section") == 2
    assert ranking.verdict() in tags.text
    assert other.verdict() in tags.text
    for result in ranking.teachers:
        assert tags.text.count(result.teacher) >= 2


def test_labels_and_warnings_are_escaped(tmp_path: Path):
    ranking = ranking_of(tmp_path)
    bad = '<img src=x onerror="alert(1)">'
    teachers = tuple(replace(result, teacher=bad) for result in ranking.teachers)
    changed = replace(ranking, student=bad, teachers=teachers, warnings=(bad,))
    tags = parsed(page([changed]))
    assert "img" not in tags.tags
    assert bad in tags.text
