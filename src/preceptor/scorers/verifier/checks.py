r"""The checks that need a package: a pattern, a JSON Schema, the equality of mathematical answers.

Patterns, schemas and formulas come from data sets and models and can be made to take for ever: this module
looks them over and picks the part of the response that counts, and `library_checks` does the rest, in a
worker process under a limit of time and memory. Patterns are RE2's, which take time linear in the text
whatever they say, so that an unlucky pattern costs microseconds and not the time limit of every row.
"""

import json
import re
from collections.abc import Callable, Mapping
from typing import Generic, NamedTuple, TypeVar

import orjson

from preceptor.errors import DataError, nearest
from preceptor.scorers.verifier.final_answers import final_parts, math_passages
from preceptor.scorers.verifier.library_checks import (
    equal_as_mathematics,
    pattern_occurs,
    pattern_spans,
    require_package,
    schema_accepts,
)

Check = Callable[[str], float]
"""The reward of a response's text, from 0.0 to 1.0."""

Made = TypeVar("Made")


class Maker(NamedTuple, Generic[Made]):
    """How a table becomes a check: what makes it, the fields it must have and those it can have."""

    make: Callable[[Mapping[str, object]], Made]
    needs: tuple[str, ...] = ()
    options: tuple[str, ...] = ()


def made(table: object, makers: Mapping[str, Maker[Made]], *, what: str, by: str) -> Made:
    """Return what the maker named by the field `by` of a table makes of its other fields.

    Raises:
        DataError: The table is malformed, or nothing has that name.
        MissingPackage: What is named needs a package of the extra `verify`.
    """
    if not isinstance(table, Mapping):
        raise DataError(f"A {what} is a table with a {by}, not {table!r:.80}.")
    # A null is an absent field: column formats fill the fields that only other rows have.
    fields = {key: value for key, value in table.items() if value is not None}
    name = fields.pop(by, None)
    if not isinstance(name, str) or name not in makers:
        raise DataError(
            f"The {what}'s {by} is {name!r:.80}; the {by}s are {', '.join(makers)}."
            + nearest(str(name)[:80], makers)
        )
    maker = makers[name]
    allowed = (*maker.needs, *maker.options)
    for field in fields:
        if field not in allowed:
            raise DataError(
                f"A {what} of {by} '{name}' has no field {field!r:.80}; its fields are "
                f"{', '.join(allowed) or 'none'}." + nearest(str(field)[:80], allowed)
            )
    if missing := [field for field in maker.needs if field not in fields]:
        raise DataError(f"The {what} of {by} '{name}' has no {missing[0]}: give it one.")
    return maker.make(fields)


_FENCE = re.compile(r"^[ \t]{0,3}```[^`\n]*$", re.MULTILINE)

_PART_REACH = 2_000
"""How long a part of a text can be to be tried as the final answer of a `full` pattern."""


def regex_check(reference: Mapping[str, object]) -> Check:
    """Return the check that `pattern` (RE2 syntax) occurs in the response.

    With `full` the pattern must span the final answer: what follows the last marker, the last line
    or the whole text, with or without surrounding emphasis and a full stop.

    Raises:
        DataError: The pattern is not a text or `full` is not true or false.
        MissingPackage: google-re2 is not installed.
    """
    pattern, full = reference["pattern"], reference.get("full", False)
    if not isinstance(pattern, str) or not pattern:
        raise DataError(f"A pattern is a text that is not empty, not {pattern!r:.80}.")
    if not isinstance(full, bool):
        raise DataError(f"The field 'full' is true or false, not {full!r:.80}.")
    require_package("regex")
    if full:
        return lambda text: float(pattern_spans(pattern, _readings(text)))
    return lambda text: float(pattern_occurs(pattern, text))


def _readings(text: str) -> list[str]:
    """Return the short readings of the final answer, each also without emphasis and full stop."""
    parts = [part.strip() for part in final_parts(text) if len(part) <= _PART_REACH]
    return [reading for part in parts for reading in (part, part.strip(" \t*_$`."))]


def json_schema_check(reference: Mapping[str, object]) -> Check:
    """Return the check that the response, or its single fenced code block, is JSON valid under `schema`.

    `schema` is a table or its JSON text; give text where the data come from a column format, which
    adds nulls to tables. Drafts 3 to 2020-12 by `$schema`, else 2020-12; formats are not checked.

    Raises:
        DataError: The schema is neither a table nor a text of one, or refers to another document.
        MissingPackage: jsonschema is not installed.
    """
    schema = reference["schema"]
    if isinstance(schema, str):
        schema = parsed_json(schema)
    if not isinstance(schema, Mapping):
        raise DataError(f"A schema is a table or the JSON text of one, not {schema!r:.80}.")
    try:
        known = json.loads(json.dumps(schema))
    except (TypeError, ValueError, RecursionError) as error:
        raise DataError(f"The schema is not JSON: {error!s:.80}.") from None
    _refuse_outside_references(schema)
    require_package("json_schema")

    def check(text: str) -> float:
        block = fenced_block(text)
        source = (text if block is None else block).strip()
        if parsed_json(source) is NOT_JSON:
            return 0.0
        return float(schema_accepts(known, source))

    return check


def _refuse_outside_references(schema: object) -> None:
    """Refuse a schema that points to another document: nothing is ever fetched."""
    waiting = [schema]
    while waiting:
        part = waiting.pop()
        if isinstance(part, Mapping):
            for name in ("$ref", "$dynamicRef", "$recursiveRef"):
                target = part.get(name)
                if isinstance(target, str) and not target.startswith("#"):
                    raise DataError(
                        f"The schema refers to {target!r:.80}, and nothing is fetched: put what is "
                        "referred to under '$defs' and refer to it by '#/$defs/...'."
                    )
            waiting.extend(part.values())
        elif isinstance(part, list | tuple):
            waiting.extend(part)


class _NotJson:
    """The type of `NOT_JSON`."""


NOT_JSON = _NotJson()
"""What `parsed_json` returns for a text that is no JSON, where None is JSON's null."""


def parsed_json(text: str) -> object:
    """Return the value of a JSON text, or `NOT_JSON`; linear in the text, however deeply nested."""
    try:
        value: object = orjson.loads(text.strip())
    except orjson.JSONDecodeError:
        return NOT_JSON
    return value


def fenced_block(text: str) -> str | None:
    """Return what stands inside the text's only fenced code block, or None without exactly one."""
    fences = list(_FENCE.finditer(text))
    return text[fences[0].end() : fences[1].start()] if len(fences) == 2 else None


def math_check(reference: Mapping[str, object]) -> Check:
    r"""Return the check that the response's final answer equals `answer` (LaTeX or plain) as mathematics.

    The final answer is the last `\boxed{...}`, else what follows the last marker, else the last formula
    or number of the text's end; 0.5, 1/2 and `\frac{1}{2}` are equal.

    Raises:
        DataError: The answer is neither a text nor a number.
        MissingPackage: math-verify is not installed.
    """
    answer = reference["answer"]
    if isinstance(answer, bool) or not isinstance(answer, str | int | float):
        raise DataError(f"A mathematical answer is a text or a number, not {answer!r:.80}.")
    known = _written(answer)
    require_package("math")
    return lambda text: float(equal_as_mathematics(known, math_passages(text)))


def _written(answer: str | int | float) -> str:
    # Python refuses to spell integers of more than 4,300 digits.
    try:
        written = str(answer).strip().strip("$")
    except ValueError:
        written = ""
    if not written or len(written) > _PART_REACH:
        raise DataError(
            f"A mathematical answer has 1 to {_PART_REACH} characters; give the answer alone."
        )
    return written
