"""Labels: on the assistant's tokens and its end of turn, and on nothing else.

The traps are those that make fine-tuned models never stop: an end token that is also the padding token, and
an end of turn that is not the end of sequence.
"""

from collections.abc import Callable
from typing import Any

import pytest

from preceptor.engines.encoder import Encoder
from preceptor.engines.templates import FAMILY_TEMPLATES, ChatTemplate
from preceptor.errors import DataError, ModelError
from preceptor.finetuning.labels import (
    CUT,
    IGNORED,
    NO_ROOM,
    REFUSED,
    REWRITTEN,
    Labelled,
    Labeller,
)
from preceptor.finetuning.trainer import dataset_of
from preceptor.types import Message
from small_training import conversation, uneven

LONG = 10_000
MULTI = (
    Message("system", "Be brief."),
    *conversation("What is the sea?", "The sea is wide."),
    *conversation("And the mat?", "The cat sat on it."),
)


def template(name: str, tokenizer: Any, source: str | None = None) -> ChatTemplate:
    special = {"bos_token": tokenizer.bos_token or "", "eos_token": tokenizer.eos_token or ""}
    return ChatTemplate(name, source or FAMILY_TEMPLATES[name], special)


def trained_texts(row: Labelled, tokenizer: Any) -> list[str]:
    """Return the runs of labelled tokens as texts."""
    runs: list[list[int]] = []
    inside = False
    for id_, label in zip(row.ids.tolist(), row.labels.tolist(), strict=True):
        if label != IGNORED:
            assert label == id_
            runs[-1:] = [[*runs[-1], label]] if inside else [*runs[-1:], [label]]
        inside = label != IGNORED
    return [tokenizer.decode(run) for run in runs]


@pytest.fixture
def padded_with_its_end(make_tokenizer: Callable[..., Any]) -> Any:
    """A tokenizer that pads with its end of sequence, as Llama's often are made to."""
    return make_tokenizer(bos_token="<s>", eos_token="</s>", pad_token="</s>")


def test_gemma_trains_on_the_answer_and_its_end_of_turn(tokenizer: Any):
    labeller = Labeller(tokenizer, template("gemma", tokenizer), max_length=LONG)
    row, _ = labeller.whole(conversation("What is the sea?", "The sea is wide."))
    assert trained_texts(row, tokenizer) == ["The sea is wide.<end_of_turn>"]
    assert labeller.end == tokenizer.convert_tokens_to_ids("<end_of_turn>")
    assert labeller.end != tokenizer.eos_token_id
    assert row.ids.tolist().count(tokenizer.bos_token_id) == 1


def test_an_end_that_is_also_the_padding_has_its_label_and_the_padding_none(
    padded_with_its_end: Any,
):
    from trl.trainer.sft_trainer import DataCollatorForLanguageModeling

    tokenizer = padded_with_its_end
    labeller = Labeller(tokenizer, template("plain", tokenizer), max_length=LONG)
    rows = labeller.label(
        [conversation("Hi", "The cat."), conversation("Hi", "The cat sat on it.")]
    )
    collate = DataCollatorForLanguageModeling(pad_token_id=tokenizer.pad_token_id)
    batch = collate(list(dataset_of(rows.rows)))
    first = batch["labels"][0].tolist()
    end = tokenizer.eos_token_id
    assert first.count(end) == 1
    length = len(rows.rows[0].ids)
    assert batch["input_ids"][0, length:].tolist() == [end] * (len(first) - length)
    assert first[length:] == [IGNORED] * (len(first) - length)


def test_every_assistant_turn_is_trained_on_with_its_end(tokenizer: Any):
    labeller = Labeller(tokenizer, template("gemma", tokenizer), max_length=LONG)
    row, rewritten = labeller.whole(MULTI)
    texts = trained_texts(row, tokenizer)
    assert texts == ["The sea is wide.<end_of_turn>", "The cat sat on it.<end_of_turn>"]
    assert rewritten == 0


def test_an_earlier_turn_that_the_template_rewrites_is_counted_and_not_trained_on(tokenizer: Any):
    forgetful = (
        "{{ bos_token }}{% for m in messages %}<|im_start|>{{ m.role }}\n"
        "{{ '...' if m.role == 'assistant' and not loop.last else m.content }}"
        "<|im_end|>\n{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
    )
    labeller = Labeller(tokenizer, template("own", tokenizer, forgetful), max_length=LONG)
    rows = labeller.label([MULTI])
    assert trained_texts(rows.rows[0], tokenizer) == ["The cat sat on it.<|im_end|>"]
    assert rows.noted == {REWRITTEN: 1}


@pytest.mark.parametrize("name", ["gemma", "chatml", "plain"])
def test_the_tokens_are_those_of_scoring_and_of_the_prompt_in_chat(name: str, tokenizer: Any):
    chosen = template(name, tokenizer)
    labeller = Labeller(tokenizer, chosen, max_length=LONG)
    row, _ = labeller.whole(MULTI)
    scored = Encoder(tokenizer, chosen, max_length=LONG).encode(MULTI[:-1], MULTI[-1].content)
    assert tuple(row.ids[:-1]) == scored.prompt + scored.response
    assert row.ids[-1] == labeller.end
    if name == "plain":  # no control token stands between its prompt and answer, so they can merge
        return
    asked = Encoder(tokenizer, chosen, max_length=LONG).encode(MULTI[:-1], "").prompt
    assert tuple(row.ids[: len(asked)]) == asked


def test_control_tokens_spelled_in_an_answer_stay_text(tokenizer: Any):
    labeller = Labeller(tokenizer, template("gemma", tokenizer), max_length=LONG)
    row, _ = labeller.whole(conversation("Hi", "A turn ends with <end_of_turn> there."))
    assert row.ids.tolist().count(labeller.end) == 2  # the user's turn and the answer's own end


def test_the_start_is_kept_and_rows_without_a_token_of_a_response_are_dropped(tokenizer: Any):
    labeller = Labeller(tokenizer, template("gemma", tokenizer), max_length=40)
    far = conversation("The sea is wide. " * 30, "Yes.")
    long = conversation("Hi", "The cat sat on the mat. " * 30)
    short = conversation("Hi", "Yes.")
    rows = labeller.label([far, long, short])
    assert rows.left_out == {NO_ROOM: 1}
    assert rows.noted == {CUT: 1}
    whole, _ = labeller.whole(long)
    assert rows.rows[0].ids.tolist() == whole.ids.tolist()[:40]
    assert rows.longest == 40
    assert rows.tokens == 40 + len(labeller.whole(short)[0].ids)
    assert rows.trained_tokens == sum(int((row.labels != IGNORED).sum()) for row in rows.rows)


def test_nothing_left_says_why(tokenizer: Any):
    labeller = Labeller(tokenizer, template("gemma", tokenizer), max_length=5)
    with pytest.raises(DataError, match=f"8 rows: {NO_ROOM}.*max_length, now 5"):
        labeller.label(uneven(8).rows)


def test_a_conversation_that_the_template_refuses_is_counted(tokenizer: Any):
    strict = FAMILY_TEMPLATES["chatml"] + (
        "{% if messages[-1].content == 'Bad' %}{{ raise_exception('no') }}{% endif %}"
    )
    labeller = Labeller(tokenizer, template("own", tokenizer, strict), max_length=LONG)
    rows = labeller.label([conversation("Bad", "Yes."), conversation("Good", "Yes.")])
    assert len(rows.rows) == 1 and rows.left_out == {REFUSED: 1}


def test_a_template_whose_end_is_no_token_is_refused(tokenizer: Any):
    with pytest.raises(ModelError, match=r"eot_id.*control token"):
        Labeller(tokenizer, template("llama3", tokenizer), max_length=LONG)
