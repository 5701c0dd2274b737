"""Where a study runs: devices, batches, the store, endpoints. Nothing here enters an identity.

What the runtime decides that does change numbers, the data type that `auto` means, is resolved here alone.
"""

import os
import platform
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import Field, field_validator, model_validator

from preceptor.config.base import Table
from preceptor.config.secrets import VARIABLE, looks_like_a_key, shown_address
from preceptor.errors import StudyError


class Endpoint(Table):
    """Where a chat model is served and how it may be used."""

    url: str = Field(
        description="Base of the address of an OpenAI-compatible endpoint, as http://127.0.0.1:8080/v1."
    )
    api_key_env: str | None = Field(
        None,
        description="Environment variable with the endpoint's key. Default: none, OPENAI_API_KEY for OpenAI.",
    )
    allow_http: bool = Field(
        False,
        description="Let the key go to another machine over http, for anybody on the way to read.",
    )
    concurrency: int = Field(8, ge=1, description="Requests to the endpoint at a time.")
    timeout_s: float = Field(
        600.0, gt=0, allow_inf_nan=False, description="Seconds that one attempt may take."
    )
    patience_s: float = Field(
        1200.0,
        gt=0,
        allow_inf_nan=False,
        description="Seconds for all attempts at one request, pauses included.",
    )
    requests_per_minute: float | None = Field(
        None, gt=0, allow_inf_nan=False, description="Attempts a minute at most, evenly spaced."
    )
    price_in: float | None = Field(
        None, ge=0, allow_inf_nan=False, description="US dollars for a million tokens of prompts."
    )
    price_out: float | None = Field(
        None, ge=0, allow_inf_nan=False, description="US dollars for a million tokens of answers."
    )

    batch_api: bool = Field(
        False,
        description="Ask by the provider's batch API: cheaper, answered within a day, resumable.",
    )
    batch_discount: float = Field(
        0.5, ge=0, le=1, description="Share of the price that a batch saves."
    )

    @property
    def prices(self) -> tuple[float | None, float | None]:
        """What a million tokens in and out cost as they are asked for."""
        given = (self.price_in, self.price_out)
        price_in, price_out = (None if one is None else one * self.share_paid for one in given)
        return price_in, price_out

    @property
    def share_paid(self) -> float:
        """The share of the price that is paid for an answer."""
        return 1.0 - self.batch_discount if self.batch_api else 1.0

    @field_validator("url")
    @classmethod
    def _without_secrets(cls, value: str) -> str:
        if any(sign in value for sign in "@?#"):
            raise ValueError(
                "the address holds a user, a password or a query, which would stand in logs and reports: "
                "put the key into an environment variable, give the variable's name (api_key_env, --key-env, "
                "--judge-key-env), and leave all from '?' and all before '@' out of the address"
            )
        return value

    @field_validator("api_key_env")
    @classmethod
    def _is_a_variable(cls, value: str | None) -> str | None:
        if value is not None and (not VARIABLE.fullmatch(value) or looks_like_a_key(value)):
            raise ValueError(
                "what was given as the name of an environment variable is none, or a key. Keys are never "
                "given on the command line or in files: put the key into a variable and give its name"
            )
        return value

    def __repr__(self) -> str:
        return f"Endpoint({shown_address(self.url)})"

    __str__ = __repr__


class Runtime(Table):
    """Where it runs; nothing here changes an answer."""

    device: str = Field("auto", description="auto, cpu, cuda, cuda:1 or mps.")
    gpus: int | None = Field(
        None,
        ge=1,
        description="GPUs that a vLLM teacher or student is spread over, and of a Ray actor; one by default.",
    )
    max_batch_tokens: int | None = Field(
        None, ge=1, description="Tokens in one batch; halved whenever memory runs out."
    )
    batch_size: int = Field(
        16, ge=1, description="Conversations that a local teacher answers side by side."
    )
    store: str = Field(
        ".preceptor", description="Folder or fsspec URL where responses and scores are kept."
    )
    endpoints: dict[str, Endpoint] = Field(
        {}, description="Where chat models are served, by the model's name in the study."
    )
    keep_tokens: bool = Field(
        False, description="Also store the loss and the clipped rank of each response token."
    )
    executor: Literal["local", "ray"] = Field(
        "local", description="Who scores: this process (local), or actors of a Ray cluster (ray)."
    )
    address: str = Field(
        "auto",
        description="Ray cluster: auto (that of this machine, else one started here), local (one started "
        "here), or its address, as ray://HOST:10001.",
    )
    workers: int | None = Field(
        None, ge=1, description="Ray actors; one per GPU or group of cores by default."
    )
    worker_cores: int | None = Field(
        None,
        ge=1,
        description="CPU cores of each actor; by default 1 beside a GPU, else 8 or all of a smaller node.",
    )
    runtime_env: dict[str, Any] = Field(
        {}, description="Ray's runtime environment of the actors: packages, variables, files."
    )
    tokens_per_second: dict[str, Annotated[float, Field(gt=0, allow_inf_nan=False)]] = Field(
        {},
        description="Tokens that one worker scores in a second, by the model's name in the study: for plans.",
    )
    price_per_hour: float | None = Field(
        None,
        ge=0,
        allow_inf_nan=False,
        description="US dollars for an hour of one device: for plans.",
    )
    shard: str | None = Field(
        None,
        pattern=r"^[1-9][0-9]{0,5}/[1-9][0-9]{0,5}$",
        description="Score only this part of the instructions, as 2/16, and rank nothing.",
    )

    @field_validator("shard")
    @classmethod
    def _is_one_of_them(cls, value: str | None) -> str | None:
        if value is not None and int(value.split("/")[0]) > int(value.split("/")[1]):
            raise ValueError(f"{value} is none of {value.split('/')[1]} shards: they count from 1")
        return value

    @model_validator(mode="after")
    def _devices_are_for_ray_to_give(self) -> Self:
        if self.executor == "ray" and ":" in self.device:
            raise ValueError(
                f"device is {self.device} with executor = 'ray', which gives each worker devices of its own: "
                "expected cuda"
            )
        return self

    def settled(self) -> "Runtime":
        """Return it as other machines take it, if any: with the device that `auto` means here."""
        if self.executor == "local":
            return self
        return self.model_copy(update={"device": self.resolved_device()})

    def require_whole(self) -> None:
        """Refuse to go on with a part of the work where all of it is needed; StudyError."""
        if self.shard is not None:
            raise StudyError(
                f"shard {self.shard} scores a part of the study and ranks nothing: it is for the commands "
                "rank and run. Once all are done, leave it out to rank."
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

        An accelerator that PyTorch cannot use is an error when the model is loaded.
        """
        if self.device != "auto":
            return self.device
        visible = os.environ.get("CUDA_VISIBLE_DEVICES", "all").strip()
        if visible not in {"", "-1"} and any(Path("/dev").glob("nvidia[0-9]*")):
            return "cuda"
        apple = platform.system() == "Darwin" and platform.machine() == "arm64"
        return "mps" if apple else "cpu"
