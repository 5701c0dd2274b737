"""Let pages link to files of the repository that are no pages, such as examples: the site gets copies.

A link that leaves `docs/` works in the repository. In the site it would lead nowhere, so the file is put
under `repository/` and the link leads there. And a list that the site would not show as one is told.
"""

import logging
import os
import re
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

logger = logging.getLogger("mkdocs.hooks.site_links")

_PARAGRAPH = re.compile(r"<p>(?:(?!</p>).)*\n[*+-] ((?:(?!</p>).)*)", re.DOTALL)
_LINK = re.compile(r"\]\(((?:\.\./)+[^)#\s]+)\)")


def on_files(files: Files, config: Any) -> Files:
    """Add every file outside `docs/` that a page links to."""
    root = Path(config["docs_dir"]).parent
    for page in files.documentation_pages():
        for target in _LINK.findall(page.content_string):
            if (path := _outside(page.src_uri, target)) and (root / path).is_file():
                name = f"repository/{path}"
                if files.get_file_from_path(name) is None:
                    files.append(File.generated(config, name, abs_src_path=str(root / path)))
    return files


def on_page_markdown(markdown: str, page: Page, config: Any, files: Files) -> str:
    """Turn links that leave `docs/` to the copies."""

    def turned(found: re.Match[str]) -> str:
        path = _outside(page.file.src_uri, found[1])
        if path is None or files.get_file_from_path(f"repository/{path}") is None:
            return found[0]
        start = os.path.dirname(page.file.src_uri) or "."
        return f"]({os.path.relpath(f'repository/{path}', start)})"

    return _LINK.sub(turned, markdown)


def on_page_content(html: str, page: Page, config: Any, files: Files) -> str:
    """Warn of the point of a list that has become a part of the paragraph before it.

    Elsewhere two spaces are enough before a point's second paragraph, and the next point may follow at once;
    here four are needed, and an empty line.
    """
    for found in _PARAGRAPH.finditer(html):
        logger.warning(
            "%s: '* %s' is shown as no point of a list: put an empty line before it",
            page.file.src_uri,
            found[1][:50],
        )
    return html


def _outside(page: str, target: str) -> str | None:
    """Return the path from the repository's root of a link that leaves `docs/`, None of one that does not."""
    path = os.path.normpath(os.path.join("docs", os.path.dirname(page), target))
    return None if path.startswith(("docs/", "..")) else path
