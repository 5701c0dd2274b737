"""Find and load a model: a Hub id, a local folder, or a GGUF file, with an identity made of its content.

Finding (`locate`) is cheap and imports no model library, so that a run with nothing left to compute never
does. A GGUF file is converted to a folder once, under the user's cache. Weights come from safetensors
only, and no code from a repository runs unless the user asks for it.
"""

import logging
import os
import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from preceptor.errors import MissingPackage, ModelError
from preceptor.store.identity import cache_folder, file_digest, folder_digest

logger = logging.getLogger(__name__)

IDENTITY_FILES = ("*.safetensors", "*.json", "*.jinja", "*.model", "*.txt")
"""The files of a local model folder that decide its numbers."""

_SMALL_FILES = ["*.json", "*.jinja", "*.model", "*.txt"]
_TOKENIZER_FILES = ("tokenizer.json", "tokenizer.model", "vocab.json", "vocab.txt", "spiece.model")


@dataclass(frozen=True)
class LocatedModel:
    """A model found: `folder` holds its config and tokenizer, `source` is what to load weights from.

    `identity` is what its numbers depend on: a Hub id and commit, or a digest of content.
    """

    name: str
    folder: Path
    source: str
    revision: str | None
    identity: Mapping[str, str]


def locate(reference: str, *, revision: str | None = None) -> LocatedModel:
    """Return where the model `reference` lies: a GGUF file, a local folder, or a Hub id.

    ModelError where it is none of them or lacks a tokenizer or safe weights.
    """
    path = Path(reference).expanduser()
    if path.suffix.lower() == ".gguf":
        return _locate_gguf(path)
    if path.is_dir():
        return _locate_folder(path)
    if reference.startswith((".", "/", "~")) or reference.count("/") > 1 or path.exists():
        raise ModelError(
            f"No model at '{reference}': expected a folder with config.json, a .gguf file, or a Hub id "
            "of the form owner/name."
        )
    return _locate_on_hub(reference, revision)


def _locate_folder(folder: Path) -> LocatedModel:
    present = sorted(path.name for path in folder.iterdir())
    if "config.json" not in present:
        raise ModelError(f"'{folder}' holds no config.json, so it is not a model folder.")
    if not any(name.endswith(".safetensors") for name in present):
        pickles = [name for name in present if name.endswith((".bin", ".pt", ".pth", ".ckpt"))]
        seen = f"only pickled weights ({', '.join(pickles)})" if pickles else "no weights"
        raise ModelError(
            f"'{folder}' holds {seen}, expected *.safetensors. Pickles can run code and are never "
            "loaded: convert the model with save_pretrained and use the new folder."
        )
    _require_tokenizer(folder)
    digest = folder_digest(folder, IDENTITY_FILES)
    name = folder.absolute().name  # of "." the folder's own
    return LocatedModel(name, folder, str(folder), None, {"folder_sha256": digest})


def _require_tokenizer(folder: Path) -> None:
    if not any((folder / name).is_file() for name in _TOKENIZER_FILES):
        raise ModelError(
            f"'{folder}' holds no tokenizer (looked for {', '.join(_TOKENIZER_FILES)}). Save it there "
            "with tokenizer.save_pretrained."
        )


def _locate_gguf(path: Path) -> LocatedModel:
    if not path.is_file():
        raise ModelError(f"No GGUF file at '{path}'.")
    digest = file_digest(path)
    folder = cache_folder() / "gguf" / digest
    if not (folder / "config.json").is_file():
        _convert_gguf(path, folder)
    return LocatedModel(path.name, folder, str(folder), None, {"gguf_sha256": digest})


def _convert_gguf(path: Path, folder: Path) -> None:
    """Write the dequantised model and its tokenizer to `folder`, whole or not at all."""
    for package in ("gguf", "accelerate"):  # transformers needs both, and says so only at the end
        if find_spec(package) is None:
            raise MissingPackage(package, purpose="Reading a GGUF file", extra="gguf")
    from transformers import AutoModelForCausalLM, AutoTokenizer

    logger.warning("converting %s: a minute or two, once; the result is cached", path.name)
    folder.parent.mkdir(parents=True, exist_ok=True)
    partial = Path(tempfile.mkdtemp(prefix=".converting-", dir=folder.parent))
    source = {"pretrained_model_name_or_path": str(path.parent), "gguf_file": path.name}
    quieten_loading()
    try:
        AutoTokenizer.from_pretrained(**source).save_pretrained(partial)
        model: Any = AutoModelForCausalLM.from_pretrained(**source, dtype="float32")
        # The weights are plain tensors by now; these marks of their origin forbid saving them.
        model.hf_quantizer = None
        if hasattr(model.config, "quantization_config"):
            del model.config.quantization_config
        model.save_pretrained(partial)
        os.replace(partial, folder)
    except (OSError, ValueError, KeyError, RuntimeError, NotImplementedError) as error:
        if (folder / "config.json").is_file():
            return  # another process converted it meanwhile
        raise ModelError(
            f"'{path}' cannot be converted by transformers: {error}. Use the model's original "
            "(safetensors) weights instead."
        ) from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _locate_on_hub(reference: str, revision: str | None) -> LocatedModel:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    try:
        folder = Path(snapshot_download(reference, revision=revision, allow_patterns=_SMALL_FILES))
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OSError) as error:
        raise ModelError(
            f"'{reference}' is neither a local path nor a model that can be reached on the Hub "
            f"({type(error).__name__}). Check the name, the network, and HF_TOKEN for gated models."
        ) from error
    _require_tokenizer(folder)
    identity = {"hub_id": reference, "commit": folder.name}
    return LocatedModel(reference, folder, reference, folder.name, identity)


def load_tokenizer(located: LocatedModel) -> Any:
    """Return the model's tokenizer; ModelError where transformers cannot build it."""
    from transformers import AutoTokenizer

    try:
        return AutoTokenizer.from_pretrained(located.folder, trust_remote_code=False)
    except (OSError, ValueError, KeyError, ImportError) as error:
        raise ModelError(f"The tokenizer of '{located.name}' cannot be loaded: {error}") from error


def load_model(located: LocatedModel, *, dtype: str, device: str) -> Any:
    """Return the causal language model, in `dtype`, on `device`, ready for inference.

    ModelError where the device or the weights cannot be used.
    """
    import torch
    from safetensors import SafetensorError
    from transformers import AutoModelForCausalLM

    require_device(device)
    quieten_loading()
    try:
        model: Any = AutoModelForCausalLM.from_pretrained(
            located.source,
            revision=located.revision,
            dtype=getattr(torch, dtype),
            use_safetensors=True,
            trust_remote_code=False,
        )
        model = model.to(device)
    except (OSError, ValueError, KeyError, ImportError, RuntimeError, SafetensorError) as error:
        raise ModelError(f"'{located.name}' cannot be loaded: {error}") from error
    return model.eval()


def quieten_loading() -> None:
    """Keep transformers from drawing bars and reports of its own; errors are worded here."""
    from transformers.utils import logging as transformers_logging

    transformers_logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    transformers_logging.set_verbosity_error()  # type: ignore[no-untyped-call]


def require_device(device: str) -> None:
    """Check that PyTorch can use the device here; ModelError that says what it can use otherwise."""
    import torch

    kind = device.partition(":")[0]
    available = {
        "cpu": True,
        "cuda": torch.cuda.is_available(),
        "mps": torch.backends.mps.is_available(),
    }
    if not available.get(kind, False):
        usable = ", ".join(name for name, works in available.items() if works)
        raise ModelError(
            f"This machine's PyTorch ({torch.__version__}) cannot use the device '{device}'; it can use: "
            f"{usable}. Install a build of PyTorch for the device, or pass --device cpu."
        )


def context_length(located: LocatedModel) -> int | None:
    """Return the number of positions the model's config allows, or None where it does not say."""
    import json

    config = json.loads((located.folder / "config.json").read_text(encoding="utf-8"))
    config = config.get("text_config") or config
    length = config.get("max_position_embeddings") or config.get("n_positions")
    return int(length) if length else None
