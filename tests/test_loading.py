"""Models are loaded whole, as what they are, and refused where a number would be made up.

Every architecture is a real one, saved small; its files are then damaged as a failed download, a wrong
config.json or a tool that leaves something out would damage them.
"""

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file

from conftest import COMMON, GROUPED, build_model
from preceptor.engines.loading import load_model
from preceptor.engines.models import locate
from preceptor.errors import ModelError
from small_gguf import write_gguf

Save = Callable[[Any, str], Path]
Weights = dict[str, torch.Tensor]


@pytest.fixture
def save(tmp_path: Path, tokenizer: Any, private_cache: Path) -> Save:
    """Save a model, or the one of that name, with its tokenizer."""

    def saved(model: Any, name: str) -> Path:
        folder = tmp_path / name
        model.save_pretrained(folder)
        tokenizer.save_pretrained(folder)
        return folder

    return saved


def change(folder: Path, weights: Weights) -> None:
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})


def weights_of(folder: Path) -> Weights:
    return load_file(folder / "model.safetensors")


def load(folder: Path, dtype: str = "float32") -> Any:
    return load_model(locate(str(folder)), dtype=dtype, device="cpu")


def refusal(folder: Path) -> str:
    with pytest.raises(ModelError) as caught:
        load(folder)
    return str(caught.value)


@pytest.mark.parametrize("name", ["llama", "gemma2", "gpt2", "neox", "gpt-oss", "mamba"])
def test_a_layer_that_is_not_among_the_weights_is_refused(save: Save, name: str) -> None:
    folder = save(build_model(name), name)
    whole = weights_of(folder)
    kept = {key: weight for key, weight in whole.items() if ".1." not in key}
    change(folder, kept)
    message = refusal(folder)
    assert (
        f"lack {min(whole.keys() - kept.keys())} and {len(whole) - len(kept) - 1} others" in message
    )
    assert "random numbers" in message and str(folder) in message and "Fetch the model" in message


@pytest.mark.parametrize("name", ["llama", "qwen3", "gpt-oss"])
def test_a_head_that_is_neither_there_nor_tied_is_refused(save: Save, name: str) -> None:
    folder = save(build_model(name), name)
    change(folder, {key: w for key, w in weights_of(folder).items() if key != "lm_head.weight"})
    assert "lack lm_head.weight, which would be random numbers" in refusal(folder)


@pytest.mark.parametrize("name", ["gemma2", "gpt2", "opt", "bloom", "mamba"])
def test_a_tied_head_is_not_missed(save: Save, name: str) -> None:
    model = build_model(name)
    folder = save(model, name)
    ids = torch.tensor([[5, 6, 7]])
    with torch.inference_mode():
        assert torch.equal(load(folder)(ids).logits, model(ids).logits)


def test_a_weight_of_another_shape_is_refused_with_both(save: Save) -> None:
    folder = save(build_model("llama"), "model")
    weights = weights_of(folder)
    change(folder, weights | {"model.norm.weight": weights["model.norm.weight"][:16].clone()})
    message = refusal(folder)
    assert "model.norm.weight has the shape (16,), and its config.json says (32,)" in message


@pytest.mark.parametrize(
    "extra",
    [
        "model.layers.3.mlp.up_proj.weight",  # a layer more than the config says
        "model.layers.0.self_attn.q_proj.bias",  # Qwen2's weights under Llama's config
        "model.layers.0.self_attn.q_proj.lora_A.weight",  # an adapter that was not merged
        "model.layers.0.self_attn.q_norm.weight",  # Qwen3's
        "lm_head.bias",
        "encoder.layers.0.weight",
    ],
)
def test_weights_of_another_architecture_are_refused(save: Save, extra: str) -> None:
    folder = save(build_model("llama"), "model")
    change(folder, {**weights_of(folder), extra: torch.ones(8)})
    message = refusal(folder)
    assert f"hold {extra}, which this architecture does not have" in message
    assert "config.json is another model's" in message


@pytest.mark.parametrize(
    ("name", "extra"),
    [
        ("llama", "model.layers.0.self_attn.rotary_emb.inv_freq"),
        ("gemma3", "model.layers.0.self_attn.rotary_emb.inv_freq"),
        ("gpt2", "transformer.h.0.attn.bias"),  # GPT-2's own files hold the causal mask
        ("gpt2", "transformer.h.0.attn.masked_bias"),
        ("neox", "gpt_neox.layers.0.attention.masked_bias"),
        ("llama", "v_head.summary.weight"),  # TRL's value head
        ("llama", "score.weight"),
        ("llama", "value_head.0.weight"),
    ],
)
def test_what_bears_on_no_number_is_passed_over(save: Save, name: str, extra: str) -> None:
    model = build_model(name)
    folder = save(model, name)
    change(folder, {**weights_of(folder), extra: torch.ones(4)})
    ids = torch.tensor([[5, 6, 7]])
    with torch.inference_mode():
        assert torch.equal(load(folder)(ids).logits, model(ids).logits)


def test_a_sequence_classifier_is_no_language_model(save: Save) -> None:
    folder = save(build_model("llama", labels=1), "model")
    assert "as a LlamaForCausalLM" in refusal(folder)
    assert "a language model with its head" in refusal(folder)


@pytest.fixture
def gguf_packages() -> None:
    for package in ("gguf", "accelerate"):
        pytest.importorskip(package, reason=f"reading GGUF needs the package {package}")


def test_a_gguf_file_gives_back_what_was_written(
    gguf_packages: None, tmp_path: Path, tokenizer: Any, private_cache: Path
) -> None:
    model = load(write_gguf(tmp_path / "tiny.gguf", tokenizer))
    size = (len(tokenizer), 32)
    random = np.random.default_rng(0)
    first = random.normal(size=(32, 32))  # the first tensor that is written
    assert tuple(model.get_output_embeddings().weight.shape) == size
    assert np.sort(model.model.layers[0].self_attn.q_proj.weight.detach().numpy(), axis=None) == (
        pytest.approx(np.sort(first, axis=None), abs=1e-6)
    )  # rows are in another order: GGUF pairs rotary dimensions differently


@pytest.mark.parametrize("without", ["blk.1.", "ffn_up", "output_norm"])
def test_a_gguf_file_that_lacks_weights_is_refused(
    gguf_packages: None, tmp_path: Path, tokenizer: Any, private_cache: Path, without: str
) -> None:
    path = write_gguf(tmp_path / "tiny.gguf", tokenizer, without=without)
    with pytest.raises(ModelError, match=r"lack .* random numbers"):
        locate(str(path))
    assert list((private_cache / "gguf").iterdir()) == []


def test_a_damaged_conversion_is_made_again(
    gguf_packages: None, tmp_path: Path, tokenizer: Any, private_cache: Path
) -> None:
    path = write_gguf(tmp_path / "tiny.gguf", tokenizer)
    weights = locate(str(path)).folder / "model.safetensors"
    whole = weights.read_bytes()
    weights.write_bytes(whole[:-4] + b"\x00\x00\x80\x3f")
    assert (locate(str(path)).folder / "model.safetensors").read_bytes() == whole
    weights.unlink()
    assert (locate(str(path)).folder / "model.safetensors").read_bytes() == whole


def test_a_cache_that_others_may_write_to_is_refused(
    gguf_packages: None, tmp_path: Path, tokenizer: Any, private_cache: Path
) -> None:
    path = write_gguf(tmp_path / "tiny.gguf", tokenizer)
    (private_cache / "gguf").mkdir(parents=True)
    (private_cache / "gguf").chmod(0o777)
    with pytest.raises(ModelError, match=r"can be written to by others.*PRECEPTOR_CACHE"):
        locate(str(path))


def test_weights_that_change_between_finding_and_loading_are_refused(save: Save) -> None:
    folder = save(build_model("llama"), "model")
    located = locate(str(folder))
    weights = weights_of(folder)
    change(folder, weights | {"model.norm.weight": weights["model.norm.weight"] * 2})
    with pytest.raises(ModelError, match="changed while the model was loaded"):
        load_model(located, dtype="float32", device="cpu")


@pytest.mark.parametrize("gguf", [False, True], ids=["folder", "gguf"])
def test_weights_that_were_others_while_they_were_loaded_are_refused(
    save: Save,
    gguf_packages: None,
    tmp_path: Path,
    tokenizer: Any,
    private_cache: Path,
    monkeypatch: pytest.MonkeyPatch,
    gguf: bool,
) -> None:
    source = (
        write_gguf(tmp_path / "tiny.gguf", tokenizer) if gguf else save(build_model("llama"), "m")
    )
    located = locate(str(source))
    path = located.folder / "model.safetensors"
    load = transformers.AutoModelForCausalLM.from_pretrained

    def while_swapped(*given: Any, **options: Any) -> Any:
        own, status = path.read_bytes(), path.stat()
        path.write_bytes(own[:-4] + b"\0\0\0\0")
        loaded = load(*given, **options)
        path.write_bytes(own)
        os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
        return loaded

    monkeypatch.setattr(transformers.AutoModelForCausalLM, "from_pretrained", while_swapped)
    with pytest.raises(ModelError, match="changed while the model was loaded"):
        load_model(located, dtype="float32", device="cpu")


@pytest.mark.parametrize("place", ["../other/model.safetensors", "sub/model.safetensors", "/x.bin"])
@pytest.mark.parametrize("file", ["model.safetensors.index.json", "config.json"])
def test_weights_outside_of_the_folder_are_refused(save: Save, file: str, place: str) -> None:
    folder = save(build_model("llama"), "model")
    path = folder / file
    held = json.loads(path.read_text()) if path.exists() else {"weight_map": {"model.norm": place}}
    path.write_text(json.dumps({**held, "transformers_weights": place}))
    with pytest.raises(ModelError, match="takes its weights from '"):
        locate(str(folder))


def test_what_lies_beside_a_gguf_file_neither_runs_nor_counts(
    gguf_packages: None, tmp_path: Path, tokenizer: Any, private_cache: Path
) -> None:
    alone = locate(str(write_gguf(tmp_path / "tiny.gguf", tokenizer)))
    alone_files = sorted(path.name for path in alone.folder.iterdir())
    shutil.rmtree(private_cache)
    (tmp_path / "beside.py").write_text("raise SystemExit('this code must not run')")
    auto = {
        "AutoConfig": "beside.X",
        "AutoModelForCausalLM": "beside.X",
        "AutoTokenizer": ["beside.X"] * 2,
    }
    for name in ("config.json", "tokenizer_config.json", "generation_config.json"):
        (tmp_path / name).write_text(json.dumps({"auto_map": auto, "eos_token_id": 7}))
    (tmp_path / "chat_template.jinja").write_text("planted")
    found = locate(str(tmp_path / "tiny.gguf"))
    assert sorted(path.name for path in found.folder.iterdir()) == alone_files
    assert "planted" not in "".join(
        path.read_text() for path in found.folder.iterdir() if path.suffix in (".json", ".jinja")
    )


SMALL = {**COMMON, "num_hidden_layers": 2}
MASKED: dict[str, tuple[str, dict[str, Any]]] = {
    "bert": ("BertConfig", SMALL),
    "roberta": ("RobertaConfig", {**SMALL, "max_position_embeddings": 64}),
    "electra": ("ElectraConfig", {**SMALL, "embedding_size": 32}),
}


def built(kind: str, settings: dict[str, Any], auto: Any, scale: float = 1.0) -> Any:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = auto.from_config(getattr(transformers, kind)(**settings)).float().eval()
    for weight in model.parameters():
        if weight.dim() > 1:
            weight.data *= scale
    return model


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("name", MASKED)
def test_a_model_that_reads_both_ways_is_refused(save: Save, name: str, dtype: str) -> None:
    kind, settings = MASKED[name]
    folder = save(built(kind, settings, transformers.AutoModelForMaskedLM), name)
    if name == "electra":  # its head has another name in a masked model
        model = built(kind, settings, transformers.AutoModelForCausalLM)
        folder = save(model, name)
    with pytest.raises(ModelError, match=r"is no causal language model: what it predicts"):
        load(folder, dtype)


def test_an_encoder_made_a_decoder_is_causal(save: Save) -> None:
    settings = {**SMALL, "is_decoder": True}
    load(save(built("BertConfig", settings, transformers.AutoModelForCausalLM), "bert-decoder"))


def test_an_encoder_decoder_is_refused_by_its_kind(save: Save) -> None:
    sizes = {"encoder_layers": 1, "decoder_layers": 1, "encoder_ffn_dim": 32, "decoder_ffn_dim": 32}
    heads = {"encoder_attention_heads": 2, "decoder_attention_heads": 2}
    bart = {"vocab_size": 400, "d_model": 32, "max_position_embeddings": 64, **sizes, **heads}
    t5 = {"vocab_size": 400, "d_model": 32, "num_layers": 1, "d_ff": 32, "num_heads": 2, "d_kv": 16}
    for kind, settings in (("BartConfig", bart), ("T5Config", t5)):
        folder = save(built(kind, settings, transformers.AutoModelForSeq2SeqLM), kind)
        assert "is an encoder-decoder, expected a causal language model" in refusal(folder)


SPARSE = {**GROUPED, "num_hidden_layers": 2, "num_experts_per_tok": 2}
CAUSAL: dict[str, tuple[str, dict[str, Any]]] = {
    "mixtral": ("MixtralConfig", {**SPARSE, "num_local_experts": 4}),
    "olmoe": ("OlmoeConfig", {**SPARSE, "num_experts": 8}),
    "falcon": ("FalconConfig", SMALL),
    "lfm2": ("Lfm2Config", {**GROUPED, "num_hidden_layers": 2}),
    "bloom": ("BloomConfig", {**COMMON, "n_layer": 2, "n_head": 4}),
}


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("name", CAUSAL)
def test_experts_states_and_rounding_do_not_look_ahead(save: Save, name: str, dtype: str) -> None:
    kind, settings = CAUSAL[name]
    for scale in (1.0, 3.0):
        load(save(built(kind, settings, transformers.AutoModelForCausalLM, scale), name), dtype)
