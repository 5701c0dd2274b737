"""Where a study runs: devices, batches, the store, endpoints. Nothing here enters an identity.

What the runtime decides that does change numbers, the data type that `auto` means, is resolved here alone.
"""

import os
import platform
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

from pydantic import Field

from preceptor.config.base import Table
from preceptor.errors import StudyError

REDACTED = "[redacted]"
"""Stands for what must not be shown."""


class Endpoint(Table):
    """Where a chat model is served and how it may be used."""

    url: str = Field(
        description="Base of the address of an OpenAI-compatible endpoint, as http://127.0.0.1:8080/v1."
    )
    api_key_env: str | None = Field(
        None,
        description="Environment variable with the endpoint's key. Default: none, OPENAI_API_KEY for OpenAI.",
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
        None, ge=0, allow_inf_nan=False, description="Money for a million tokens of prompts."
    )
    price_out: float | None = Field(
        None, ge=0, allow_inf_nan=False, description="Money for a million tokens of answers."
    )

    def __repr__(self) -> str:
        return f"Endpoint({without_secrets(self.url)})"

    __str__ = __repr__


class Runtime(Table):
    """Where it runs; nothing here changes an answer."""

    device: str = Field("auto", description="auto, cpu, cuda, cuda:1 or mps.")
    gpus: int | None = Field(
        None, ge=1, description="GPUs that a vLLM teacher is spread over; one by default."
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


def without_secrets(url: str) -> str:
    """Return the address without user, password, query and fragment, fit for messages."""
    try:
        parts = urlsplit(url)
        host = parts.netloc.rpartition("@")[2]
    except ValueError:
        return "(unreadable address)"
    hidden = "" if parts.netloc == host and not parts.query else f" ({REDACTED})"
    return urlunsplit((parts.scheme, host, parts.path, "", "")) + hidden
