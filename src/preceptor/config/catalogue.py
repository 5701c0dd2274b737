"""The catalogue of teachers: the paper's twenty response generators and what one would try today.

The one idea: an entry says what a user must know before asking a model to teach (where it is, what it costs
to run, what its licence says of answers, how its chat behaves), and nothing in a study depends on it. The
entries stand in `teachers.toml` beside this module, with the source of each fact.
"""

import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

_FILE = Path(__file__).with_name("catalogue.toml")


@dataclass(frozen=True)
class CatalogueEntry:
    """A teacher as the catalogue knows it.

    `name` is short, lower case and unique. `label` is how the paper's table 1 or the maker writes it.
    `family` groups relatives, in the paper's words for its seven families. `released` is a month, as
    "2024-06". `model` is the Hub id, or where `hosted` the name its maker serves it by. `parameters` and
    `active` (of a mixture of experts, for one token) are in billions; None where unknown or, for `active`,
    where all are. `licence` is a short name: read the text itself. `context` is in tokens, prompt and
    response together, without changes to the model. `notes` are sentences about it. `in_paper` marks the
    rows of table 1, whose label, family, release and size are then the paper's own.
    """

    name: str
    label: str
    family: str
    released: str
    model: str
    licence: str
    context: int
    hosted: bool = False
    parameters: float | None = None
    active: float | None = None
    notes: tuple[str, ...] = ()
    in_paper: bool = False


def _entries(tables: Mapping[str, Any]) -> Iterator[CatalogueEntry]:
    """Yield one entry for each teacher of each family, the family's fields filled in."""
    for family in tables["family"]:
        shared = {key: value for key, value in family.items() if key not in {"name", "teachers"}}
        for teacher in family["teachers"]:
            fields = {**shared, **teacher, "family": family["name"]}
            fields["notes"] = (*family.get("notes", ()), *teacher.get("notes", ()))
            yield CatalogueEntry(**fields)


CATALOGUE: tuple[CatalogueEntry, ...] = tuple(
    _entries(tomllib.loads(_FILE.read_text(encoding="utf-8")))
)
"""Every teacher of the catalogue, relatives together: the paper's families first, in the order of table 1."""

_BY_NAME: Mapping[str, CatalogueEntry] = MappingProxyType(
    {
        name.casefold(): entry
        for entry in CATALOGUE
        for name in (entry.name, entry.label, entry.model)
    }
)


def find_teacher(name: str) -> CatalogueEntry | None:
    """Return the entry with this short name, Hub id, or label (the paper's Model ID), or None.

    Upper and lower case, and space around the name, make no difference.
    """
    return _BY_NAME.get(name.strip().casefold())
