"""Encoders with a head of one label read prompt and response as two segments, as their model cards do."""

import json
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from conftest import COMMON, CORPUS
from preceptor.config.rewards import ModelReward
from preceptor.config.runtime import Endpoint, Runtime
from preceptor.errors import ModelError
from preceptor.scorers.reward_model import RewardModel
from preceptor.types import Instruction, Message, Response

QUESTION = "What is two plus two?"
ANSWERS = ["Two plus two is four.", "The sea is wide; the sea is deep.", " \nfour ", "四 🐈"]
SMALL = {**COMMON, "num_hidden_layers": 2, "num_labels": 1}
KINDS: dict[str, tuple[str, dict[str, Any], dict[str, int]]] = {
    # class, settings, and the segments that its tokenizer's template gives to marks and texts
    "deberta": (
        "DebertaV2Config",
        {**SMALL, "type_vocab_size": 0, "relative_attention": True, "pos_att_type": ["p2c", "c2p"]},
        {"first": 0, "second": 1},
    ),
    "bert": ("BertConfig", {**SMALL, "max_position_embeddings": 64}, {"first": 0, "second": 1}),
    "roberta": (
        "RobertaConfig",
        {**SMALL, "max_position_embeddings": 64, "type_vocab_size": 1},
        {"first": 0, "second": 0},
    ),
}
MARKS = {"cls_token": "[CLS]", "sep_token": "[SEP]", "pad_token": "[PAD]", "unk_token": "[UNK]"}


def pair_tokenizer(first: int, second: int) -> Any:
    """Return a tokenizer that writes `[CLS] prompt [SEP] response [SEP]`, and has no chat template."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=370,
        special_tokens=list(MARKS.values()),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(CORPUS * 3, trainer)
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair=f"[CLS]:{first} $A:{first} [SEP]:{first} $B:{second} [SEP]:{second}",
        special_tokens=[(mark, tokenizer.token_to_id(mark)) for mark in ("[CLS]", "[SEP]")],
    )
    inputs = ["input_ids", "attention_mask", *(["token_type_ids"] if second else [])]
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, model_input_names=inputs, **MARKS)


@pytest.fixture
def save(tmp_path: Path, private_cache: Path) -> Callable[[str], Path]:
    """Save the tiny pair model of that kind."""

    def saved(kind: str) -> Path:
        import transformers

        name, settings, segments = KINDS[kind]
        with torch.random.fork_rng():
            torch.manual_seed(0)
            config = getattr(transformers, name)(**settings)
            model = AutoModelForSequenceClassification.from_config(config).eval()
        for weight in model.parameters():
            if weight.dim() > 1:
                weight.data *= 3
        model.save_pretrained(tmp_path / kind)
        pair_tokenizer(**segments).save_pretrained(tmp_path / kind)
        return tmp_path / kind

    return saved


def direct(folder: Path, question: str, answer: str) -> float:
    """Return the score as the model card of OpenAssistant's DeBERTa computes it."""
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForSequenceClassification.from_pretrained(folder)
    inputs = tokenizer(question, answer, return_tensors="pt")
    with torch.no_grad():
        return float(model(**inputs).logits[0])


def scores(scorer: RewardModel, responses: list[Response]) -> list[float]:
    found = {s.key: s.values["score"] for batch in scorer.score(responses) for s in batch}
    return [float(found[response.key]) for response in responses]  # type: ignore[arg-type]


def asked(answers: list[str], *messages: Message) -> list[Response]:
    instruction = Instruction(messages or (Message("user", QUESTION),))
    return [Response("a", instruction, answer) for answer in answers]


def test_a_server_is_not_asked_for_what_it_cannot_be_told_of(save: Callable[[str], Path]) -> None:
    folder = save("bert")
    endpoints = {str(folder): Endpoint(url="http://127.0.0.1:9/v1")}
    runtime = Runtime(device="cpu", endpoints=endpoints)
    scorer = RewardModel(ModelReward(model=str(folder), engine="served"), runtime)
    with pytest.raises(ModelError, match=r"two segments.*engine = 'transformers'"):
        list(scorer.score(asked(ANSWERS)))


@pytest.mark.parametrize("kind", KINDS)
def test_scores_are_those_of_the_model_card(save: Callable[[str], Path], kind: str) -> None:
    folder = save(kind)
    scorer = RewardModel(ModelReward(model=str(folder), dtype="float32"))
    expected = [direct(folder, QUESTION, answer) for answer in ANSWERS]
    assert scores(scorer, asked(ANSWERS)) == pytest.approx(expected, abs=1e-5)
    assert len({round(score, 4) for score in expected}) == len(ANSWERS)
    assert scorer.identity().spec["template"]["name"] == "pair"  # type: ignore[index, call-overload]


def test_several_turns_are_one_first_segment(save: Callable[[str], Path]) -> None:
    folder = save("deberta")
    turns = (Message("user", "Hello"), Message("assistant", "there!"), Message("user", QUESTION))
    found = scores(RewardModel(ModelReward(model=str(folder))), asked(ANSWERS[:1], *turns))
    whole = f"Hello\n\nthere!\n\n{QUESTION}"
    assert found == pytest.approx([direct(folder, whole, ANSWERS[0])], abs=1e-5)


def test_the_reading_is_said_and_can_be_chosen(
    save: Callable[[str], Path], caplog: pytest.LogCaptureFixture
) -> None:
    folder = save("bert")
    by_default = RewardModel(ModelReward(model=str(folder)))
    with caplog.at_level(logging.WARNING):
        by_default.engine  # noqa: B018
    assert "reads prompt and response as two segments (chat_template = 'pair')" in caplog.text
    chosen = RewardModel(ModelReward(model=str(folder), chat_template="pair"))
    assert chosen.identity() == by_default.identity()
    one_text = RewardModel(ModelReward(model=str(folder), chat_template="plain"))
    assert one_text.template.name == "plain"
    assert one_text.identity() != by_default.identity()
    settings = folder / "tokenizer_config.json"
    own = json.loads(settings.read_text()) | {"chat_template": "{{ messages[0].content }}"}
    settings.write_text(json.dumps(own))
    assert RewardModel(ModelReward(model=str(folder))).template.name == "own"


def test_marks_spelled_in_a_text_end_no_segment(save: Callable[[str], Path]) -> None:
    encoder = RewardModel(ModelReward(model=str(save("bert")))).encoder
    pair = encoder.encode_conversation((Message("user", "a [SEP] b"),), "[SEP] c [CLS]")
    ids = pair.prompt + pair.response
    assert ids.count(encoder.tokenizer.sep_token_id) == 2  # type: ignore[attr-defined]
    assert ids.count(encoder.tokenizer.cls_token_id) == 1  # type: ignore[attr-defined]


def test_a_long_response_is_cut_before_the_last_mark(save: Callable[[str], Path]) -> None:
    scorer = RewardModel(ModelReward(model=str(save("roberta"))))
    assert scorer.max_length == 63  # of 64 positions; the padding token's is never used
    (score,) = [s for batch in scorer.score(asked(["The sea is wide. " * 60])) for s in batch]
    assert (score.values["tokens"], score.values["truncated"]) == (63, 1)
    pair = scorer.encoder.encode_conversation((Message("user", QUESTION),), "The sea. " * 60)
    assert pair.response[-1] == scorer.encoder.tokenizer.sep_token_id  # type: ignore[attr-defined]
    too_long = scorer.encoder.encode_conversation((Message("user", QUESTION * 20),), "Four.")
    assert too_long.response == () and too_long.truncated


def test_a_tokenizer_without_marks_is_refused_where_two_segments_are_asked_for(
    save: Callable[[str], Path], tokenizer: Any
) -> None:
    folder = save("bert")
    tokenizer.save_pretrained(folder)
    scorer = RewardModel(ModelReward(model=str(folder), chat_template="pair"))
    with pytest.raises(ModelError, match="does not mark two segments"):
        scorer.encoder  # noqa: B018
