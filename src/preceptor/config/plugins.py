"""The implementations of a seam by name: those built in, and those that other packages register.

A package registers its own under the entry point group `preceptor.<seam>`, for example `preceptor.metrics`.
Entry points are read when a name is asked for, and a package is imported when its own name is.
"""

import sys
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from types import MappingProxyType
from typing import TYPE_CHECKING, Generic, TypeVar, cast

from preceptor.errors import StudyError, nearest

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint

T = TypeVar("T")


@dataclass(frozen=True)
class Registry(Generic[T]):
    """What is known of one seam. `group` names its entry points; `noun` stands in errors.

    A value of `built_in` is the thing itself, or `"module:attribute"` where importing it must wait.

    Raises:
        StudyError: two packages register one name, or one registers a name that is built in.
    """

    group: str
    noun: str
    built_in: Mapping[str, T | str]

    def __getitem__(self, name: str) -> T:
        """Return what has this name; StudyError where nothing has or its package cannot be loaded."""
        from importlib.metadata import EntryPoint

        found = _found(self, tuple(sys.path))
        if name in self.built_in:
            value = self.built_in[name]
            return cast(T, EntryPoint(name, value, "").load() if isinstance(value, str) else value)
        if name not in found:
            raise StudyError(
                f"No {self.noun} is called '{name}'; known are {', '.join(self.names())}."
                f"{nearest(name, self.names())}"
            )
        try:
            return cast(T, found[name].load())
        # Whatever another package does while it is imported, the user is told whose it is.
        except Exception as error:
            raise StudyError(
                f"The {self.noun} '{name}' of {_package(found[name])} cannot be loaded: "
                f"{type(error).__name__}: {error}. Repair the package or uninstall it."
            ) from error

    def names(self) -> list[str]:
        """Return every name, the built-in ones first."""
        return [*self.built_in, *sorted(_found(self, tuple(sys.path)))]

    def __hash__(self) -> int:
        return hash(self.group)


@lru_cache
def _found(registry: Registry[T], _path: tuple[str, ...]) -> Mapping[str, "EntryPoint"]:
    """Return the entry points of other packages; looking for them takes 20 ms, so it is done once a path."""
    from importlib.metadata import entry_points

    found: dict[str, EntryPoint] = {}
    for point in entry_points(group=f"preceptor.{registry.group}"):
        other = _package(found[point.name]) if point.name in found else None
        if point.name in registry.built_in or other:
            raise StudyError(
                f"{_package(point)} registers the {registry.noun} '{point.name}', which "
                f"{other or 'Preceptor itself'} already has. Give it another name, or uninstall one."
            )
        found[point.name] = point
    return MappingProxyType(found)


def _package(point: "EntryPoint") -> str:
    return f"the package '{point.dist.name} {point.dist.version}'" if point.dist else point.value
