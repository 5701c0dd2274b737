"""Models are found where users keep them, known by their content, and refused with a remedy.

The tests marked real_model convert a real GGUF file in the user's own cache: the first run on a machine
pays for it, the others find it there.
"""

import json
import shutil
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch

from preceptor import demo
from preceptor.engines.loading import load_model, load_tokenizer
from preceptor.engines.models import LocatedModel, context_length, locate
from preceptor.errors import MissingPackage, ModelError
from preceptor.store.files import temporary_name


@pytest.fixture
def folder(model_folder: Path, tmp_path: Path, private_cache: Path) -> Path:
    """A copy of the tiny Llama that a test may change."""
    return shutil.copytree(model_folder, tmp_path / "model")


def require_gguf_packages() -> None:
    for package in ("gguf", "accelerate"):
        pytest.importorskip(package, reason=f"reading GGUF needs the package {package}")


def refusal(reference: str | Path) -> str:
    with pytest.raises(ModelError) as caught:
        locate(str(reference))
    return str(caught.value)


def test_a_local_folder_is_located_and_loads(folder: Path) -> None:
    located = locate(str(folder))
    assert (located.name, located.folder, located.revision) == ("model", folder, None)
    assert list(located.identity) == ["folder_sha256"]
    model = load_model(located, dtype="float32", device="cpu")
    assert not model.training
    assert {weight.dtype for weight in model.parameters()} == {torch.float32}
    assert load_tokenizer(located).bos_token == "<bos>"


def test_weights_are_loaded_in_the_precision_asked_for(folder: Path) -> None:
    model = load_model(locate(str(folder)), dtype="bfloat16", device="cpu")
    assert {weight.dtype for weight in model.parameters()} == {torch.bfloat16}


def test_a_folder_without_config_is_refused(folder: Path) -> None:
    (folder / "config.json").unlink()
    assert "holds no config.json" in refusal(folder)
    assert "Name the folder that save_pretrained wrote" in refusal(folder)


def test_an_adapter_alone_or_beside_weights_is_refused_with_its_base(folder: Path) -> None:
    adapter = {"peft_type": "LORA", "base_model_name_or_path": "owner/base"}
    (folder / "adapter_config.json").write_text(json.dumps(adapter))
    for name in ("nothing", "config.json", "model.safetensors"):
        (folder / name).unlink(missing_ok=True)
        said = refusal(folder)
        assert "holds a LoRA adapter of owner/base: merge it" in said
        assert "or give the base" in said


def test_a_folder_without_tokenizer_is_refused_with_the_remedy(folder: Path) -> None:
    (folder / "tokenizer.json").unlink()
    assert "holds no tokenizer" in refusal(folder)
    assert "tokenizer.save_pretrained" in refusal(folder)


def test_pickled_weights_are_never_loaded(folder: Path) -> None:
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    assert "only pickled weights (pytorch_model.bin)" in refusal(folder)
    assert "convert the model with save_pretrained" in refusal(folder)


def test_a_folder_without_weights_is_refused(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    assert "holds no weights, expected *.safetensors" in refusal(folder)


def test_a_path_where_nothing_is_or_a_stray_file_is_refused_without_asking_the_hub(
    folder: Path,
) -> None:
    expected = "expected a folder with config.json, a .gguf file, or a Hub id"
    assert expected in refusal(folder / "missing")
    assert expected in refusal("./missing")
    assert expected in refusal(folder / "config.json")
    (folder / "present-q4.gguf").touch()
    said = refusal(folder / "presnt-q4.gguf")
    assert "No GGUF file at" in said and "Did you mean 'present-q4.gguf'? Check the path." in said


def test_a_file_that_only_calls_itself_gguf_is_refused_with_the_remedy(tmp_path: Path) -> None:
    require_gguf_packages()
    for content in (b"", b"this is no model", b"GGUF" + bytes(range(60))):
        (tmp_path / "wrong.gguf").write_bytes(content)
        message = refusal(tmp_path / "wrong.gguf")
        assert "cannot be converted" in message
        assert "original (safetensors) weights" in message


def test_a_conversion_that_fails_leaves_nothing_in_the_cache(
    tmp_path: Path, private_cache: Path
) -> None:
    require_gguf_packages()
    (tmp_path / "wrong.gguf").write_bytes(b"this is no model")
    living = private_cache / "gguf" / f".converting-{temporary_name()}"
    killed = living.with_name(".converting-" + "-".join(living.name.split("-")[1:-2]) + "-1-gone")
    for folder in (living, killed):
        (folder / "half").mkdir(parents=True)
    refusal(tmp_path / "wrong.gguf")
    assert list((private_cache / "gguf").iterdir()) == [living]


def test_reading_gguf_without_its_packages_names_the_one_to_install(
    tmp_path: Path, private_cache: Path
) -> None:
    missing = [name for name in ("gguf", "accelerate") if find_spec(name) is None]
    if not missing:
        pytest.skip("all packages for reading GGUF are installed")
    (tmp_path / "wrong.gguf").write_bytes(b"this is no model")
    with pytest.raises(MissingPackage, match=rf"'{missing[0]}'.*preceptor\[local\]"):
        locate(str(tmp_path / "wrong.gguf"))


def test_damaged_weights_are_a_model_error(folder: Path) -> None:
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    with pytest.raises(ModelError, match="'model' cannot be loaded"):
        load_model(locate(str(folder)), dtype="float32", device="cpu")


def test_a_damaged_tokenizer_is_a_model_error(folder: Path) -> None:
    (folder / "tokenizer.json").write_text("{}")
    with pytest.raises(ModelError, match="tokenizer of 'model' cannot be loaded"):
        load_tokenizer(locate(str(folder)))


@pytest.mark.parametrize("device", ["tpu", "cuda:999999", "gpu"])
def test_a_device_that_cannot_be_used_is_refused_with_those_that_can(
    device: str, folder: Path
) -> None:
    if device.startswith("cuda") and torch.cuda.is_available():
        pytest.skip("this machine has CUDA")
    with pytest.raises(ModelError, match=f"cannot use the device '{device}'.*can use: cpu") as it:
        load_model(locate(str(folder)), dtype="float32", device=device)
    assert "--device cpu" in str(it.value)


def test_a_folder_is_known_by_its_content_and_not_by_its_name(folder: Path) -> None:
    before = locate(str(folder)).identity
    moved = folder.rename(folder.with_name("other-name"))
    assert locate(str(moved)).identity == before
    weights = bytearray((moved / "model.safetensors").read_bytes())
    weights[-1] ^= 1
    (moved / "model.safetensors").write_bytes(weights)
    assert locate(str(moved)).identity != before


@pytest.mark.parametrize("name", ["config.json", "tokenizer.json", "chat_template.jinja"])
def test_config_tokenizer_and_template_belong_to_the_identity(name: str, folder: Path) -> None:
    before = locate(str(folder)).identity
    with (folder / name).open("a") as file:
        file.write(" ")
    assert locate(str(folder)).identity != before


def test_what_bears_on_no_number_stays_out_of_the_identity(folder: Path) -> None:
    before = locate(str(folder)).identity
    (folder / "README.md").write_text("A tiny model.")
    (folder / "optimizer.pt").write_bytes(b"1")
    assert locate(str(folder)).identity == before


@pytest.mark.parametrize(
    ("config", "length"),
    [
        ({"max_position_embeddings": 512}, 512),
        ({"n_positions": 1024}, 1024),
        ({"text_config": {"max_position_embeddings": 256}}, 256),
        ({"hidden_size": 64}, None),
    ],
)
def test_the_context_length_is_what_the_config_says(
    config: dict[str, object], length: int | None, tmp_path: Path
) -> None:
    (tmp_path / "config.json").write_text(json.dumps(config))
    assert context_length(LocatedModel("m", tmp_path, "m", None, {})) == length


@pytest.fixture
def gguf_file() -> Path:
    """The demo's base model, put together and converted in the user's own cache."""
    require_gguf_packages()
    try:
        return demo.gemma_gguf()
    except MissingPackage as error:
        pytest.skip(f"the demo extra is not installed: {error}")


@pytest.mark.real_model
def test_a_gguf_file_is_converted_once_and_known_by_its_content(gguf_file: Path) -> None:
    located = locate(str(gguf_file))
    assert located.identity == {"gguf_sha256": demo.GEMMA_SHA256}
    changed = (located.folder / "model.safetensors").stat().st_mtime_ns
    assert locate(str(gguf_file)) == located
    assert (located.folder / "model.safetensors").stat().st_mtime_ns == changed
    own = temporary_name().rpartition("-")[0]  # other processes may be converting theirs
    assert not list(located.folder.parent.glob(f".converting-{own}-*"))
    assert context_length(located) == 32768


@pytest.mark.real_model
def test_a_converted_gguf_model_predicts_words(gguf_file: Path) -> None:
    located = locate(str(gguf_file))
    tokenizer = load_tokenizer(located)
    assert (tokenizer.bos_token, tokenizer.eos_token) == ("<bos>", "<eos>")
    model = load_model(located, dtype="float32", device="cpu")
    ids = torch.tensor([tokenizer("The capital of France is")["input_ids"]])
    assert ids[0, 0] == tokenizer.bos_token_id
    with torch.inference_mode():
        likeliest = model(ids).logits[0, -1].topk(5).indices
    assert " Paris" in [tokenizer.decode(id_) for id_ in likeliest]
