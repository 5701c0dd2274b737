"""A reward model behind vLLM's `/classify` or `/pooling` gives the model's own scores, or is refused."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from chat_server import Told, refuse, serving
from preceptor.config.rewards import ModelReward
from preceptor.config.runtime import Endpoint, Runtime
from preceptor.engines.templates import FAMILY_TEMPLATES
from preceptor.errors import ModelError
from preceptor.scorers.reward_model import RewardModel
from preceptor.types import Instruction, NoteKind, Response, Score

RESPONSES = [
    Response("a", Instruction.from_text("What is two plus two?"), text)
    for text in ("Four.", "The cat sat on the mat. " * 20, "Two plus two is four.")
]
ENDS_IN_PADDING = (
    "{% for m in messages %}{{ m.role + ': ' + m.content + '<pad>' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ 'assistant: ' }}{% endif %}"
)


def server(
    folder: Path,
    *,
    squash: bool = False,
    bad: object = None,
    pools: bool = False,
    told_as: Callable[[float], Any] = lambda value: [value],
    most: int | None = None,
) -> Any:
    """Answer as vLLM 0.32 does: the score is read at the last token, whichever it is."""
    import torch
    from transformers import AutoModelForSequenceClassification

    model = AutoModelForSequenceClassification.from_pretrained(folder)

    def step(handler: Any, asked: dict[str, Any]) -> None:
        ids = asked["input"]
        if pools and handler.path == "/classify":
            refuse(404, "Not Found")(handler, asked)
            return
        if most is not None and len(ids) > most:
            refuse(400, f"This model's maximum context length is {most} tokens.")(handler, asked)
            return
        with torch.no_grad():
            states = model.model(input_ids=torch.tensor([ids])).last_hidden_state
            logit = model.score(states[0, -1])[0]
        value = logit.sigmoid() if squash or asked["use_activation"] else logit
        told = told_as(float(value) if bad is None or len(ids) != bad else "much")
        found = {"label": "LABEL_0", "probs": told, "num_classes": len(told)}
        if handler.path == "/pooling":
            found = {"object": "pooling", "data": told}
        body = {"id": "pool-1", "object": "list", "data": [{"index": 0, **found}]}
        handler.send(200, json.dumps(body).encode(), {})

    return step


def scorer_of(folder: Path, told: Told, engine: str = "served", **options: Any) -> RewardModel:
    runtime = Runtime(device="cpu", endpoints={str(folder): Endpoint(url=told.url)})
    return RewardModel(ModelReward(model=str(folder), engine=engine, **options), runtime)


def scored(scorer: RewardModel) -> dict[bytes, Score]:
    return {one.key: one for batch in scorer.score(RESPONSES) for one in batch}


def scores(scorer: RewardModel) -> dict[bytes, Any]:
    return {key: one.values["score"] for key, one in scored(scorer).items()}


@pytest.fixture
def save(tmp_path: Path, make_model: Any, make_tokenizer: Any) -> Callable[[str], Path]:
    """Save a tiny reward model with that chat template."""

    def saved(template: str) -> Path:
        tokens = {"bos_token": "<bos>", "eos_token": "<eos>", "pad_token": "<pad>"}
        made = make_tokenizer(chat_template=template, **tokens)
        made.save_pretrained(tmp_path / "reward")
        model = make_model("qwen3", labels=1)
        model.config.pad_token_id = made.pad_token_id
        model.save_pretrained(tmp_path / "reward")
        return tmp_path / "reward"

    return saved


@pytest.fixture
def folder(save: Callable[[str], Path]) -> Path:
    return save(FAMILY_TEMPLATES["chatml"])


def test_rewards_by_a_server_are_the_models_own_under_another_identity(folder: Path):
    with serving(otherwise=server(folder)) as told:
        scorers = [scorer_of(folder, told, engine) for engine in ("served", "transformers")]
        found = list(map(scores, scorers))
    assert set(told.paths) == {"/classify"}
    assert found[0] == pytest.approx(found[1], abs=1e-4)
    assert scorers[0].identity() != scorers[1].identity()


def test_the_score_is_that_of_the_last_token_that_is_not_padding(save: Callable[[str], Path]):
    folder = save(ENDS_IN_PADDING)
    padding = json.loads((folder / "config.json").read_text(encoding="utf-8"))["pad_token_id"]
    assert padding is not None
    with serving(otherwise=server(folder)) as told:
        served, here = (scorer_of(folder, told, engine) for engine in ("served", "transformers"))
        encoded = here.encoder.encode_conversation(RESPONSES[0].instruction.messages, "Four.")
        assert encoded.response[-1] == padding
        assert scores(served) == pytest.approx(scores(here), abs=1e-4)
    assert all(asked["input"][-1] != padding for asked in told.requests)


def test_a_server_that_only_pools_gives_the_same_rewards(folder: Path):
    found = []
    for pools in (True, False):
        with serving(otherwise=server(folder, pools=pools)) as told:
            found.append(scores(scorer_of(folder, told)))
        assert told.paths[-1] == ("/pooling" if pools else "/classify")
    assert len(found[0]) == len(RESPONSES)
    assert found[0] == found[1]


@pytest.mark.parametrize(
    ("told_as", "saw"),
    [
        (lambda value: [value, -value], r"2 numbers \(a vector, or several labels\)"),
        (lambda value: [[value]] * 7, r"7 lists of numbers \(one for each token\)"),
        (lambda value: "AACAPw==", "no list of numbers"),
    ],
)
@pytest.mark.parametrize("pools", [True, False])
def test_more_than_one_number_is_no_reward(folder: Path, told_as: Any, saw: str, pools: bool):
    with (
        serving(otherwise=server(folder, pools=pools, told_as=told_as)) as told,
        pytest.raises(ModelError, match=f"{'pooling' if pools else 'classify'}: saw {saw}"),
    ):
        scored(scorer_of(folder, told))


def test_a_server_that_does_neither_is_told_of_both_and_not_of_another_address(folder: Path):
    with (
        serving(otherwise=refuse(404, "Not Found")) as told,
        pytest.raises(ModelError, match=r"by /classify: .*404.*; by /pooling: .*404") as caught,
    ):
        scored(scorer_of(folder, told))
    assert "/v1" not in str(caught.value)


def test_one_bad_reward_costs_its_row_alone(folder: Path):
    with serving(otherwise=server(folder)) as told:
        encoded = scorer_of(folder, told)._encoded(RESPONSES[1])
    assert not isinstance(encoded, str)
    bad = len(encoded.prompt) + len(encoded.response)
    with serving(otherwise=server(folder, bad=bad)) as told:
        found = scored(scorer_of(folder, told))
    assert [bool(one.note) for one in found.values()].count(True) == 1
    assert len(found) == len(RESPONSES)


def test_a_server_that_squashes_scores_is_refused(folder: Path):
    with (
        serving(otherwise=server(folder, squash=True)) as told,
        pytest.raises(ModelError, match="squashes scores"),
    ):
        scored(scorer_of(folder, told))


class TestContext:
    """A server may take fewer tokens than the model: the longest of `RESPONSES` has more than 150."""

    def test_one_that_says_so_is_refused_before_it_is_asked(self, folder: Path):
        with serving(otherwise=server(folder, most=150)) as told:
            told.models = [{"id": str(folder), "max_model_len": 150}]
            with pytest.raises(
                ModelError, match=r"takes 150 tokens.*1 of 3 conv.*or more.*max_length = 150\)"
            ):
                scored(scorer_of(folder, told))
            asked = len(told.requests)
            found = scored(scorer_of(folder, told, max_length=150))
        assert asked == 6  # by which it is tried
        assert not any(one.note for one in found.values())
        assert [one.values["truncated"] for one in found.values()].count(1.0) == 1

    def test_else_the_note_of_a_refused_row_has_its_words(self, folder: Path):
        with serving(otherwise=server(folder, most=150)) as told:
            found = scored(scorer_of(folder, told))
        (note,) = [str(one.note) for one in found.values() if one.note]
        assert NoteKind.of(note) == NoteKind.REFUSED
        assert "maximum context length is 150" in note
