"""A user's own outcomes, kept in the store's folder, and found by name like the shipped studies."""

import json
import logging
import re

from pydantic import Field, FiniteFloat

from preceptor.agreement.orders import Observed, read_observed
from preceptor.config.base import Table, checked
from preceptor.errors import StudyError, nearest
from preceptor.store.directory import Folder
from preceptor.store.store import Store
from preceptor.studies.study import OutcomeStudy, names, shipped, study
from preceptor.types import DataKind

logger = logging.getLogger(__name__)

MOST = 100_000
"""Scores that one study may hold."""

_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")


class OwnOutcomes(Table):
    """What a user says of outcomes: the file that stands beside the store."""

    kind: DataKind = Field(description="What the teachers' responses are.")
    outcomes: dict[str, dict[str, FiniteFloat]] = Field(description="Student, teacher, score.")
    score: str = Field("your score", description="What the score is, in words.")
    source: str = Field("your own outcomes", description="Where they are from, in words.")
    noise: float | None = Field(
        None, gt=0, description="Standard deviation of a score between runs, in its unit."
    )


class OwnStudies:
    """The user's outcome studies beside one store; a name is lower case and none of a shipped study."""

    def __init__(self, store: str) -> None:
        self.store = store

    @property
    def _folder(self) -> Folder:
        return Store(self.store).beside("studies")

    def names(self) -> tuple[str, ...]:
        """Return the names, sorted."""
        files = (name.removesuffix(".json") for name in self._folder.names())
        return tuple(name for name in files if _NAME.fullmatch(name))

    def add(
        self, name: str, path: str, *, dimension: str | None = None, **said: object
    ) -> OutcomeStudy:
        """Keep the outcomes of a file (see `read_observed`) under a name; one of this name is replaced.

        Raises:
            DataError: the file cannot be read or holds no outcomes.
            StudyError: the name cannot be one, or there is nothing to compare.
        """
        if not _NAME.fullmatch(name) or name in names():
            raise StudyError(
                f"'{name:.80}' cannot name a study of yours: expected lower-case letters, digits, '.', "
                f"'_' or '-', and none of {', '.join(names())}. Give another with --name."
            )
        outcomes = read_observed(path, dimension)
        scores = sum(map(len, outcomes.values()))
        if max(map(len, outcomes.values()), default=0) < 2 or scores > MOST:
            raise StudyError(
                f"'{path}' holds {scores:,} scores: expected two teachers of one student at least, and "
                f"{MOST:,} scores at most."
            )
        kept = checked(OwnOutcomes, {"outcomes": outcomes, **said}, where=path)
        self._folder.put(f"{name}.json", kept.model_dump_json(indent=1).encode())
        return self.find(name)

    def remove(self, name: str) -> None:
        """Forget the study; StudyError where none has this name."""
        self._require(name)
        self._folder.delete(f"{name}.json")

    def find(self, name: str) -> OutcomeStudy:
        """Return the study; StudyError where none has this name, or its file is no longer one."""
        self._require(name)
        where = f"{self._folder.path}/{name}.json"
        with self._folder.open(f"{name}.json") as file:
            try:
                given = json.loads(file.read())
            except (ValueError, RecursionError) as error:
                raise StudyError(f"'{where}' is not JSON: add the outcomes again.") from error
        held = checked(OwnOutcomes, given, where=where)
        said = held.model_dump(exclude={"outcomes"})
        return OutcomeStudy(name, "your own outcomes", outcomes=held.outcomes, own=True, **said)

    def _require(self, name: str) -> None:
        if name not in (known := self.names()):
            raise StudyError(
                f"No study of yours beside '{self.store}' is called '{name:.80}'; there are "
                f"{', '.join(known) or 'none'}.{nearest(name, known)}"
            )


def every(store: str) -> tuple[OutcomeStudy, ...]:
    """Return the shipped studies and the user's own; one that is damaged is told of and skipped."""
    own, found = OwnStudies(store), list(shipped())
    for name in own.names():
        try:
            found.append(own.find(name))
        except StudyError as error:
            logger.warning("%s", error)
    return tuple(found)


def named(name: str, store: str) -> OutcomeStudy | None:
    """Return the study of this name, shipped or the user's own, or None."""
    if name in names():
        return study(name)
    own = OwnStudies(store)
    return own.find(name) if name in own.names() else None


def observed_of(name: str, store: str, dimension: str | None = None) -> tuple[Observed, str]:
    """Return the outcomes of a study or of a file (see `read_observed`), and where they are from in words.

    Raises:
        DataError: it is no study, and no file that can be read.
        StudyError: a dimension is named of a study, which has one order.
    """
    one = named(name, store)
    if one is None:
        return read_observed(name, dimension), f"{name}, {dimension}" if dimension else name
    if dimension is not None:
        raise StudyError(f"The study '{name}' has no dimensions: leave --dimension out.")
    return one.outcomes, ", ".join((f"{one.source}; {one.score}", *one.marks))
