"""Load what a located model holds: its tokenizer and its weights, whole and of the kind that was asked for.

`from_pretrained` fills what a checkpoint lacks with random numbers and passes over what it does not know, and
only logs it. Here both are refused, as is a language model that looks ahead. Weights come from safetensors
only, and no code from a repository runs unless the user asks for it.
"""

import re
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, Literal

from preceptor.errors import ModelError, require
from preceptor.store.activity import activity, quieten_downloads

if TYPE_CHECKING:
    import torch

    from preceptor.engines.models import LocatedModel

AutoClass = Literal["AutoModelForCausalLM", "AutoModelForSequenceClassification"]

_BUFFERS = re.compile(
    r"rotary_emb\.inv_freq$|(^|\.)position_ids$|(^|\.)(attn|attention)\.(masked_)?bias$"
)
"""Constants that older versions of the library saved: masks, frequencies and positions."""

_POOLER = re.compile(r"(^|\.)pooler\.")
_LAYER = re.compile(r"\.[0-9]+\.")
_HEAD = re.compile(r"head|score|classif|value|reward|regress|cls")

_CHANGED = "The files of '{}' changed while the model was loaded. Run again when they are complete."
_HERE = "Running a model here"
_PROBE_TOKENS = 8
_LOOKS_AHEAD = 0.1


def load_tokenizer(located: "LocatedModel", **options: Any) -> Any:
    """Return the model's tokenizer; ModelError where transformers cannot build it."""
    require("transformers", purpose=_HERE)
    from transformers import AutoTokenizer

    quieten_loading()
    try:
        tokenizer = AutoTokenizer.from_pretrained(
            located.folder, trust_remote_code=False, **options
        )
        tokenizer.model_max_length > 0  # noqa: B015  (a setting of another type fails at every text)
        return tokenizer
    except Exception as error:  # a damaged file raises whatever its parser does
        raise ModelError(f"The tokenizer of '{located.name}' cannot be loaded: {error}") from error


def load_model(located: "LocatedModel", *, dtype: str, device: str) -> Any:
    """Return the causal language model, in `dtype`, on `device`, ready for inference.

    ModelError where the device or the weights cannot be used, or the model is not causal.
    """
    require_device(device)
    import torch

    model = load_weights("AutoModelForCausalLM", located, dtype=getattr(torch, dtype))
    model = _moved(model, located, device).eval()
    require_causal(model, located)
    return model


def load_reward_model(
    located: "LocatedModel", *, dtype: str, device: str, trust_remote_code: bool = False
) -> Any:
    """Return the sequence classifier, in `dtype`, on `device`, ready for inference.

    `trust_remote_code` lets code from the model's repository run, which some reward models need.

    Raises:
        ModelError: the weights or the device cannot be used, the score head is not among the weights, or the
            model gives more than one number.
    """
    require_device(device)
    import torch

    model = load_weights(
        "AutoModelForSequenceClassification",
        located,
        dtype=getattr(torch, dtype),
        trust_remote_code=trust_remote_code,
    )
    if is_of_the_library(model) and model.config.num_labels != 1:
        raise ModelError(
            f"'{located.name}' gives {model.config.num_labels} numbers, expected one score. A reward "
            "model is a sequence classifier with one label."
        )
    return _moved(model, located, device).eval()


def weight_names(located: "LocatedModel") -> list[str]:
    """Return the names of a language model's weights by its config alone; none where that does not say."""
    require("torch", "transformers", purpose=_HERE)
    import torch
    import transformers

    quieten_loading()
    try:
        auto: Any = transformers.AutoModelForCausalLM
        config = transformers.AutoConfig.from_pretrained(located.folder, trust_remote_code=False)
        with torch.device("meta"):
            model = auto.from_config(config, trust_remote_code=False)
    except (
        Exception
    ):  # an unknown architecture fails in its own ways, and is told where it is loaded
        return []
    return list(model.state_dict())


def load_weights(auto: AutoClass, located: "LocatedModel", **options: Any) -> Any:
    """Return the model of this kind with every weight from its files; `options` go to `from_pretrained`.

    Raises:
        ModelError: the files cannot be read, lack a weight, hold one of another shape or of another
            architecture, or need code from the repository that is not allowed to run.
    """
    require("torch", "transformers", purpose=_HERE)
    import transformers

    quieten_loading()
    allowed = bool(options.setdefault("trust_remote_code", False))
    if auto == "AutoModelForCausalLM" and "gguf_file" not in options:
        _require_decoder(located)
    if allowed:
        _require_own_code(located)
    before = _content(located)
    try:
        with activity(f"loading {located.name}"):
            model, info = getattr(transformers, auto).from_pretrained(
                located.source,
                revision=located.revision,
                use_safetensors=True,
                output_loading_info=True,
                ignore_mismatched_sizes=True,  # they are refused below, by name and shape
                **options,
            )
    except Exception as error:  # a damaged file raises whatever its parser does
        raise ModelError(_refusal(located, error, code_allowed=allowed)) from error
    require_whole(model, info, located)
    if _content(located) != before:
        raise ModelError(_CHANGED.format(located.source))
    return model


def require_whole(model: Any, info: Mapping[str, Any], located: "LocatedModel") -> None:
    """Check what `from_pretrained` reports in its `output_loading_info` and otherwise only logs.

    Harmless are constants of older versions and heads of a task that the model is not used for; what the
    model's class itself leaves out (multi-token prediction, tied weights) is not reported at all.

    Raises:
        ModelError: weights are missing, of another shape, or of another architecture.
    """
    kind, where = type(model).__name__, f"the weights in '{located.source}'"
    if missing := sorted(info["missing_keys"]):
        raise ModelError(
            f"'{located.name}' cannot be used as a {kind}: {where} lack {_some(missing)}, which would be "
            "random numbers. Fetch the model again, or give one that was saved whole and for this use "
            f"({_use(kind)})."
        )
    if mismatched := sorted(info["mismatched_keys"]):
        name, seen, expected = mismatched[0]
        raise ModelError(
            f"'{located.name}' cannot be used: in {where}, {name} has the shape {tuple(seen)}, and its "
            f"config.json says {tuple(expected)}. Fetch config.json and weights of the same model."
        )
    children = {name for name, _ in model.named_children()}
    if unknown := sorted(key for key in info["unexpected_keys"] if not _harmless(key, children)):
        raise ModelError(
            f"'{located.name}' cannot be used as a {kind}: {where} hold {_some(unknown)}, which this "
            "architecture does not have. Its config.json is another model's, or adapters were not merged: "
            "fetch config.json and weights of the same model, or merge and save it again."
        )


def _content(located: "LocatedModel") -> object:
    """Return the stamps of a folder's files, which hold what its identity was made of.

    The same before and after loading say that just this was loaded: other files that were put there meanwhile
    and taken away again leave other stamps.

    Raises:
        ModelError: they hold something else.
    """
    from preceptor.engines.models import IDENTITY_FILES
    from preceptor.store.identity import folder_digest, folder_stamps

    if located.content is None:
        return None
    try:
        stamps = folder_stamps(located.source, (*IDENTITY_FILES, "*.py"))
    except OSError:
        stamps = []
    if not stamps or folder_digest(located.source, IDENTITY_FILES) != located.content:
        raise ModelError(_CHANGED.format(located.source))
    return stamps


def _require_own_code(located: "LocatedModel") -> None:
    """Refuse code of another repository, which neither the user nor an identity has seen."""
    from preceptor.engines.models import read_config

    named = read_config(located).get("auto_map")
    for place in named.values() if isinstance(named, Mapping) else ():
        if "--" in str(place):
            raise ModelError(
                f"The code of '{located.name}' lies in another repository ({place!s:.80}). Copy its .py "
                "files into the folder, read them, and take what stands before '--' out of auto_map in its "
                "config.json."
            )


def _harmless(key: str, children: set[str]) -> bool:
    """Whether numbers stay right without this weight of the files."""
    if _BUFFERS.search(key) or _POOLER.search(key):
        return True
    # Within a part that the model has, every weight is meant to be used; a layer is never an addition.
    top = key.partition(".")[0]
    return top not in children and (not _LAYER.search(key) or bool(_HEAD.search(top)))


def _some(keys: Iterable[str]) -> str:
    first, *others = keys
    return first + (f" and {len(others)} others" if others else "")


def _use(kind: str) -> str:
    scores = kind.endswith("ForSequenceClassification")
    return "a reward model with its score head" if scores else "a language model with its head"


def _refusal(located: "LocatedModel", error: Exception, *, code_allowed: bool) -> str:
    if "trust_remote_code" in str(error) and not code_allowed:
        return (
            f"'{located.name}' needs code from its repository to run. A reward model's may be allowed with "
            "--trust-remote-code, once you have read it; any other needs weights for a class of transformers."
        )
    return f"'{located.name}' cannot be loaded: {error}"


def is_of_the_library(model: Any) -> bool:
    """Whether the model's class is one of transformers' own."""
    return type(model).__module__.startswith("transformers.")


def quieten_loading() -> None:
    """Keep transformers and the Hub from drawing bars and reports of their own; errors are worded here."""
    from transformers.utils import logging as transformers_logging

    quieten_downloads()

    transformers_logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    transformers_logging.set_verbosity_error()  # type: ignore[no-untyped-call]


def require_device(device: str) -> None:
    """Check that PyTorch can use the device here; ModelError that says what it can use otherwise."""
    require("torch", purpose=_HERE)
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


def _moved(model: Any, located: "LocatedModel", device: str) -> Any:
    try:
        return model.to(device)
    except RuntimeError as error:
        raise ModelError(f"'{located.name}' cannot be moved to '{device}': {error}") from error


def _require_decoder(located: "LocatedModel") -> None:
    from preceptor.engines.models import read_config

    if read_config(located).get("is_encoder_decoder"):
        raise ModelError(
            f"'{located.name}' is an encoder-decoder, expected a causal language model (decoder only)."
        )


def is_sharded() -> bool:
    """Whether this process holds only a share of a model's weights, or none until it trains."""
    from transformers.integrations.deepspeed import is_deepspeed_zero3_enabled
    from transformers.integrations.fsdp import is_fsdp_enabled

    return bool(is_fsdp_enabled() or is_deepspeed_zero3_enabled())  # type: ignore[no-untyped-call]


def require_causal(model: Any, located: "LocatedModel") -> None:
    """Check that no token changes what is predicted before it.

    A masked language model (BERT) reads both ways, and each response would tell its own tokens in advance.
    Changing the last of eight tokens must move the distributions before it by less than a tenth of what
    changing the first moves those after it. Measured on 40 small architectures in float32 and bfloat16: at
    most 7e-6 of it where a model is causal, at least 0.5 where it is not.

    Raises:
        ModelError: a later token changes an earlier token's distribution.
    """
    size = model.get_input_embeddings().weight.shape[0]
    ids = [(7919 * step + 11) % size for step in range(_PROBE_TOKENS)]
    plain = _distributions(model, ids)
    back = plain - _distributions(model, [*ids[:-1], (ids[-1] + size // 2) % size])
    on = plain - _distributions(model, [(ids[0] + size // 2) % size, *ids[1:]])
    if float(back[:-1].abs().max()) > _LOOKS_AHEAD * float(on[1:].abs().max()):
        raise ModelError(
            f"'{located.name}' ({type(model).__name__}) is no causal language model: what it predicts for a "
            "token depends on later ones, as in BERT. Give a model that reads from left to right."
        )


def _distributions(model: Any, ids: list[int]) -> "torch.Tensor":
    """Return log-probabilities (tokens, vocabulary) in float32."""
    import torch

    device = next(model.parameters()).device
    with torch.inference_mode():
        logits: torch.Tensor = model(input_ids=torch.tensor([ids], device=device)).logits
    return logits[0].float().log_softmax(-1)
