r"""The process in which untrusted patterns, schemas and formulas are tried: run, never imported.

The one idea: one line of JSON in, two out. A question is `{"kind", "reference", "text"}`, where the
text is JSON itself if several readings of one are tried. The first line out is empty and says that
the packages are imported; the second is `{"reward": 0.0 or 1.0}`, `{"refused": "what is wrong with the
reference"}` or `{"failed": "why there is no answer"}`. The other end, `bounded`, kills this process
when an answer is late.
"""

import json
import os
import sys
from collections.abc import Callable
from contextlib import suppress
from functools import lru_cache
from typing import IO, Any

import orjson

MEMORY_BYTES = 4 << 30
"""Address space the process may take, where the system can limit it: a power must not fill the machine."""

PATTERN_BYTES = 8 << 20
"""Memory of one pattern's automaton; RE2 refuses patterns that need more."""


class _Refused(Exception):
    """A reference that no text could be checked against."""


def _check_regex(reference: dict[str, Any], text: str) -> bool:
    pattern = _pattern(reference["pattern"])
    if not reference["full"]:
        return pattern.search(_without_surrogates(text)) is not None
    parts = json.loads(text)
    return any(pattern.fullmatch(_without_surrogates(part)) is not None for part in parts)


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
        said = reason.decode(errors="replace") if isinstance(reason, bytes) else str(reason)
        raise _Refused(
            f"The pattern {source!r:.80} is not one of RE2's: {said}. "
            "RE2 has neither look-around nor back-references."
        ) from None


def _without_surrogates(text: str) -> str:
    return text.encode("utf-8", "replace").decode()


def _check_schema(reference: dict[str, Any], text: str) -> bool:
    from jsonschema.exceptions import SchemaError  # type: ignore[import-untyped]
    from referencing.exceptions import Unresolvable

    try:
        return bool(_schema_validator(json.dumps(reference["schema"])).is_valid(orjson.loads(text)))
    except SchemaError as error:
        raise _Refused(f"The schema is not one: {error.message:.200}") from None
    except Unresolvable as error:
        raise _Refused(f"The schema refers to what it does not hold: {error!s:.200}") from None


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


def _check_math(reference: dict[str, Any], text: str) -> bool:
    from math_verify import parse, verify  # type: ignore[import-untyped]

    wanted = _wanted_answer(reference["answer"])
    # The library's own time limit is a signal; this process is killed instead.
    readings = (parse(passage, parsing_timeout=None) for passage in json.loads(text))
    return any(verify(wanted, reading, timeout_seconds=None) for reading in readings)


@lru_cache(maxsize=64)
def _wanted_answer(answer: str) -> Any:
    from math_verify import parse

    wanted = parse(f"\\boxed{{{answer}}}", parsing_timeout=None)
    if not wanted:
        raise _Refused(f"The answer {answer!r:.80} cannot be read as mathematics.")
    return wanted


_CHECKS: dict[str, tuple[tuple[str, ...], Callable[[dict[str, Any], str], bool]]] = {
    "regex": (("re2",), _check_regex),
    "json_schema": (("jsonschema",), _check_schema),
    "math": (("math_verify",), _check_math),
}


def _answer(check: Callable[[dict[str, Any], str], bool], question: dict[str, Any]) -> object:
    """Return the answer to one question; whatever a library raises is a failure that is told."""
    try:
        return {"reward": 1.0 if check(question["reference"], question["text"]) else 0.0}
    except _Refused as error:
        return {"refused": str(error)}
    except Exception as error:
        return {"failed": f"it raised {type(error).__name__}: {error!s:.200}"}


def _limit_memory() -> None:
    # Windows has no such module; there only the time is limited.
    with suppress(ImportError):
        import resource

        resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))


def _serve(questions: IO[bytes], answers: IO[bytes]) -> None:
    for line in questions:
        question = json.loads(line)
        modules, check = _CHECKS[question["kind"]]
        for module in modules:
            __import__(module)
        answers.write(b"\n")
        answers.flush()
        answers.write(json.dumps(_answer(check, question)).encode() + b"\n")
        answers.flush()


if __name__ == "__main__":
    _limit_memory()
    # Whatever a library prints must not be taken for an answer.
    _answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    with suppress(KeyboardInterrupt, BrokenPipeError):
        _serve(sys.stdin.buffer, _answers)
