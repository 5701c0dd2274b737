"""The catalogue of teachers: the paper's twenty response generators, what one would try today, and one's own.

An entry says what a user must know before asking a model to teach: where it is, its size, its licence, its
price, how its chat behaves. The shipped entries stand in `catalogue.toml`, with the source of each fact; a
file of the user's adds to them (`Catalogue.read`) and goes before them.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from functools import cache, cached_property
from math import inf
from pathlib import Path
from typing import Any, Literal, get_args

from preceptor.errors import StudyError, nearest

_FILE = Path(__file__).with_name("catalogue.toml")

Training = Literal["free", "conditions", "barred"]
"""What a licence says of training any student on answers: free, under conditions, or barred for others."""


@dataclass(frozen=True)
class CatalogueEntry:
    """A teacher as a catalogue knows it.

    `name` is short, lower case and unique. `label` is how the paper's table 1 or the maker writes it.
    `family` groups relatives, in the paper's words for its seven families. `released` is a month, as
    "2024-06". `model` is the Hub id, or where `hosted` the name its maker serves it by. `parameters` and
    `active` (of a mixture of experts, for one token) are in billions; None where unknown or, for `active`,
    where all are. `licence` is a short name: read the text itself; `training` is what it says of training
    on answers, None where that is not known here. `context` is in tokens, prompt and response together,
    without changes to the model. `price_in` and `price_out` are US dollars for a million tokens. `notes` are
    sentences about it. `in_paper` marks the rows of table 1, whose label, family, release and size are then
    the paper's own. `advised` are the settings of sampling that its maker recommends (temperature, top_p,
    top_k), and `never_greedy` says that its maker warns of greedy decoding.
    """

    name: str
    label: str
    family: str
    released: str
    model: str
    licence: str | None = None
    context: int | None = None
    hosted: bool = False
    parameters: float | None = None
    active: float | None = None
    price_in: float | None = None
    price_out: float | None = None
    training: Training | None = None
    notes: tuple[str, ...] = ()
    in_paper: bool = False
    advised: Mapping[str, float] = field(default_factory=dict)
    never_greedy: bool = False

    def is_allowed(self, licences: Iterable[str]) -> bool:
        """Tell whether the licence is one of these, or what it allows is: `free` or `conditions`."""
        wanted = {name.strip().casefold() for name in licences}
        allowed = {"free": {"free", "conditions"}, "conditions": {"conditions"}}
        return (self.licence or "").casefold() in wanted or bool(
            wanted & allowed.get(self.training or "", set())
        )


class Catalogue:
    """Entries that are found by short name, Hub id or label; of two the first counts."""

    def __init__(self, entries: Iterable[CatalogueEntry]) -> None:
        self._given = entries

    @cached_property
    def entries(self) -> tuple[CatalogueEntry, ...]:
        """The entries, relatives together; of the shipped ones the paper's families first, as in table 1."""
        return tuple(self._given)

    @classmethod
    def of(cls, tables: Mapping[str, Any], *, where: str) -> "Catalogue":
        """Return the catalogue of a file's `[[family]]` and `[[teachers]]` tables.

        A teacher needs `name` and `model`; label and family are the name where they are not given.

        Raises:
            StudyError: a table lacks one of these, or has an unknown field.
        """
        return cls(tuple(_entries(tables, where)))

    @cached_property
    def _by_name(self) -> Mapping[str, CatalogueEntry]:
        return {
            name.strip().casefold(): entry
            for entry in reversed(self.entries)
            for name in (entry.label, entry.model, entry.name)
        }

    def find(self, name: str) -> CatalogueEntry | None:
        """Return the entry with this short name, Hub id, or label (the paper's Model ID), or None.

        Upper and lower case, and space around the name, make no difference.
        """
        return self._by_name.get(name.strip().casefold())

    def filtered(
        self, licences: Sequence[str] = (), *, in_paper: bool = False
    ) -> list[CatalogueEntry]:
        """Return the entries under these licences (see `is_allowed`), or only those of the paper's table 1.

        Raises:
            StudyError: none is left.
        """
        found = [entry for entry in self.entries if entry.in_paper or not in_paper]
        kept = [entry for entry in found if not licences or entry.is_allowed(licences)]
        if not kept:
            known = sorted({entry.licence for entry in found if entry.licence})
            raise StudyError(
                f"No teacher listed has the licence {' or '.join(licences)}. There are: "
                f"{', '.join(known)}; or 'free' and 'conditions'.{nearest(licences[0], known)}"
            )
        return kept

    def label(self, teacher: str) -> str:
        """Return the label of a teacher, else the name itself."""
        entry = self.find(teacher)
        return entry.label if entry else teacher.strip()

    def family(self, teacher: str) -> str:
        """Return the family of a teacher, else the teacher's own name: a family of one."""
        entry = self.find(teacher)
        return entry.family if entry else teacher

    def size(self, teacher: str) -> float | None:
        """Return the billions of parameters; None where they are not known."""
        entry = self.find(teacher)
        return entry.parameters if entry else None

    def __add__(self, other: "Catalogue") -> "Catalogue":
        return Catalogue((*self.entries, *other.entries))


_FIELDS = {field.name for field in fields(CatalogueEntry)}
_AMOUNTS = ("parameters", "active", "price_in", "price_out")


def _entries(tables: Mapping[str, Any], where: str) -> Iterator[CatalogueEntry]:
    """Yield one entry for each teacher, the fields of its family filled in."""
    training = tables.get("licences", {})
    if not isinstance(training, dict):
        raise StudyError(f"{where}: 'licences' is {training!r:.60}: expected a table.")
    for family in (*_listed(tables, "family", where), {"teachers": tables.get("teachers", ())}):
        shared = {key: value for key, value in family.items() if key not in {"name", "teachers"}}
        for teacher in _listed(family, "teachers", where):
            given = {"family": family.get("name"), **shared, **teacher}
            notes = [of["notes"] for of in (family, teacher) if "notes" in of]
            if len(notes) > 1 and all(isinstance(one, list) for one in notes):
                given["notes"] = [*notes[0], *notes[1]]
            yield _entry(given, training, where)


def _listed(tables: Mapping[str, Any], name: str, where: str) -> Sequence[Mapping[str, Any]]:
    found = tables.get(name, ())
    if isinstance(found, list | tuple) and all(isinstance(one, dict) for one in found):
        return found
    raise StudyError(f"{where}: '{name}' is {found!r:.60}: expected tables, each under [[{name}]].")


def _entry(given: dict[str, Any], training: Mapping[str, Training], where: str) -> CatalogueEntry:
    for name in ("name", "model"):
        if not isinstance(given.get(name), str):
            raise StudyError(f"{where}: a teacher has no {name}. Each needs a name and a model.")
    for name in given:
        if name not in _FIELDS or (name == "advised" and not isinstance(given[name], Mapping)):
            raise StudyError(
                f"{where}: the teacher '{given['name']}' has the unknown field '{name}'."
                f"{nearest(name, _FIELDS)}"
            )
    known = {"label": given["name"], "released": ""}
    known |= {name: value for name, value in given.items() if value is not None}
    known["family"] = given.get("family") or given["name"]
    entry = CatalogueEntry(**known) if where == _FILE.name else _checked(known, where)
    said = entry.training or training.get(entry.licence or "") or training_of(entry.licence)
    if said not in (None, *get_args(Training)):
        raise StudyError(
            f"{where}: the licence '{entry.licence}' is '{said!s:.60}' for training: expected one of "
            f"{', '.join(get_args(Training))}."
        )
    return replace(entry, notes=tuple(entry.notes), training=said)


def _checked(given: Mapping[str, Any], where: str) -> CatalogueEntry:
    """Return the entry of a user's file; StudyError where a value is of another type or no amount."""
    from pydantic import TypeAdapter, ValidationError

    try:
        entry = TypeAdapter(CatalogueEntry).validate_python(given)
    except ValidationError as error:
        wrong = error.errors()[0]
        found = f"{wrong['loc'][0]}: {wrong['msg']}"
    else:
        amounts = ((name, getattr(entry, name)) for name in _AMOUNTS)
        name = next((n for n, value in amounts if value is not None and not 0 <= value < inf), None)
        if name is None:
            return entry
        found = f"{name}: Input should be a number of 0 or more"
    raise StudyError(f"{where}: the teacher '{given['name']}': {found}.")


def training_of(licence: str | None) -> Training | None:
    """Return what the shipped catalogue knows of a licence by name."""
    known: Mapping[str, Training] = _shipped().get("licences", {})
    return {name.casefold(): what for name, what in known.items()}.get((licence or "").casefold())


@cache
def _shipped() -> dict[str, Any]:
    import tomllib

    return tomllib.loads(_FILE.read_text(encoding="utf-8"))


def _shipped_entries() -> Iterator[CatalogueEntry]:
    yield from _entries(_shipped(), _FILE.name)


# The file is read when an entry is first asked for: help must not wait for it.
SHIPPED = Catalogue(_shipped_entries())
"""The catalogue that comes with the package."""

find_teacher = SHIPPED.find
