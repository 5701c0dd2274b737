"""Find a model: a Hub id, a local folder, or a GGUF file, with an identity made of its content.

Finding (`locate`) is cheap and imports no model library, so that a run with nothing left to compute never
does; `loading` makes models of what is found. A GGUF file is converted to a folder once, under the user's
cache.
"""

import logging
import os
import re
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from preceptor.errors import ModelError, nearest, require
from preceptor.store.activity import activity, quieten_downloads
from preceptor.store.cache import cache_folder, is_own
from preceptor.store.files import abandoned, read_json, temporary_name
from preceptor.store.identity import file_digest, folder_digest

logger = logging.getLogger(__name__)

IDENTITY_FILES = ("*.safetensors", "*.json", "*.jinja", "*.model", "*.txt")
"""The files of a local model folder that decide its numbers."""

_SMALL_FILES = ["*.json", "*.jinja", "*.model", "*.txt"]
_ALONE = "source"
_CONTENT = "content.sha256"
_WEIGHTS = re.compile(r"[^/\\]+\.safetensors(\.index\.json)?")
_CONVERTING = ".converting-"
_TOKENIZER_FILES = ("tokenizer.json", "tokenizer.model", "vocab.json", "vocab.txt", "spiece.model")


@dataclass(frozen=True)
class LocatedModel:
    """A model found: `folder` holds its config and tokenizer, `source` is what to load weights from.

    `identity` is what its numbers depend on: a Hub id and commit, or a digest of content. `content` is the
    digest of the folder's files, None where the Hub's library or this package's own store looks after them.
    """

    name: str
    folder: Path
    source: str
    revision: str | None
    identity: Mapping[str, str]
    content: str | None = None


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
    _require_no_adapter(folder, str(folder))
    if "config.json" not in present:
        raise ModelError(
            f"'{folder}' holds no config.json, so it is not a model folder. Name the folder that "
            "save_pretrained wrote, a GGUF file, or a model of the Hub."
        )
    if not any(name.endswith(".safetensors") for name in present):
        pickles = [name for name in present if name.endswith((".bin", ".pt", ".pth", ".ckpt"))]
        seen = f"only pickled weights ({', '.join(pickles)})" if pickles else "no weights"
        raise ModelError(
            f"'{folder}' holds {seen}, expected *.safetensors. Pickles can run code and are never "
            "loaded: convert the model with save_pretrained and use the new folder."
        )
    _require_tokenizer(folder)
    _require_weights_inside(folder)
    digest = folder_digest(folder, IDENTITY_FILES)
    name = folder.absolute().name  # of "." the folder's own
    return LocatedModel(name, folder, str(folder), None, {"folder_sha256": digest}, digest)


def _require_no_adapter(folder: Path, named: str) -> None:
    """Refuse adapters, alone or beside weights: the library would load them onto whatever they name."""
    path = folder / "adapter_config.json"
    if not path.is_file():
        return
    held = read_json(path, ModelError)
    base = held.get("base_model_name_or_path") if isinstance(held, dict) else None
    raise ModelError(
        f"'{named}' holds a LoRA adapter of {base or 'a model that it does not name'}: merge it (PEFT's "
        "merge_and_unload, then save_pretrained), or give the base."
    )


def _require_weights_inside(folder: Path) -> None:
    """Refuse a config or an index that names weights elsewhere, which no identity would know."""
    config = read_json(folder / "config.json", ModelError)
    named = [config.get("transformers_weights")] if isinstance(config, dict) else []
    for path in folder.glob("*.safetensors.index.json"):
        held = read_json(path, ModelError)
        weights = held.get("weight_map") if isinstance(held, dict) else None
        named += weights.values() if isinstance(weights, dict) else [""]
    for name in dict.fromkeys(map(str, filter(lambda one: one is not None, named))):
        if not _WEIGHTS.fullmatch(name):
            raise ModelError(
                f"'{folder}' takes its weights from {name!r:.80}: expected the name of a .safetensors file "
                "in the folder. Fetch the model again."
            )


def _require_tokenizer(folder: Path) -> None:
    if not any((folder / name).is_file() for name in _TOKENIZER_FILES):
        raise ModelError(
            f"'{folder}' holds no tokenizer (looked for {', '.join(_TOKENIZER_FILES)}). Save it there "
            "with tokenizer.save_pretrained."
        )


def _locate_gguf(path: Path) -> LocatedModel:
    if not path.is_file():
        beside = path.parent.glob("*.gguf")
        raise ModelError(
            f"No GGUF file at '{path}'.{nearest(path.name, (one.name for one in beside))} Check the path."
        )
    digest = file_digest(path)
    folder = cache_folder() / "gguf" / digest
    for place in (cache_folder(), folder.parent, folder):
        if not is_own(place):
            raise ModelError(
                f"The cache folder '{place}' belongs to another user or can be written to by others, who "
                "could put another model into it. Take that right away (chmod go-w), or set PRECEPTOR_CACHE "
                "to a folder of your own."
            )
    if not _is_converted(folder):
        _convert_gguf(path, folder)
    content = folder_digest(folder, IDENTITY_FILES)
    return LocatedModel(path.name, folder, str(folder), None, {"gguf_sha256": digest}, content)


def _is_converted(folder: Path) -> bool:
    """Whether a conversion is there with the content it was written with."""
    try:
        return (folder / _CONTENT).read_text() == folder_digest(folder, IDENTITY_FILES)
    except (OSError, ModelError):
        return False


def _convert_gguf(path: Path, folder: Path) -> None:
    """Write the dequantised model and its tokenizer to `folder`, whole or not at all."""
    # transformers needs the others, and says so only at the end
    require("transformers", "gguf", "accelerate", purpose="Reading a GGUF file")
    logger.info("converting %s: a minute or two, once; the result is cached", path.name)
    folder.parent.mkdir(parents=True, exist_ok=True)
    for left in abandoned(folder.parent, _CONVERTING):
        shutil.rmtree(left, ignore_errors=True)
    partial = folder.parent / f"{_CONVERTING}{temporary_name()}"
    partial.mkdir(mode=0o700)
    try:
        with activity(f"converting {path.name}, once"), _without_bars(), _read_once():
            _write_converted(path, partial)
        shutil.rmtree(partial / _ALONE)
        (partial / _CONTENT).write_text(folder_digest(partial, IDENTITY_FILES))
        if folder.exists() and not _is_converted(folder):
            shutil.rmtree(folder)  # damaged, or from before its content was noted
        os.replace(partial, folder)
    except Exception as error:  # a damaged file raises whatever its parser does
        if _is_converted(folder):
            return  # another process converted it meanwhile
        raise ModelError(
            f"'{path}' cannot be converted by transformers: {error} Use the model's original (safetensors) "
            "weights instead."
        ) from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)


@contextmanager
def _without_bars() -> Iterator[None]:
    """Keep transformers' reader of GGUF files from drawing a bar, which no setting of its own does."""
    from transformers import modeling_gguf_pytorch_utils

    reader: Any = modeling_gguf_pytorch_utils
    drawn = reader.tqdm
    reader.tqdm = lambda tensors, **_: tensors
    try:
        yield
    finally:
        reader.tqdm = drawn


@contextmanager
def _read_once() -> Iterator[None]:
    """Let transformers parse a GGUF file once, which it does for tokenizer, configuration and weights each.

    With a vocabulary of 262,144 each takes a third of the whole conversion.
    """
    import gguf

    package: Any = gguf
    reader = package.GGUFReader
    package.GGUFReader = cache(reader)
    try:
        yield
    finally:
        package.GGUFReader = reader


def _write_converted(path: Path, partial: Path) -> None:
    """Write a GGUF file's model, read from a folder of its own: nothing that lies beside the file counts."""
    from preceptor.engines.loading import load_tokenizer, load_weights

    alone = partial / _ALONE
    alone.mkdir()
    try:
        (alone / path.name).symlink_to(path.resolve())
    except OSError:  # Windows grants links to few
        shutil.copyfile(path, alone / path.name)
    source = LocatedModel(path.name, alone, str(alone), None, {})
    load_tokenizer(source, gguf_file=path.name).save_pretrained(partial)
    model = load_weights("AutoModelForCausalLM", source, dtype="float32", gguf_file=path.name)
    # The weights are plain tensors by now; these marks of their origin forbid saving them.
    model.hf_quantizer = None
    if hasattr(model.config, "quantization_config"):
        del model.config.quantization_config
    model.save_pretrained(partial)


def _locate_on_hub(reference: str, revision: str | None) -> LocatedModel:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    quieten_downloads()
    try:
        with activity(f"fetching the files of {reference}"):
            folder = Path(
                snapshot_download(reference, revision=revision, allow_patterns=_SMALL_FILES)
            )
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OSError) as error:
        raise ModelError(
            f"'{reference}' is neither a local path nor a model that can be reached on the Hub "
            f"({type(error).__name__}). Check the name, the network, and HF_TOKEN for gated models."
        ) from error
    _require_no_adapter(folder, reference)
    _require_tokenizer(folder)
    identity = {"hub_id": reference, "commit": folder.name}
    return LocatedModel(reference, folder, reference, folder.name, identity)


def context_length(located: LocatedModel) -> int | None:
    """Return the number of positions the model's config allows, or None where it does not say."""
    config = read_config(located)
    inner = config.get("text_config")
    config = inner if isinstance(inner, dict) else config
    length = config.get("max_position_embeddings") or config.get("n_positions")
    if not isinstance(length, int) or length < 1:
        return None
    if "roberta" in str(config.get("model_type")) and isinstance(config.get("pad_token_id"), int):
        length -= config["pad_token_id"] + 1  # its positions begin after the padding token's
    return length


def vocabulary_of(located: LocatedModel) -> int | None:
    """Return the number of tokens that the model's config allows, or None where it does not say."""
    config = read_config(located)
    inner = config.get("text_config")
    size = (inner if isinstance(inner, dict) else config).get("vocab_size")
    return size if isinstance(size, int) and size > 0 else None


def padding_of(located: LocatedModel) -> int | None:
    """Return the padding token that the model's config names, or None."""
    config = read_config(located)
    inner = config.get("text_config")
    found = config.get(
        "pad_token_id", inner.get("pad_token_id") if isinstance(inner, dict) else None
    )
    return found if type(found) is int else None


def read_config(located: LocatedModel) -> dict[str, Any]:
    """Return the model's config.json; ModelError where it cannot be read."""
    config = read_json(located.folder / "config.json", ModelError)
    if not isinstance(config, dict):
        raise ModelError(
            f"{located.folder / 'config.json'} holds no object. Fetch the model again."
        )
    return config


def lacks_layer(located: LocatedModel, name: str) -> bool:
    """Tell without loading weights that a model has no layer `name`; False where nothing says so.

    The headers of its weights say it, or where these are still on the Hub, its config.
    """
    from safetensors import SafetensorError, safe_open

    names: list[str] = []
    for file in sorted(located.folder.glob("*.safetensors")):
        try:
            with safe_open(file, framework="numpy") as weights:
                names += weights.keys()
        except (OSError, SafetensorError):
            return False
    if not names:
        from preceptor.engines.loading import weight_names

        names = weight_names(located)
    return bool(names) and not any(f"{name}." in one for one in names)
