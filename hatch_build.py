"""What a release says of where the project lies, which no file of it knows: a fork publishes its own.

`PRECEPTOR_REPOSITORY` is that address, https://HOST/OWNER/NAME; the workflow that publishes sets it. The
package then has links to it, and those of the README, which would lead nowhere on the package index, lead to
the files of the release's tag. Without it the README is taken as it is, and there are no links.
"""

import os
import re
from pathlib import Path
from typing import Any

from hatchling.metadata.plugin.interface import MetadataHookInterface

VARIABLE = "PRECEPTOR_REPOSITORY"

_LINK = re.compile(r"(\]\(|\b(?P<image>src)=\")(?!https?://|#)(?P<path>[^)\s\"]+)")


def absolute(text: str, repository: str, version: str) -> str:
    """Return Markdown with its relative links as addresses of the repository at a version's tag."""

    def turned(found: re.Match[str]) -> str:
        kind = "raw" if found["image"] else "blob"
        return f"{found[1]}{repository}/{kind}/v{version}/{found['path']}"

    return _LINK.sub(turned, text)


def links(repository: str) -> dict[str, str]:
    """Return the links that the package index shows beside a release."""
    return {
        "Repository": repository,
        "Documentation": f"{repository}/blob/main/docs/index.md",
        "Changelog": f"{repository}/blob/main/CHANGELOG.md",
        "Issues": f"{repository}/issues",
    }


class Repository(MetadataHookInterface):
    """Gives the readme, and the links where the address is known."""

    def update(self, metadata: dict[str, Any]) -> None:
        """Set `readme` and `urls`."""
        text = (Path(self.root) / "README.md").read_text(encoding="utf-8")
        repository = os.environ.get(VARIABLE, "").strip().rstrip("/")
        if repository:
            if not repository.startswith("https://"):
                raise ValueError(f"{VARIABLE} is '{repository}': expected https://HOST/OWNER/NAME.")
            text = absolute(text, repository, metadata["version"])
        metadata["readme"] = {"content-type": "text/markdown", "text": text}
        metadata["urls"] = links(repository) if repository else {}
