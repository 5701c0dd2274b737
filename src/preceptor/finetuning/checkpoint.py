"""What a fine-tuning run is known by, and how far it has come: identity, record, checkpoints.

The output folder is a model only when it is finished. Until then all lies in its subfolder `training`, and a
checkpoint counts only with the mark that is written after everything else in it.
"""

import json
import re
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from preceptor.config.recipe import Recipe
from preceptor.engines.encoder import BOUNDARY
from preceptor.engines.models import LocatedModel
from preceptor.engines.templates import choose_template
from preceptor.errors import StoreError, StudyError
from preceptor.store.files import read_json, write_atomically
from preceptor.store.identity import Identity

_CHECKPOINT = re.compile(r"checkpoint-([0-9]{1,12})")
_WHOLE = "whole"
_PACKAGES = ("preceptor", "torch", "transformers", "trl", "peft", "accelerate")


def fine_tuned_identity(student: LocatedModel, rows_digest: str, recipe: Recipe) -> Identity:
    """Return what names the model that comes of this student, these rows and this recipe.

    `rows_digest` is `Conversations.digest`. Its `digest` names the model's folder in a store,
    `models/<digest>`. What only changes rounding or speed does not enter. Needs no model library.

    Raises:
        StudyError: the recipe's dtype is still `auto` (see `Recipe.on`), or there is no such template.
    """
    return Identity.of(
        {
            "kind": "tuned",
            "student": dict(student.identity),
            "rows": rows_digest,
            "recipe": recipe.identity(),
            "boundary": BOUNDARY,
            "template": dict(choose_template(recipe.chat_template, student.folder).identity()),
        }
    )


@dataclass(frozen=True)
class TrainingFolder:
    """The places of a fine-tuning run in its output folder.

    They stand below `training`, where nothing enters the identity of the model in the output folder.
    """

    output: Path

    @property
    def inner(self) -> Path:
        """Where everything lies that is not the model itself."""
        return self.output / "training"

    @property
    def checkpoints(self) -> Path:
        """Where the checkpoints lie until the fine-tuning run is finished."""
        return self.inner / "checkpoints"

    @property
    def adapter(self) -> Path:
        """Where the adapters lie beside the merged model, where there are any."""
        return self.inner / "adapter"

    @property
    def draft(self) -> Path:
        """Where the model is written before it is put in place."""
        return self.inner / "draft"

    def begin(self, identity: Identity) -> None:
        """Take the folder for this fine-tuning run, or go on with it.

        Raises:
            StudyError: the folder holds something else.
            StoreError: the disk refuses.
        """
        held = _read(self.inner / "identity.json")
        if held is None:
            self._require_empty()
            record = {"spec": identity.spec, "recorded": _versions()}
            write_durably(self.inner / "identity.json", json.dumps(record, indent=2).encode())
        elif Identity.of(held["spec"]).canonical != identity.canonical:
            changed = ", ".join(_changes(held["spec"], identity.spec))
            raise StudyError(
                f"{self.output} holds another fine-tuning run, which differs in {changed}. Choose another "
                "output folder, or remove this one."
            )

    def _require_empty(self) -> None:
        names = sorted(path.name for path in self.output.iterdir()) if self.output.is_dir() else []
        if names:
            raise StudyError(
                f"{self.output} holds {', '.join(names[:5])}: expected an empty folder or one that a "
                "fine-tuning run was begun in. Choose another."
            )

    def finished(self, identity: Identity) -> Mapping[str, Any] | None:
        """Return what is known of the finished run; None where it is not finished, or another."""
        result = _read(self.inner / "finished.json")
        held = _read(self.inner / "identity.json")
        if result is None or held is None:
            return None
        return result if Identity.of(held["spec"]).canonical == identity.canonical else None

    def finish(self, result: Mapping[str, Any]) -> None:
        """Mark the fine-tuning run as finished, and remove what was only needed to go on with it."""
        write_durably(self.inner / "finished.json", json.dumps(result, indent=2).encode())
        shutil.rmtree(self.checkpoints, ignore_errors=True)
        shutil.rmtree(self.draft, ignore_errors=True)

    def newest_checkpoint(self) -> Path | None:
        """Return the newest checkpoint that is whole, or None."""
        found = {}
        for path in self.checkpoints.iterdir() if self.checkpoints.is_dir() else ():
            match = _CHECKPOINT.fullmatch(path.name)
            if match and (path / _WHOLE).is_file():
                found[int(match[1])] = path
        return found[max(found)] if found else None

    def mark_whole(self, step: int) -> None:
        """Mark the checkpoint of this step as whole, once everything in it is written."""
        write_durably(self.checkpoints / f"checkpoint-{step}" / _WHOLE, b"")

    def remove_torn(self) -> None:
        """Remove checkpoints that a killed process left unfinished."""
        for path in self.checkpoints.iterdir() if self.checkpoints.is_dir() else ():
            if _CHECKPOINT.fullmatch(path.name) and not (path / _WHOLE).is_file():
                shutil.rmtree(path, ignore_errors=True)


def step_of(checkpoint: Path) -> int:
    """Return the step after which a checkpoint was written."""
    return int(checkpoint.name.rpartition("-")[2])


def write_durably(path: Path, data: bytes) -> None:
    """Write a file whole or not at all; StoreError where the disk refuses."""
    try:
        write_atomically(path, data)
    except OSError as error:
        raise disk_error(path.parent, error) from error


def disk_error(folder: Path, error: Exception) -> StoreError:
    """Return the error for a folder that cannot be written to."""
    return StoreError(
        f"Cannot write to {folder}: {error}. Free space or check the rights, and run again: the run "
        "goes on from its last checkpoint."
    )


def _read(path: Path) -> dict[str, Any] | None:
    if not path.is_file():
        return None
    content = read_json(path, StoreError)
    return content if isinstance(content, dict) else None


def _versions() -> dict[str, str]:
    found = {}
    for name in _PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def _changes(held: Mapping[str, Any], wanted: Mapping[str, Any], at: str = "") -> list[str]:
    """Return the names of the fields in which two specs differ."""
    names: list[str] = []
    for name in sorted(held.keys() | wanted.keys()):
        one, other = held.get(name), wanted.get(name)
        if isinstance(one, Mapping) and isinstance(other, Mapping):
            names += _changes(one, other, f"{at}{name}.")
        elif one != other:
            names.append(f"{at}{name}")
    return names
