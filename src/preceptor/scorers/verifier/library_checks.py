r"""Checks by a library: an RE2 pattern, a JSON Schema, the equality of mathematical answers.

They run in a worker process (`worker`), which ends when one takes too long: a power or a schema of an
untrusted data set can keep a library busy for ever. Packages are imported at first use.
"""

import json
from functools import lru_cache
from typing import Any

import orjson

from preceptor.errors import DataError, require

PATTERN_BYTES = 8 << 20
"""Memory of one pattern's automaton; RE2 refuses patterns that need more."""

_MODULES = {
    "regex": "re2",
    "json_schema": "jsonschema",
    "math": "math_verify",
}
"""The module behind each kind of check."""

LIBRARY_KINDS = frozenset(_MODULES)
"""The kinds of reference that are checked by a library."""


def require_package(kind: str) -> None:
    """Make sure that the package behind a kind of check can be imported, where it needs one.

    Raises:
        MissingPackage: It is not installed.
    """
    if kind in _MODULES:
        require(_MODULES[kind], purpose=f"A reference of kind '{kind}'")


def import_package(kind: object) -> None:
    """Import the package behind a kind of check, so that the check itself is timed alone."""
    if isinstance(kind, str) and kind in _MODULES:
        __import__(_MODULES[kind])


def pattern_occurs(pattern: str, text: str) -> bool:
    """Tell whether an RE2 pattern occurs in a text; DataError where it is no such pattern."""
    return _pattern(pattern).search(_without_surrogates(text)) is not None


def pattern_spans(pattern: str, texts: list[str]) -> bool:
    """Tell whether an RE2 pattern spans one of these texts; DataError where it is no such pattern."""
    compiled = _pattern(pattern)
    return any(compiled.fullmatch(_without_surrogates(text)) is not None for text in texts)


@lru_cache(maxsize=64)
def _pattern(source: str) -> Any:
    import re2  # type: ignore[import-untyped]

    options = re2.Options()
    options.log_errors = False
    options.max_mem = PATTERN_BYTES
    try:
        return re2.compile(_without_surrogates(source), options)
    except re2.error as error:
        reason = error.args[0] if error.args else error
        problem = reason.decode(errors="replace") if isinstance(reason, bytes) else str(reason)
        raise DataError(
            f"The pattern {source!r:.80} is not one of RE2's: {problem}. "
            "RE2 has neither look-around nor back-references."
        ) from None


def _without_surrogates(text: str) -> str:
    return text.encode("utf-8", "replace").decode()


def schema_accepts(schema: object, source: str) -> bool:
    """Tell whether a JSON text is valid under a schema; DataError where the schema is none."""
    from jsonschema.exceptions import SchemaError  # type: ignore[import-untyped]
    from referencing.exceptions import Unresolvable

    try:
        return bool(_schema_validator(json.dumps(schema)).is_valid(orjson.loads(source)))
    except SchemaError as error:
        raise DataError(f"The schema is not one: {error.message:.200}") from None
    except Unresolvable as error:
        raise DataError(f"The schema refers to what it does not hold: {error!s:.200}") from None


@lru_cache(maxsize=64)
def _schema_validator(source: str) -> Any:
    from jsonschema import Draft202012Validator  # type: ignore[import-untyped]
    from jsonschema.validators import validator_for  # type: ignore[import-untyped]
    from jsonschema_specifications import REGISTRY  # type: ignore[import-untyped]

    schema = json.loads(source)
    validator = validator_for(schema, default=Draft202012Validator)
    validator.check_schema(schema)
    # A registry of our own holds the standard dialects and fetches nothing.
    return validator(schema, registry=REGISTRY)


def equal_as_mathematics(answer: str, passages: list[str]) -> bool:
    """Tell whether one of these passages equals the answer; DataError where the answer is unreadable."""
    from math_verify import parse, verify  # type: ignore[import-untyped]

    wanted = _wanted_answer(answer)
    # The library's own time limit is a signal in the main thread; the process is ended instead.
    readings = (parse(passage, parsing_timeout=None) for passage in passages)
    return any(verify(wanted, reading, timeout_seconds=None) for reading in readings)


@lru_cache(maxsize=64)
def _wanted_answer(answer: str) -> Any:
    from math_verify import parse

    wanted = parse(f"\\boxed{{{answer}}}", parsing_timeout=None)
    if not wanted:
        raise DataError(f"The answer {answer!r:.80} cannot be read as mathematics.")
    return wanted
