"""What tables of a study file share: frozen, unknown fields refused, errors that name each field.

And the table that teachers and judges share: what requests to an endpoint carry beyond the usual.
"""

import json
import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeVar, get_args

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    model_validator,
)

from preceptor.errors import StudyError, nearest

if TYPE_CHECKING:
    from pydantic_core import ErrorDetails

T = TypeVar("T", bound=BaseModel)

TEMPLATES = ("gemma", "llama3", "chatml", "phi3", "plain")
"""Names of the chat templates that come with the package."""


def _listed(value: object) -> object:
    return (value,) if isinstance(value, str) else value


Texts = Annotated[
    tuple[str, ...], BeforeValidator(_listed, json_schema_input_type=str | tuple[str, ...])
]
"""Texts, of which a single one may stand without a list."""

Rule = Literal["reward", "car", "persyn"]
"""A score of single responses."""

Dtype = Literal["auto", "float32", "bfloat16", "float16"]


_LONGEST_REQUEST = 20_000
_SET_ELSEWHERE = {
    **dict.fromkeys(("model", "messages", "prompt", "stream"), "it is set here"),
    **dict.fromkeys(
        ("temperature", "top_p", "seed", "stop"), "set it in the table that this one is of"
    ),
    **dict.fromkeys(("max_tokens", "max_completion_tokens"), "set max_tokens in the table above"),
    **dict.fromkeys(("n", "logprobs", "top_logprobs"), "it is set as samples and logprobs need it"),
}
_SECRET_NAME = re.compile(
    r"(?i)api[-_]?key|authorization|bearer|password|secret|(access|auth)[-_]?token"
)
_SECRET_VALUE = re.compile(r"(?i)bearer\s|sk-[\w-]{8}|hf_\w{10}")


class Table(BaseModel):
    """A table of a study file. A wrong value is a ValidationError, or through `checked` a StudyError."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", hide_input_in_errors=True, defer_build=True
    )


class ModelTable(Table):
    """A model, and how it reads a conversation."""

    model: str = Field(description="Hub id, local folder, or GGUF file.")
    revision: str | None = Field(None, description="Branch, tag or commit on the Hub.")
    chat_template: str = Field(
        "auto", description=f"auto, own, {', '.join(TEMPLATES)}, or a .jinja file."
    )
    max_length: int | None = Field(
        None,
        ge=2,
        description="Tokens of prompt and response together; the rest is cut off. Default: as many as the "
        "model has positions for.",
    )
    dtype: Dtype = Field(
        "auto", description="Of the computation; auto is bfloat16 on an accelerator, else float32."
    )

    @property
    def name(self) -> str:
        """The label in tables: the Hub id, or the last part of a path."""
        if not os.path.exists(self.model):
            return self.model
        return Path(os.path.abspath(self.model)).name


class Request(Table):
    """Fields of a request that servers know beyond OpenAI's first; all of them bear on the answer."""

    reasoning_effort: str | None = Field(
        None, min_length=1, description="How long it reasons: low, medium, high, or the server's."
    )
    chat_template_kwargs: dict[str, Any] = Field(
        {}, description="Switches of the model's template, as {enable_thinking = false}."
    )
    top_k: int | None = Field(None, ge=-1, description="Draw from so many likeliest tokens.")
    min_p: float | None = Field(
        None, ge=0, le=1, description="Draw from tokens at least so likely, beside the likeliest."
    )
    presence_penalty: float | None = Field(None, ge=-2, le=2, description="On tokens used before.")
    frequency_penalty: float | None = Field(None, ge=-2, le=2, description="By how often used.")
    repetition_penalty: float | None = Field(
        None, gt=0, allow_inf_nan=False, description="Divides what was used before; 1 is none."
    )
    extra_body: dict[str, Any] = Field(
        {}, description="Whatever else the server takes, as it stands in the request's JSON."
    )
    leave_out: tuple[Literal["temperature", "top_p", "seed"], ...] = Field(
        (), description="Fields not to send, for a server that refuses them."
    )

    @model_validator(mode="after")
    def _sendable(self) -> "Request":
        if twice := sorted(set(self.extra_body) & set(Request.model_fields)):
            raise ValueError(f"extra_body.{twice[0]}: give it as request.{twice[0]}")
        for name in self.extra_body:
            if name in _SET_ELSEWHERE:
                raise ValueError(f"extra_body.{name}: {_SET_ELSEWHERE[name]}")
        for name, value in _leaves(self.body()):
            if _SECRET_NAME.search(name) or _SECRET_VALUE.match(str(value)):
                raise ValueError(
                    f"'{name}' looks like a secret, and a request's fields are stored with the answers: put "
                    "the key into an environment variable and name it as api_key_env of the endpoint"
                )
        try:
            text = json.dumps(self.body(), allow_nan=False)
        except (TypeError, ValueError, RecursionError) as error:
            raise ValueError(f"a request is sent as JSON, and this is none: {error}") from error
        if len(text) > _LONGEST_REQUEST:
            raise ValueError(f"{len(text):,} characters, expected at most {_LONGEST_REQUEST:,}")
        return self

    def body(self) -> dict[str, Any]:
        """Return the fields as they are sent."""
        given = self.model_dump(exclude={"extra_body", "leave_out"}, exclude_none=True)
        return {name: value for name, value in given.items() if value != {}} | self.extra_body

    def spec(self) -> dict[str, Any]:
        """Return what of it belongs to an identity: nothing where nothing is asked for."""
        left_out = {"leave_out": sorted(set(self.leave_out))} if self.leave_out else {}
        return {"request": self.body() | left_out} if self.body() or left_out else {}


def _leaves(value: object, name: str = "") -> Iterator[tuple[str, object]]:
    """Yield every value below, with the name that it stands under; nested as deep as JSON may be."""
    if isinstance(value, Mapping):
        for key, inner in value.items():
            yield from _leaves(inner, str(key))
    elif isinstance(value, list | tuple):
        for inner in value:
            yield from _leaves(inner, name)
    else:
        yield name, value


def checked(kind: type[T], values: Mapping[str, object], *, where: str) -> T:
    """Return `kind` made of `values`; StudyError that names every wrong field otherwise."""
    try:
        return kind.model_validate(values)
    except ValidationError as error:
        lines = [
            f"  {_where(problem, values) or 'taken together'}: {_said(problem, kind)}"
            for problem in error.errors()
        ]
        raise StudyError(f"{where}: {len(lines)} wrong field(s)\n" + "\n".join(lines)) from error


def _where(problem: "ErrorDetails", given: Any) -> str:
    """Return the place of a problem as it was written: no kind, and no index where no list was given."""
    parts: list[str] = []
    missing = len(problem["loc"]) - 1 if problem["type"] == "missing" else None
    for place, part in enumerate(problem["loc"]):
        table = isinstance(given, Mapping)
        if table and part not in given and place != missing:
            continue
        parts.append(str(part))
        if table or (isinstance(given, list | tuple) and isinstance(part, int)):
            given = given.get(part) if table else given[part]
    return ".".join(parts)


def _said(problem: "ErrorDetails", kind: type[BaseModel]) -> str:
    """Return what is wrong with a field; an unknown one gets its own table, or the nearest name of any."""
    if problem["type"] != "extra_forbidden":
        return problem["msg"].removeprefix("Value error, ")
    name = str(problem["loc"][-1])
    homes = dict.fromkeys(where for where, table in _tables(kind) if name in table.model_fields)
    if homes:
        return f"unknown field here: it belongs {', or '.join(homes)}."
    return f"unknown field.{nearest(name, _field_names(BaseModel) - {name})}"


def _tables(kind: Any, path: str = "") -> Iterator[tuple[str, type[BaseModel]]]:
    """Yield the tables of a type with where they stand, `in [data]`; outermost first."""
    if isinstance(kind, type) and issubclass(kind, BaseModel):
        yield f"in [{path}]" if path else "at the top", kind
        for name, info in kind.model_fields.items():
            yield from _tables(info.annotation, f"{path}.{name}" if path else name)
    else:
        for inner in get_args(kind):
            yield from _tables(inner, path)


def _field_names(table: type[BaseModel]) -> set[str]:
    """Return the fields of the tables below this class that are of this package."""
    ours = table.__module__.startswith("preceptor.")
    names = set(table.model_fields) if ours else set()
    return names.union(*(_field_names(below) for below in table.__subclasses__()))
