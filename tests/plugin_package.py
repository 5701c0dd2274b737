"""A package of somebody else, installed as far as Python can tell: its metadata in a folder on the path."""

from collections.abc import Mapping
from pathlib import Path

EXTENSIONS = Path(__file__).parent / "extensions"
"""What a package would add, one class in one file."""


def install(
    site: Path, distribution: str, module: str, groups: Mapping[str, Mapping[str, str]]
) -> None:
    """Register names of each seam, each by its attribute of the module, for a distribution in `site`."""
    folder = site / f"{distribution.replace('-', '_')}-1.0.dist-info"
    folder.mkdir()
    head = f"Metadata-Version: 2.1\nName: {distribution}\nVersion: 1.0\n"
    (folder / "METADATA").write_text(head, encoding="utf-8")
    lines = []
    for group, names in groups.items():
        lines.append(f"[preceptor.{group}]")
        lines += [f"{name} = {module}:{attribute}" for name, attribute in names.items()]
    (folder / "entry_points.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
