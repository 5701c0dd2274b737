"""Configurations for other tools: the paper's numbers in their words, valid by their own schemas."""

import json
import re
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import yaml as reference

from preceptor.config.recipe import Lora, Recipe
from preceptor.config.runtime import Runtime
from preceptor.engines.models import LocatedModel
from preceptor.engines.templates import FAMILY_TEMPLATES
from preceptor.errors import StudyError
from preceptor.finetuning.exports import (
    Job,
    axolotl_config,
    llama_factory_config,
    write_axolotl,
    write_llama_factory,
    yaml,
)
from preceptor.finetuning.prepared import prepare
from preceptor.finetuning.trainer import sft_settings
from small_training import student, uneven

pytestmark = pytest.mark.usefixtures("private_cache")

RECIPES = {
    "full": Recipe(),
    "lora": Recipe(lora=Lora(), attention="sdpa", dtype="float32"),
    "qlora": Recipe(lora=Lora(targets=("q_proj",)), load_in_4bit=True, warmup_ratio=0.03),
}
DOCUMENT = Path(__file__).parents[1] / "docs" / "how-to" / "training.md"


@pytest.fixture
def located(tmp_path: Path, make_model: Callable[..., Any], tokenizer: Any) -> LocatedModel:
    return student(tmp_path / "student", "gemma3", make_model, tokenizer)


def job(folder: Path) -> Job:
    return Job("owner/base", (folder / "rows.jsonl",), 100_000, folder / "model")


def written(path: Path) -> Any:
    return reference.safe_load(path.read_text(encoding="utf-8"))


@pytest.mark.parametrize(
    "value", [2e-5, 1e-10, 0.03, 1.0, 5, True, None, "no", "a: #b\n'\"c", "é", "n\x85l\x7f"]
)
def test_what_is_written_is_what_a_reader_of_yaml_reads(value: object):
    table = {"key": value, "list": [value], "table": {"inner": value}}
    read = reference.safe_load(yaml(table))
    assert read == table
    assert type(read["key"]) is type(value)


@pytest.mark.parametrize("name", RECIPES)
def test_axolotl_gets_the_same_template_labels_and_steps(
    name: str, tmp_path: Path, located: LocatedModel
):
    file, jinja = write_axolotl(job(tmp_path), located, RECIPES[name], folder=tmp_path)
    config = written(file)
    assert jinja.read_text() == FAMILY_TEMPLATES["gemma"]
    assert config["chat_template_jinja"] == str(jinja)
    assert config["eot_tokens"] == ["<end_of_turn>"]
    (data,) = config["datasets"]
    assert data["type"] == "chat_template" and data["path"] == str(tmp_path / "rows.jsonl")
    assert data["roles_to_train"] == ["assistant"] and data["train_on_eos"] == "turn"
    assert config["warmup_steps"] == (188 if name == "qlora" else 100)  # 0.03 of 2 x 3125 steps
    assert config.get("adapter") == {"full": None}.get(name, name)


@pytest.mark.parametrize("name", RECIPES)
def test_llama_factory_gets_the_same_data_and_steps(
    name: str, tmp_path: Path, located: LocatedModel
):
    file, info = write_llama_factory(job(tmp_path), located, RECIPES[name], folder=tmp_path)
    config = written(file)
    assert config["template"] == "gemma"
    assert config["finetuning_type"] == ("full" if name == "full" else "lora")
    assert config["warmup_steps"] == (188 if name == "qlora" else 100)
    entry = json.loads(info.read_text())[config["dataset"]]
    assert entry["file_name"] == str(tmp_path / "rows.jsonl")
    assert entry["tags"]["assistant_tag"] == "assistant"


def test_a_template_llama_factory_does_not_have_is_refused(tmp_path: Path, located: LocatedModel):
    plain = Recipe(chat_template="plain")
    with pytest.raises(StudyError, match="knows none for 'plain'"):
        write_llama_factory(job(tmp_path), located, plain, folder=tmp_path)


@pytest.mark.parametrize("name", RECIPES)
def test_axolotl_itself_accepts_its_configuration(name: str, tmp_path: Path, located: LocatedModel):
    if find_spec("axolotl") is None:
        pytest.skip("axolotl is not installed here: its own schema is not at hand")
    from axolotl.utils.schemas.config import AxolotlInputConfig

    file, _ = write_axolotl(job(tmp_path), located, RECIPES[name], folder=tmp_path)
    config = written(file)
    assert not config.keys() - AxolotlInputConfig.model_fields.keys()
    assert AxolotlInputConfig(**config).learning_rate == RECIPES[name].learning_rate


@pytest.mark.parametrize("name", RECIPES)
def test_llama_factory_itself_accepts_its_configuration(
    name: str, tmp_path: Path, located: LocatedModel
):
    if find_spec("llamafactory") is None:
        pytest.skip("llamafactory is not installed here: its own settings are not at hand")
    from llamafactory import hparams
    from llamafactory.hparams.training_args import TrainingArguments
    from transformers import HfArgumentParser

    file, _ = write_llama_factory(job(tmp_path), located, RECIPES[name], folder=tmp_path)
    config = written(file) | {"bf16": False}  # what this machine can do is not the question
    kinds = (hparams.ModelArguments, hparams.DataArguments, TrainingArguments)
    parser = HfArgumentParser([*kinds, hparams.FinetuningArguments])
    _, data, training, _ = parser.parse_dict(config)
    assert training.learning_rate == RECIPES[name].learning_rate
    assert hparams.__file__ is not None
    templates = (Path(hparams.__file__).parents[1] / "data" / "template.py").read_text()
    assert f'name="{data.template}"' in templates


def table_rows() -> list[list[str]]:
    """Return the cells of the document's table of the paper's numbers."""
    text = DOCUMENT.read_text(encoding="utf-8").partition("<!-- paper -->")[2]
    lines = [line for line in text.splitlines() if line.startswith("|")]
    return [[cell.strip().strip("`") for cell in line.strip("|").split("|")] for line in lines[2:]]


def test_the_documents_table_says_what_the_code_does(tmp_path: Path, located: LocatedModel):
    recipe = Recipe()
    runtime = Runtime(device="cpu")
    prepared = prepare(located, uneven(2), recipe, runtime=runtime, devices=4)
    ours: dict[str, Any] = recipe.model_dump()
    tools = {
        "axolotl": axolotl_config(job(tmp_path), recipe, prepared.template, folder=tmp_path),
        "factory": llama_factory_config(job(tmp_path), recipe, prepared.template, folder=tmp_path),
        "trl": sft_settings(prepared, tmp_path / "trl").to_dict(),
    }
    rows = table_rows()
    assert len(rows) == 10  # as many as the paper's table 5 has
    for name, paper, field, axolotl, factory, trl in rows:
        keys = dict(zip(tools, (axolotl, factory, trl), strict=True))
        for tool, key in keys.items():
            if key not in ("-", "launcher"):
                assert same(tools[tool][key], paper), (name, tool)
        if field != "-":
            assert same(ours[field], paper), name


def same(value: object, paper: str) -> bool:
    """Tell whether a setting is the paper's number or word."""
    number = re.fullmatch(r"([0-9.]+)(?: x 10\^(-?[0-9]+))?", paper)
    if number is None:
        return paper.lower() in str(value)
    assert isinstance(value, int | float)
    return value == pytest.approx(float(number[1]) * 10.0 ** int(number[2] or 0), rel=1e-12)
