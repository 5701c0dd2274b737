"""Batches that a provider has in work, kept beside the rows that they will bring.

A batch is written down before it is handed over, so that a run that was killed at any moment finds it again:
by the provider's name for it, or where that was not written any more by a token that went along.
"""

import json
import logging
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING
from uuid import uuid4

if TYPE_CHECKING:
    from preceptor.store.directory import Folder

logger = logging.getLogger(__name__)

_PREFIX = "batch-"
_DAYS_KEPT = 30  # providers keep results about as long


@dataclass(frozen=True)
class Batch:
    """A batch as it is remembered.

    `requests` are the ids of its requests, `where` the address it was handed to, `made` the seconds since
    1970. `id` is the provider's name for it, None until that is known. `collected` says that all its
    outcomes were handed on: what failed in it may then be asked again.
    """

    token: str
    where: str
    made: float
    requests: tuple[str, ...]
    id: str | None = None
    collected: bool = False

    @classmethod
    def of(cls, requests: Sequence[str], *, where: str) -> "Batch":
        """Return a new batch of these requests."""
        return cls(uuid4().hex, where, time.time(), tuple(requests))


class Batches:
    """The batches of one partition. Get them from `Shards.batches`."""

    def __init__(self, folder: "Folder") -> None:
        self._folder = folder

    def known(self) -> list[Batch]:
        """Return them, oldest first; what is too old to be collected again is removed."""
        found = []
        for name in self._folder.names():
            if not (name.startswith(_PREFIX) and name.endswith(".json")):
                continue
            batch = self._read(name)
            if batch is None:
                logger.warning("%s/%s is damaged and ignored", self._folder.path, name)
            elif batch.collected and time.time() - batch.made > _DAYS_KEPT * 86_400:
                self.drop(batch)
            else:
                found.append(batch)
        return sorted(found, key=lambda batch: batch.made)

    def keep(self, batch: Batch) -> None:
        """Write a batch down; durable when this returns."""
        self._folder.put(_name(batch), json.dumps(asdict(batch)).encode())

    def drop(self, batch: Batch) -> None:
        """Forget a batch."""
        self._folder.delete(_name(batch))

    def _read(self, name: str) -> Batch | None:
        with (
            self._folder.explained("read", name),
            suppress(ValueError, TypeError),
            self._folder.open(name) as handle,
        ):
            held = json.loads(handle.read())
            return Batch(**{**held, "requests": tuple(map(str, held["requests"]))})
        return None


def _name(batch: Batch) -> str:
    return f"{_PREFIX}{batch.token}.json"
