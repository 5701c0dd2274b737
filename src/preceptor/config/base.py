"""What every table of a study file shares, and the machine it is asked on.

`Runtime` is everything that changes no answer, and never enters an identity. A table is frozen, refuses
unknown fields, and what contradicts itself is refused when the file is read and not after an hour.
"""

import os
import platform
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from preceptor.engines.chat.client import Endpoint
from preceptor.errors import StudyError, nearest

if TYPE_CHECKING:
    from pydantic_core import ErrorDetails

T = TypeVar("T", bound=BaseModel)


class Table(BaseModel):
    """A table of a study file."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Runtime(Table):
    """Where it runs; nothing here changes an answer."""

    device: str = Field("auto", description="auto, cpu, cuda, cuda:1, mps.")
    token_budget: int | None = Field(
        None, ge=1, description="Tokens in one batch; halved whenever memory runs out."
    )
    batch: int = Field(
        16, ge=1, description="Conversations that a local teacher answers side by side."
    )
    store: str = Field(
        ".preceptor", description="Folder or fsspec URL where responses and scores are kept."
    )
    endpoints: dict[str, Endpoint] = Field(
        {}, description="Where chat models are served, by the model's name in the study."
    )
    keep_tokens: bool = Field(
        False, description="Also store every response token's loss and clipped rank."
    )

    def endpoint(self, model: str) -> Endpoint:
        """Return where the chat model is served; StudyError where nothing says it."""
        if model not in self.endpoints:
            raise StudyError(
                f"Nothing says where '{model}' is served; known are "
                f"{', '.join(self.endpoints) or 'no endpoints'}. Give its url in a study's "
                f'[runtime.endpoints."{model}"], or --judge-url URL for a judge.'
            )
        return self.endpoints[model]

    def resolved_dtype(self, dtype: str) -> str:
        """Return the data type that `auto` means here."""
        automatic = "float32" if self.resolved_device() == "cpu" else "bfloat16"
        return automatic if dtype == "auto" else dtype

    def resolved_device(self) -> str:
        """Return the device that `auto` means here, without importing torch.

        A machine that has an accelerator but a PyTorch without it is told of when the model is loaded.
        """
        if self.device != "auto":
            return self.device
        visible = os.environ.get("CUDA_VISIBLE_DEVICES", "all").strip()
        if visible not in {"", "-1"} and any(Path("/dev").glob("nvidia[0-9]*")):
            return "cuda"
        apple = platform.system() == "Darwin" and platform.machine() == "arm64"
        return "mps" if apple else "cpu"


class ModelTable(Table):
    """A model, and how it reads a conversation."""

    model: str = Field(description="Hub id, local folder, or GGUF file of the model.")
    revision: str | None = Field(None, description="Branch, tag or commit on the Hub.")
    template: str = Field(
        "auto", description="auto, own, gemma, llama3, chatml, phi3, plain, or a .jinja file."
    )
    max_length: int = Field(
        4096, ge=2, description="Tokens of prompt and response together; the rest is cut off."
    )
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = Field(
        "auto", description="auto is bfloat16 on an accelerator and float32 on a CPU."
    )

    @property
    def name(self) -> str:
        """The label in tables: the Hub id, or the last part of a path."""
        return Path(self.model).name if os.path.exists(self.model) else self.model

    def resolved_dtype(self, runtime: Runtime) -> str:
        """Return the data type that `auto` means on this machine."""
        return runtime.resolved_dtype(self.dtype)


def usable(check: Callable[[], object]) -> None:
    """Run what refuses a wrong value with a StudyError, as a validator of pydantic's."""
    try:
        check()
    except StudyError as error:
        raise ValueError(str(error)) from error


def checked(kind: type[T], values: Mapping[str, object], *, where: str) -> T:
    """Return `kind` made of `values`; StudyError that names every wrong field otherwise."""
    try:
        return kind.model_validate(values)
    except ValidationError as error:
        lines = [
            f"  {'.'.join(str(part) for part in problem['loc']) or 'study'}: {_said(problem)}"
            for problem in error.errors()
        ]
        raise StudyError(f"{where}: {len(lines)} wrong field(s)\n" + "\n".join(lines)) from error


def _said(problem: "ErrorDetails") -> str:
    """Return what is wrong with a field; an unknown one gets the nearest name of any table."""
    if problem["type"] != "extra_forbidden":
        return problem["msg"]
    return f"unknown field.{nearest(str(problem['loc'][-1]), _field_names(Table))}"


def _field_names(table: type[BaseModel]) -> set[str]:
    names = set(table.model_fields)
    return names.union(*(_field_names(below) for below in table.__subclasses__()))
