"""Fine-tuning tiny real models: what the loss is taken over, what is written, how it answers and stops."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from preceptor.config.recipe import Lora
from preceptor.config.runtime import Runtime
from preceptor.engines.encoder import Encoder
from preceptor.engines.loading import load_model, load_tokenizer
from preceptor.engines.models import locate
from preceptor.engines.templates import choose_template
from preceptor.errors import ModelError, StudyError
from preceptor.finetuning.dataset import conversations_of
from preceptor.finetuning.finetune import fine_tune
from preceptor.finetuning.labels import IGNORED
from preceptor.finetuning.prepared import prepare
from preceptor.finetuning.trainer import Moment
from preceptor.types import Message
from small_training import CPU, QUICK, conversation, log_of, student, tuned, uneven

pytestmark = pytest.mark.usefixtures("private_cache", "one_thread")

LEARN_BY_HEART = QUICK.model_copy(update={"epochs": 40, "batch_size": 2, "learning_rate": 1e-2})
ANSWER = "The sea is wide."


@pytest.mark.parametrize("name", ["llama", "gemma2", "gemma3", "neox"])
def test_the_loss_is_the_mean_over_all_trained_tokens_of_a_step(
    name: str, tmp_path: Path, make_model: Callable[..., Any], tokenizer: Any
):
    import torch

    located = student(tmp_path / "student", name, make_model, tokenizer)
    rows = uneven(8)
    prepared = prepare(located, rows, QUICK, runtime=CPU)
    model = load_model(located, dtype="float32", device="cpu")
    total, trained = 0.0, 0
    for row in prepared.rows.rows:
        ids = torch.from_numpy(row.ids.astype(np.int64))[None]
        labels = torch.from_numpy(row.labels.astype(np.int64))[1:]
        with torch.inference_mode():
            likelihoods = model(input_ids=ids).logits[0, :-1].log_softmax(-1)
        kept = labels != IGNORED
        total -= float(likelihoods[kept].gather(1, labels[kept, None]).sum())
        trained += int(kept.sum())
    tuned(located, rows, QUICK, output=tmp_path / "out")
    assert log_of(tmp_path / "out")[0]["loss"] == pytest.approx(total / trained, rel=1e-4)


@pytest.mark.parametrize("name", ["llama", "neox"])
def test_accumulated_rows_train_as_rows_side_by_side_do(
    name: str, tmp_path: Path, make_model: Callable[..., Any], tokenizer: Any
):
    located = student(tmp_path / "student", name, make_model, tokenizer)
    logs = []
    for at_once in (1, 8):
        recipe = QUICK.model_copy(update={"per_device_batch_size": at_once})
        tuned(located, uneven(24), recipe, output=tmp_path / str(at_once))
        logs.append(log_of(tmp_path / str(at_once)))
    one, eight = logs
    assert len(one) == len(eight) == 3
    for name in ("loss", "grad_norm"):
        left, right = ([step[name] for step in log] for log in (one, eight))
        assert left == pytest.approx(right, rel=1e-4, abs=1e-4)


def answer_in_chat(folder: Path, question: str) -> tuple[str, int]:
    """Return what the model in the folder answers by transformers' own means, and the last token."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForCausalLM.from_pretrained(folder)
    asked = tokenizer.apply_chat_template(
        [{"role": "user", "content": question}],
        add_generation_prompt=True,
        return_tensors="pt",
        return_dict=True,
    )
    written = model.generate(**asked, max_new_tokens=40)[0, asked["input_ids"].shape[1] :].tolist()
    assert tokenizer.eos_token_id in model.generation_config.eos_token_id
    return tokenizer.decode(written[:-1]), written[-1]


@pytest.mark.parametrize(("name", "padding"), [("gemma3", "<pad>"), ("llama", "<eos>")])
def test_a_tuned_model_answers_in_chat_and_stops(
    name: str,
    padding: str,
    *,
    tmp_path: Path,
    make_model: Callable[..., Any],
    make_tokenizer: Callable[..., Any],
):
    tokenizer = make_tokenizer(bos_token="<bos>", eos_token="<eos>", pad_token=padding)
    located = student(tmp_path / "student", name, make_model, tokenizer)
    rows = conversations_of([conversation("What is the sea?", ANSWER)] * 2)
    result = tuned(located, rows, LEARN_BY_HEART, output=tmp_path / "out")
    assert result.last_loss < 0.1 < result.first_loss
    end = "<end_of_turn>" if name == "gemma3" else "<|im_end|>"
    ending = tokenizer.convert_tokens_to_ids(end)
    assert answer_in_chat(result.folder, "What is the sea?") == (ANSWER, ending)
    assert locate(str(result.folder)).identity != located.identity


# What PEFT and transformers have to say to each other about a renamed setting.
@pytest.mark.filterwarnings("ignore:.*gradient_checkpointing.* is deprecated:FutureWarning")
def test_adapters_are_merged_into_the_weights_and_kept_beside_them(
    tmp_path: Path, model_folder: Path
):
    import torch
    from peft import PeftModel

    located = locate(str(model_folder))
    recipe = QUICK.model_copy(update={"lora": Lora(), "learning_rate": 1e-2, "epochs": 4})
    result = tuned(located, uneven(8), recipe, output=tmp_path / "out")
    assert result.last_loss < result.first_loss
    adapter = result.folder / "training" / "adapter"
    names = {path.name for path in adapter.iterdir()}
    assert names == {"adapter_config.json", "adapter_model.safetensors"}
    ids = torch.arange(20, 60)[None]
    with torch.inference_mode():
        base = load_model(located, dtype="float32", device="cpu")
        before = base(input_ids=ids).logits
        beside = PeftModel.from_pretrained(base, str(adapter)).eval()(input_ids=ids).logits
        merged = load_model(locate(str(result.folder)), dtype="float32", device="cpu")
        after = merged(input_ids=ids).logits
    torch.testing.assert_close(after, beside, rtol=1e-4, atol=1e-4)
    assert (after - before).abs().max() > 0.01


@pytest.mark.parametrize("template", ["chatml", "gemma", "plain"])
def test_a_written_template_gives_the_tokens_that_were_trained(
    template: str, tmp_path: Path, make_model: Callable[..., Any], tokenizer: Any
):
    from transformers import AutoTokenizer

    located = student(tmp_path / "student", "llama", make_model, tokenizer)
    recipe = QUICK.model_copy(update={"chat_template": template})
    turns = [Message("user", "What is the sea?")]
    result = tuned(located, uneven(2), recipe, output=tmp_path / "out")
    written = AutoTokenizer.from_pretrained(result.folder)
    asked = written.apply_chat_template(
        [turn._asdict() for turn in turns], add_generation_prompt=True, return_dict=True
    )["input_ids"]
    before = Encoder(tokenizer, choose_template(template, located.folder), max_length=100)
    assert tuple(asked) == before.encode(turns, "").prompt
    after = Encoder(written, choose_template("own", result.folder), max_length=100)
    assert after.encode(turns, "").prompt == tuple(asked)


def test_the_folder_holds_a_model_and_how_it_came_to_be(
    tmp_path: Path, model_folder: Path, caplog: pytest.LogCaptureFixture
):
    seen: list[Moment] = []
    late = QUICK.model_copy(update={"warmup_steps": 100})
    result = tuned(
        locate(str(model_folder)), uneven(16), late, output=tmp_path / "out", watch=seen.append
    )
    assert [moment.step for moment in seen] == [1, 2]
    assert seen[0].total == 2
    assert {path.name for path in (tmp_path / "out").iterdir()} == {
        "chat_template.jinja",
        "config.json",
        "generation_config.json",
        "model.safetensors",
        "tokenizer.json",
        "tokenizer_config.json",
        "training",
    }
    record = json.loads((tmp_path / "out" / "training" / "identity.json").read_text())
    assert record["spec"] == result.identity.spec
    assert record["recorded"].keys() >= {"torch", "transformers", "trl"}
    assert "The warm-up takes 100 steps and the training has 2" in caplog.text


def test_what_was_tuned_is_not_tuned_again_and_another_is_not_mixed_in(
    tmp_path: Path, model_folder: Path
):
    located, output = locate(str(model_folder)), tmp_path / "out"
    first = tuned(located, uneven(8), QUICK, output=output)
    weights = (output / "model.safetensors").stat().st_mtime_ns
    again = tuned(located, uneven(8), QUICK, output=output, watch=lambda _moment: pytest.fail())
    assert (first.stored, again.stored) == (False, True)
    assert again.last_loss == first.last_loss
    assert (output / "model.safetensors").stat().st_mtime_ns == weights
    other = QUICK.model_copy(update={"learning_rate": 2e-3})
    with pytest.raises(
        StudyError, match=r"another fine-tuning run, which differs in recipe\.learning_rate"
    ):
        tuned(located, uneven(8), other, output=output)


def test_a_folder_that_holds_something_else_is_left_alone(tmp_path: Path, model_folder: Path):
    (tmp_path / "thesis.txt").write_text("mine")
    with pytest.raises(StudyError, match=r"thesis\.txt"):
        tuned(locate(str(model_folder)), uneven(2), QUICK, output=tmp_path)
    assert [path.name for path in tmp_path.iterdir() if path.name != "cache"] == ["thesis.txt"]


def test_the_weights_depend_on_the_seed_and_not_on_the_order_of_rows(
    tmp_path: Path, model_folder: Path
):
    located, rows = locate(str(model_folder)), uneven(16)
    turned = conversations_of(reversed(rows.rows))
    runs = {
        "one": (rows, QUICK),
        "turned": (turned, QUICK),
        "seed": (rows, QUICK.model_copy(update={"seed": 1})),
    }
    for name, (given, recipe) in runs.items():
        tuned(located, given, recipe, output=tmp_path / name)
    held = {name: (tmp_path / name / "model.safetensors").read_bytes() for name in runs}
    assert held["one"] == held["turned"]
    assert held["one"] != held["seed"]


def test_a_loss_that_is_no_number_ends_the_training(tmp_path: Path, model_folder: Path):
    wild = QUICK.model_copy(update={"learning_rate": 1e30, "warmup_steps": 0, "epochs": 4})
    with pytest.raises(ModelError, match=r"run away.*Lower learning_rate"):
        tuned(locate(str(model_folder)), uneven(16), wild, output=tmp_path / "out")


def test_bfloat16_weights_are_written_where_it_was_computed_in(tmp_path: Path, model_folder: Path):
    import torch

    recipe = QUICK.model_copy(update={"dtype": "bfloat16"})
    result = tuned(locate(str(model_folder)), uneven(8), recipe, output=tmp_path / "out")
    from safetensors.torch import load_file

    kept = load_file(result.folder / "model.safetensors")
    assert {tensor.dtype for tensor in kept.values()} == {torch.bfloat16}
    assert load_model(locate(str(result.folder)), dtype="bfloat16", device="cpu") is not None
    assert load_tokenizer(locate(str(result.folder))).chat_template


def test_what_cannot_run_here_is_said_before_weights_are_loaded(tmp_path: Path, model_folder: Path):
    import torch

    located = locate(str(model_folder))
    if torch.cuda.is_available():
        pytest.skip("there is a CUDA device here")
    quantized = QUICK.model_copy(update={"load_in_4bit": True, "lora": Lora()})
    with pytest.raises(StudyError, match="needs a CUDA device"):
        tuned(located, uneven(2), quantized, output=tmp_path / "out")
    runtime = Runtime(device="cuda:1")
    with pytest.raises(ModelError, match="cannot use the device"):
        fine_tune(located, uneven(2), QUICK, output=tmp_path / "out", runtime=runtime)
    assert not (tmp_path / "out").exists()


def test_a_device_that_is_too_small_is_said(tmp_path: Path, model_folder: Path):
    import torch

    def full(_moment: Moment) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")

    with pytest.raises(
        ModelError, match=r"The memory of cpu is too small.*Lower per_device_batch_size"
    ):
        tuned(locate(str(model_folder)), uneven(4), QUICK, output=tmp_path / "out", watch=full)


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        ("generation_config.json", "The generation config (generation_config.json) of 'student'"),
        ("tokens", "has 1,359 tokens and the model's embedding 400 rows"),
        ("weights", "cannot be used as a LlamaForCausalLM: the weights in"),
    ],
)
def test_what_could_not_be_saved_or_is_not_whole_is_refused_before_the_first_step(
    spoil: str, said: str, *, tmp_path: Path, make_model: Callable[..., Any], tokenizer: Any
):
    located = student(tmp_path / "student", "llama", make_model, tokenizer)
    if spoil == "generation_config.json":
        settings = {"do_sample": False, "temperature": 0.7}
        (tmp_path / "student" / spoil).write_text(json.dumps(settings), encoding="utf-8")
    elif spoil == "tokens":
        more = load_tokenizer(located)
        more.add_tokens([f"<more {number}>" for number in range(1000)])
        more.save_pretrained(tmp_path / "student")
    else:
        from safetensors.torch import load_file, save_file

        path = tmp_path / "student" / "model.safetensors"
        kept = {name: one for name, one in load_file(path).items() if "layers.1" not in name}
        save_file(kept, path, metadata={"format": "pt"})
    with pytest.raises(ModelError) as refused:
        tuned(locate(str(tmp_path / "student")), uneven(8), QUICK, output=tmp_path / "out")
    assert said in str(refused.value)
    assert not list((tmp_path / "out").rglob("*.safetensors"))
