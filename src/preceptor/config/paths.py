"""Relative paths in a study file are relative to the file, wherever the command is run."""

import os
from collections.abc import Mapping
from glob import has_magic
from pathlib import Path
from typing import Any

_PATHS = {
    "baseline",
    "catalogue",
    "chat_template",
    "instructions",
    "model",
    "prompt",
    "questions",
    "responses",
}
"""Fields that may name a file or folder, and also something else: a Hub id, a preset, a served model."""

_NOT_OURS = {"rule", "endpoints"}
_BY_MODEL = "tokens_per_second"


def beside(tables: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    """Return the tables of a file in `folder` with their relative paths joined to it.

    A field that may also hold a name is joined where it is written as a path (`./`, `../`, a pattern) or
    something of that name lies in the folder.
    """
    return {name: _joined(name, value, folder) for name, value in tables.items()}


def _joined(name: str, value: Any, folder: Path) -> Any:
    if name in _NOT_OURS:
        return value
    if name == _BY_MODEL and isinstance(value, Mapping):
        return {str(_joined("model", model, folder)): one for model, one in value.items()}
    if isinstance(value, Mapping):
        return beside(value, folder)
    if isinstance(value, list):
        return [_joined(name, one, folder) for one in value]
    if isinstance(value, str) and (_is_store(name, value) or _is_path(name, value, folder)):
        return str(folder / value)
    return value


def _is_store(name: str, value: str) -> bool:
    return name == "store" and "://" not in value and not value.startswith("~")


def _is_path(name: str, value: str, folder: Path) -> bool:
    if name not in _PATHS or not value or "://" in value or value.startswith("~"):
        return False
    return value.startswith(("./", "../")) or has_magic(value) or os.path.exists(folder / value)
