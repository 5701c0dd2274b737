"""Tiny models of real architectures and a tiny real tokenizer, made on the spot.

Weights are random but large enough that attention, windows and caps show in the numbers,
and everything passes through the library's own doors: saved folders, real tokenizers.
"""

import os
import re
import signal
from collections.abc import Callable, Generator, Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings

from preceptor.errors import EXTRAS, MissingPackage

# A busy machine is not a defect. What passed once passes again; `--hypothesis-profile search` looks further.
settings.register_profile(
    "preceptor", deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow]
)
settings.register_profile(
    "search", settings.get_profile("preceptor"), derandomize=False, max_examples=2000
)
settings.load_profile("preceptor")

# With tiny tensors more threads only wait for each other, in the processes of tests too.
os.environ.setdefault("OMP_NUM_THREADS", "1")

# How wide a terminal is belongs to whoever runs the tests, who may have told it to processes of workers.
for name in ("COLUMNS", "LINES"):
    os.environ.pop(name, None)

# A shell starts jobs in the background with interrupts ignored, and some tests interrupt.
signal.signal(signal.SIGINT, signal.default_int_handler)

# Modules of extras that the development environment has, where this one does not: what needs them skips.
# Of the extras that it does not have either (vLLM, lm-eval, trackers) each test says itself what it needs.
_DEVELOPED = ("curate", "datasets", "demo", "local", "pandas", "ray", "report", "train", "verify")
_ALSO = {"boto3": "s3", "moto": "s3", "s3fs": "s3", "sentencepiece": "local", "tokenizers": "local"}
LACKING = {
    module: extra
    for module, extra in (*((name, extra) for name, (_, extra) in EXTRAS.items()), *_ALSO.items())
    if extra in (*_DEVELOPED, "s3") and find_spec(module) is None
}
_ABSENT = re.compile(r"No module named '(\w+)|pip install 'preceptor\[(\w+)\]'")


def lacked(words: str) -> str | None:
    """Return why a test cannot run in this environment, by what failed; None where it could."""
    for module, extra in _ABSENT.findall(words):
        if module in LACKING or extra in LACKING.values():
            return f"needs the extra {extra or LACKING[module]}, which is not installed"
    return None


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report(collector: pytest.Collector) -> Generator[None, Any, Any]:
    """Skip a file that imports what only an absent extra brings."""
    report = yield
    if LACKING and report.failed and (why := lacked(str(report.longrepr))):
        report.outcome = "skipped"
        report.longrepr = (str(collector.path), 1, f"Skipped: {why}")
    return report


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, Any, Any]:
    """Skip a test that ended because an extra is absent; one that fails otherwise fails."""
    report = yield
    absent = call.excinfo and isinstance(call.excinfo.value, ImportError | MissingPackage)
    if LACKING and report.failed and absent and (why := lacked(str(call.excinfo.value))):
        report.outcome = "skipped"
        report.longrepr = (str(item.path), item.location[1] or 1, f"Skipped: {why}")
    return report


CORPUS = [
    "The cat sat on the mat, and the dog lay beside the other cat.",
    "Write a poem about the sea. The sea is wide; the sea is deep.",
    "What is two plus two? Two plus two is four. <b>Hello</b> there!",
    "def add(one, two):\n    return one + two\n\n\nprint(add(2, 2))\n",
]
CONTROL_TOKENS = ["<start_of_turn>", "<end_of_turn>", "<|im_start|>", "<|im_end|>"]


@pytest.fixture
def private_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache folder in place of the user's own."""
    monkeypatch.setenv("PRECEPTOR_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def one_thread() -> Iterator[None]:
    """One thread for PyTorch: with tiny tensors more only wait for each other."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def build_tokenizer(**special: Any) -> Any:
    """Return a byte-level BPE tokenizer of about 370 entries that knows the control tokens."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    names = [token for role, token in special.items() if role.endswith("_token")]
    trainer = trainers.BpeTrainer(
        vocab_size=370,
        special_tokens=list(dict.fromkeys([*names, *CONTROL_TOKENS])),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(CORPUS * 3, trainer)
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, **special)


@pytest.fixture(scope="session")
def make_tokenizer() -> Callable[..., Any]:
    """Return `build_tokenizer`: keywords are the special tokens and the chat template."""
    return build_tokenizer


@pytest.fixture(scope="session")
def tokenizer(make_tokenizer: Callable[..., Any]) -> Any:
    """A tokenizer with a beginning token of its own, as Gemma's."""
    return make_tokenizer(bos_token="<bos>", eos_token="<eos>", pad_token="<pad>")


COMMON = {
    "vocab_size": 400,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
GROUPED = {**COMMON, "num_key_value_heads": 2, "max_position_embeddings": 512}
GPT2 = {"vocab_size": 400, "n_embd": 32, "n_layer": 3, "n_head": 4, "n_positions": 512}
CONFIGS: dict[str, tuple[str, dict[str, Any]]] = {
    "llama": ("LlamaConfig", GROUPED),
    "gemma2": (
        "Gemma2Config",
        {
            **GROUPED,
            "head_dim": 8,
            "sliding_window": 16,
            "query_pre_attn_scalar": 8,
            "attn_logit_softcapping": 0.5,
            "final_logit_softcapping": 2.0,
        },
    ),
    "gemma3": (
        "Gemma3TextConfig",
        {**GROUPED, "head_dim": 8, "sliding_window": 16, "query_pre_attn_scalar": 8},
    ),
    "qwen3": ("Qwen3Config", {**GROUPED, "head_dim": 8}),
    "mistral": ("MistralConfig", {**GROUPED, "sliding_window": 20}),
    "phi3": ("Phi3Config", GROUPED),
    "gpt2": ("GPT2Config", {**GPT2, "bos_token_id": 1, "eos_token_id": 2}),
    "neox": ("GPTNeoXConfig", COMMON),
    "opt": (
        "OPTConfig",
        {**COMMON, "ffn_dim": 64, "word_embed_proj_dim": 32, "max_position_embeddings": 512},
    ),
    "gpt-oss": (
        "GptOssConfig",
        {
            **GROUPED,
            "head_dim": 8,
            "sliding_window": 16,
            "num_local_experts": 4,
            "num_experts_per_tok": 2,
        },
    ),
    "bert": ("BertConfig", {**COMMON, "max_position_embeddings": 512}),
    "bloom": ("BloomConfig", {**COMMON, "n_layer": 3, "n_head": 4}),
    "mamba": ("MambaConfig", {**COMMON, "state_size": 8}),
}


def build_model(name: str, *, labels: int | None = None) -> Any:
    """Return the tiny model `name` of `CONFIGS`, the same weights each time.

    With `labels` it is a sequence classifier instead of a language model.
    """
    import torch
    import transformers

    kind, settings = CONFIGS[name]
    auto: Any = transformers.AutoModelForCausalLM
    if labels is not None:
        auto = transformers.AutoModelForSequenceClassification
        settings = {"pad_token_id": 0, **settings, "num_labels": labels}
    with torch.random.fork_rng():
        torch.manual_seed(0)
        config = getattr(transformers, kind)(**settings)
        model = auto.from_config(config).float().eval()
        for weight in model.parameters():
            if weight.dim() > 1:
                weight.data *= 3
            elif not weight.any():
                torch.nn.init.normal_(weight, std=0.5)  # biases and sinks that start as zeros
    return model


@pytest.fixture(scope="session")
def make_model() -> Callable[..., Any]:
    """Return `build_model`."""
    return build_model


@pytest.fixture(scope="session")
def model_folder(tmp_path_factory: pytest.TempPathFactory, tokenizer: Any) -> Path:
    """A saved tiny Llama with its tokenizer; copy it before changing it."""
    folder = tmp_path_factory.mktemp("models") / "tiny-llama"
    build_model("llama").save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder
