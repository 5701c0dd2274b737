"""What every table of a study file shares: frozen, unknown fields refused, errors that name each field."""

import os
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

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

Dtype = Literal["auto", "float32", "bfloat16", "float16"]


OLD_NAMES: Mapping[str, str] = MappingProxyType(
    {
        "machine": "runtime",
        "derived": "best_of_n",
        "reference": "reference_model",
        "thoughts": "reasoning",
        "minimum_coverage": "min_coverage",
        "draws": "n_resamples",
        "token_budget": "max_batch_tokens",
        "batch": "batch_size",
        "device_batch": "per_device_batch_size",
        "warmup_share": "warmup_ratio",
        "quantized": "load_in_4bit",
        "template": "chat_template",
        "remote_code": "trust_remote_code",
        "both_orders": "swap_positions",
        "written": "logprobs",
        "log_probabilities": "logprobs",
    }
)
"""Names that tables and fields had before the first release, for the message that refuses them."""


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
    max_length: int = Field(
        4096, ge=2, description="Tokens of prompt and response together; the rest is cut off."
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


def checked(kind: type[T], values: Mapping[str, object], *, where: str) -> T:
    """Return `kind` made of `values`; StudyError that names every wrong field otherwise."""
    try:
        return kind.model_validate(values)
    except ValidationError as error:
        lines = [
            f"  {_where(problem, values) or 'taken together'}: {_said(problem)}"
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


def _said(problem: "ErrorDetails") -> str:
    """Return what is wrong with a field; an unknown one gets the nearest name of any table."""
    if problem["type"] != "extra_forbidden":
        return problem["msg"].removeprefix("Value error, ")
    name = str(problem["loc"][-1])
    if name in OLD_NAMES:
        return f"unknown field: its name is '{OLD_NAMES[name]}'."
    return f"unknown field.{nearest(name, _field_names(BaseModel))}"


def _field_names(table: type[BaseModel]) -> set[str]:
    """Return the fields of the tables below this class that are of this package."""
    ours = table.__module__.startswith("preceptor.")
    names = set(table.model_fields) if ours else set()
    return names.union(*(_field_names(below) for below in table.__subclasses__()))
