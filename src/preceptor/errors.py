"""The ways Preceptor fails on purpose.

Every message says what was seen, what was expected or exists, and what to do. The command line prints
them without a traceback; anything else that escapes is a defect.
"""

import difflib
from collections.abc import Iterable
from typing import Any


class PreceptorError(Exception):
    """The parent of every error a user is meant to read.

    `finished` holds the rankings that were done before it, where a run makes several.
    """

    finished: tuple[Any, ...] = ()


class DataError(PreceptorError):
    """Responses or instructions that cannot be read or compared."""


class StudyError(PreceptorError):
    """A question that cannot be answered as asked: wrong option, missing measure, too little data."""


class ModelError(PreceptorError):
    """A model or tokenizer that cannot be loaded or used as asked."""


class StoreError(PreceptorError):
    """A store that cannot be read or written."""


class RowError(StoreError):
    """A row that no shard can hold; the rows that came with it are stored."""


class MissingPackage(PreceptorError):
    """An optional package that the request needs is not installed."""

    def __init__(self, package: str, *, purpose: str, extra: str) -> None:
        super().__init__(
            f"{purpose} needs the package '{package}', which is not installed. "
            f"Install it with: pip install 'preceptor[{extra}]'"
        )


def nearest(name: str, known: Iterable[str]) -> str:
    """Return `" Did you mean 'x'?"` for the known name closest to `name`, or an empty string."""
    match = difflib.get_close_matches(name, list(known), n=1, cutoff=0.5)
    return f" Did you mean '{match[0]}'?" if match else ""
