"""The version of the JSON that Preceptor writes for other programs, and the check of what it reads.

It is raised where a field goes, changes its meaning or its unit; a new field beside the others leaves it.
"""

from collections.abc import Mapping
from typing import Any

from preceptor.errors import DataError

SCHEMA_VERSION = 1
"""The version of every object that `--json` writes, in its field `schema_version`."""

_FIELD = "schema_version"


def versioned(record: Mapping[str, Any]) -> dict[str, Any]:
    """Return the record with its version first; one that has it stays as it is."""
    return dict(record) if _FIELD in record else {_FIELD: SCHEMA_VERSION, **record}


def require_version(record: Mapping[str, Any], where: str) -> None:
    """Refuse what a newer version wrote: its fields may mean something else.

    An object without a version is read: other programs write rankings too.

    Args:
        record: an object that was read.
        where: what it was read from, in words.

    Raises:
        DataError: the version is newer than this one's, or no version.
    """
    found = record.get(_FIELD, SCHEMA_VERSION)
    if not isinstance(found, int) or isinstance(found, bool) or found < 1:
        raise DataError(
            f"{where} has {_FIELD} {found!r:.40}: expected a whole number from 1 to {SCHEMA_VERSION}."
        )
    if found > SCHEMA_VERSION:
        raise DataError(
            f"{where} has {_FIELD} {found}, and this Preceptor reads up to {SCHEMA_VERSION}. A newer one "
            "wrote it: update with pip install --upgrade preceptor."
        )
