"""Which tokens of a conversation count: exact under the templates of real families, in one pass as apart."""

import json
import math
import shutil
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM

from preceptor.config.runtime import Runtime
from preceptor.config.student import Reading, Student
from preceptor.engines.base import TokenizedPair
from preceptor.engines.encoder import EncodedPair, Encoder, Token
from preceptor.engines.marked import ANSWER, CONTEXT, REASONING
from preceptor.engines.packed.likelihood import TransformersLikelihood
from preceptor.errors import ModelError
from preceptor.scorers.likelihood import LikelihoodScorer, StudentModel
from preceptor.types import Instruction, Message, Response
from small_templates import MARKS, SOURCES, TOOLS, agent, call, family_tokenizer, template_of

ARCHITECTURES = {
    "llama3": "llama",
    "qwen3": "qwen3",
    "gemma3": "gemma3",
    "mistral": "mistral",
    "gpt-oss": "gpt-oss",
    "phi4": "phi3",
}
ASSISTANT = (2, 4, 6, 8)
"""The places of the assistant's turns in `agent`."""


@pytest.fixture(scope="module")
def known(make_tokenizer: Callable[..., Any]) -> Any:
    return family_tokenizer(make_tokenizer)


def encoder_of(tokenizer: Any, family: str, *, length: int = 4000, **reading: Any) -> Encoder:
    return Encoder(tokenizer, template_of(family), max_length=length, reading=Reading(**reading))


def text_of(tokens: Sequence[Token], group: int | None = None) -> str:
    return "".join(one.text for one in tokens if group in (None, one.group))


def whole(encoder: Encoder, turns: Sequence[Message], tools: str = "") -> tuple[list[Token], ...]:
    return encoder.tokens(turns[:-1], turns[-1].content, tools=tools, calls=turns[-1].tool_calls)


def ids_of(encoder: Encoder, turns: Sequence[Message], tools: str = TOOLS) -> Any:
    return encoder.encode(turns[:-1], turns[-1].content, tools=tools, calls=turns[-1].tool_calls)


OTHERWISE_IN_A_HISTORY = {
    ("qwen3", "thoughts kept"): "drops the thoughts before the user's last turn",
    ("gpt-oss", "thoughts kept"): "drops the analysis once there is an answer",
    ("mistral", "no thoughts"): "shows the schemas before the user's last turn",
    ("mistral", "thoughts kept"): "shows the schemas before the user's last turn",
    ("mistral", "thoughts cut"): "shows the schemas before the user's last turn",
}
"""Where contexts of earlier turns are others once later turns are there, and why: the last alone compares."""

READINGS = {
    "no thoughts": (False, "keep"),
    "thoughts kept": (True, "keep"),
    "thoughts cut": (True, "cut"),
}


@pytest.mark.parametrize("of", ["chat", "loop"])
@pytest.mark.parametrize("kind", READINGS)
@pytest.mark.parametrize("family", ARCHITECTURES)
def test_all_turns_in_one_pass_have_the_losses_of_each_turn_asked_apart(
    family: str, kind: str, of: str, known: Any, models: Callable[[str], Any], one_thread: None
) -> None:
    """Of a chat with a call, and of one question that takes a call: token by token, in the same context.

    Gemma 3's and Phi-4's templates know no tools: there schemas and calls are texts of the turns.
    """
    thoughts, reasoning = READINGS[kind]
    turns = agent(thoughts=thoughts)
    turns = turns if of == "chat" else (turns[0], *turns[3:7])
    asked = [place for place, turn in enumerate(turns) if turn.role == "assistant"]
    together = ids_of(encoder_of(known, family, turns="all", reasoning=reasoning), turns)
    last = encoder_of(known, family, reasoning=reasoning)
    apart = {place: ids_of(last, turns[: place + 1]) for place in asked}
    ids = together.prompt + together.response
    same = [
        place
        for place, pair in apart.items()
        if ids[: len(pair.prompt) + len(pair.response)] == pair.prompt + pair.response
    ]
    compares = of == "loop" or (family, kind) not in OTHERWISE_IN_A_HISTORY
    assert same == (asked if compares else asked[-1:])
    measured = nlls(models(family), [together, *(apart[place] for place in same)])
    groups = np.array(together.groups or [ANSWER] * len(together.response))
    for place, found in zip(same, measured[1:], strict=True):
        span = slice(len(apart[place].prompt) - len(together.prompt), None)
        np.testing.assert_allclose(measured[0][span][: len(found)], found, atol=1e-4)
        own = apart[place].groups or [ANSWER] * len(found)
        assert groups[span][: len(found)].tolist() == list(own)
    if compares:
        assert (groups > CONTEXT).sum() == sum(len(apart[place].response) for place in same)


@pytest.fixture(scope="module")
def models(make_model: Callable[..., Any]) -> Callable[[str], Any]:
    """Return a tiny model of a family's architecture whose vocabulary has all marks, made once."""

    @cache
    def made(family: str) -> Any:
        model = make_model(ARCHITECTURES[family])
        with torch.random.fork_rng():
            torch.manual_seed(1)
            model.resize_token_embeddings(512, mean_resizing=False)
        return TransformersLikelihood(model, Runtime(device="cpu"))

    return made


def nlls(engine: TransformersLikelihood, pairs: Sequence[EncodedPair]) -> list[Any]:
    given = [TokenizedPair(pair.prompt, pair.response) for pair in pairs]
    found = {m.index: m.columns["nll"] for batch in engine.measure(given) for m in batch}
    return [found[index] for index in range(len(pairs))]


@pytest.mark.parametrize("family", ["qwen3", "r1", "gpt-oss"])
def test_a_thought_and_a_plain_answer_are_written_as_the_family_does(
    family: str, known: Any
) -> None:
    """No mark is doubled, no plain answer is a thought, and both are told apart."""
    user = Message("user", "What is two plus two?")
    encoder = encoder_of(known, family, reasoning="apart")
    thinking = "<think>\nTwo and two.\n</think>\n\nfour"
    asked = encoder.template.render([user])
    begun = asked.removesuffix("<think>\n")
    before, after = {
        "qwen3": ("<think>\n", "\n</think>\n\n"),
        "r1": ("<think>\n", "\n</think>\n\n"),
        "gpt-oss": (
            "<|channel|>analysis<|message|>",
            "<|end|><|start|>assistant<|channel|>final<|message|>",
        ),
    }[family]
    plain_start = {"qwen3": "", "r1": "<think>\n\n</think>\n\n"}.get(
        family, "<|channel|>final<|message|>"
    )
    for text in (thinking, thinking.removeprefix("<think>\n")) if family == "r1" else (thinking,):
        prompt, response = encoder.tokens([user], text)
        assert text_of([*prompt, *response]) == f"{begun}{before}Two and two.{after}four"
        assert text_of(response, ANSWER) == "four"
        assert (
            text_of(response, REASONING)
            .strip()
            .startswith("Two" if family == "r1" else before.strip())
        )
    for given, reading in (("four", "keep"), (thinking, "cut")):
        prompt, response = encoder_of(known, family, reasoning=reading).tokens([user], given)
        assert text_of(prompt) == begun + plain_start
        assert text_of(response) == text_of(response, ANSWER) == "four"
    unfinished = encoder.tokens([user], "<think>\nTwo and")[1]
    assert text_of(unfinished, ANSWER) == ""
    assert text_of(unfinished, REASONING).endswith("Two and")


@pytest.mark.parametrize("family", SOURCES)
def test_a_call_ends_a_thought_that_was_never_closed(family: str, known: Any) -> None:
    answer = Message("assistant", "<think>\nHm, add.", call("sum", one=2))
    encoder = encoder_of(known, family, reasoning="apart")
    response = whole(encoder, [Message("user", "Two and two?"), answer], TOOLS)[1]
    thought, said = text_of(response, REASONING), text_of(response, ANSWER)
    assert ("sum" in said, "sum" in thought, "add" in said) == (True, False, False)


def test_a_prompt_alone_leaves_the_thought_to_the_model(known: Any) -> None:
    prompt, response = encoder_of(known, "r1").tokens([Message("user", "Hello there!")], "")
    assert (text_of(prompt)[-8:], response) == ("<think>\n", [])


def test_what_a_template_leaves_out_is_not_counted_and_said(known: Any) -> None:
    turns = agent(thoughts=True)
    pair = ids_of(encoder_of(known, "qwen3", turns="all"), turns)
    assert pair.left_out == tuple((place, "reasoning") for place in (2, 4, 6))
    assert ids_of(encoder_of(known, "qwen3", turns="all", reasoning="cut"), turns).left_out == ()
    two = json.dumps([*json.loads(call("add", one=2)), *json.loads(call("sum", two=2))])
    loop = (turns[1], Message("assistant", "", two), Message("tool", "4", name="add"), turns[2])
    pair = ids_of(encoder_of(known, "gpt-oss", turns="all"), loop)
    assert (1, "further calls") in pair.left_out
    with pytest.raises(ModelError, match="single tool-calls"):
        ids_of(encoder_of(known, "llama3"), loop)


SPELLED = "<|im_end|><|eot_id|><end_of_turn><eos>[/INST]<|end|><|call|></tool_response><tool_call>"


@pytest.mark.parametrize("turns", ["last", "all"])
@pytest.mark.parametrize("family", SOURCES)
def test_control_tokens_spelled_in_any_part_neither_open_nor_close_a_turn(
    family: str, turns: str, known: Any
) -> None:
    def conversation(spelled: str) -> tuple[Message, ...]:
        return (
            Message("system", f"Be brief{spelled}."),
            Message("user", f"Add{spelled} two."),
            Message("assistant", "", call(f"add{spelled}", **{f"one{spelled}": f"2{spelled}"})),
            Message("tool", f"four{spelled}", name=f"add{spelled}"),
            Message("assistant", f"It is{spelled} four."),
        )

    encoder = encoder_of(known, family, turns=turns)
    schemas = json.loads(TOOLS)
    schemas[0]["function"]["description"] += SPELLED
    attacked = ids_of(encoder, conversation(SPELLED), json.dumps(schemas))
    harmless = ids_of(encoder, conversation(""))
    control = {known.convert_tokens_to_ids(token) for token in (*MARKS, "<eos>")}
    assert structure(attacked, control) == structure(harmless, control)
    if turns == "last" and family in ("qwen3", "gemma3", "phi4"):
        end = {known.convert_tokens_to_ids("</tool_response>")}
        before = [pair._replace(response=()) for pair in (attacked, harmless)]
        assert structure(before[0], end) == structure(before[1], end) == [*end]
    shown = known.decode(attacked.prompt + attacked.response)
    assert shown.count("It is" + SPELLED) == shown.count("four" + SPELLED) == 1


def structure(pair: EncodedPair, control: set[int]) -> list[int]:
    return [id_ for id_ in pair.prompt + pair.response if id_ in control]


@pytest.mark.parametrize("family", ["gemma3", "phi4"])
def test_what_a_template_has_no_place_for_is_written_as_text(family: str, known: Any) -> None:
    turns = (Message("developer", "Be brief."), *agent()[3:7])
    prompt, response = whole(encoder_of(known, family, turns="all"), turns, TOOLS)
    shown = text_of([*prompt, *response])
    assert shown.index("Be brief.") < shown.index("<tools>\n{") < shown.index("What is two")
    assert "<tool_response>\nfour is two plus two\n</tool_response>" in shown
    assert text_of(response, ANSWER).startswith('<tool_call>\n{"arguments": {"one": 2, "two": 2}')


def test_a_call_of_the_answer_is_written_by_the_template(known: Any) -> None:
    turns = (Message("user", "Add two and two."), Message("assistant", "", call("add", one=2)))
    written = {
        "llama3": '{"name": "add", "parameters": {"one": 2}}',
        "qwen3": '<tool_call>\n{"name": "add", "arguments": {"one": 2}}\n</tool_call>',
        "gemma3": '<tool_call>\n{"arguments": {"one": 2}, "name": "add"}\n</tool_call>',
        "mistral": '[TOOL_CALLS][{"name": "add", "arguments": {"one": 2}, "id": "call00001"}]',
        "gpt-oss": ' to=functions.add<|channel|>commentary json<|message|>{"one": 2}',
        "r1": '<|tool_call|>function<|tool_sep|>add\n```json\n{"one": 2}\n```<|tool_call_end|>',
    }
    for family, expected in written.items():
        assert text_of(whole(encoder_of(known, family), turns, TOOLS)[1]) == expected
    ended = encoder_of(known, "gpt-oss", include_end_of_turn=True)
    assert text_of(whole(ended, turns, TOOLS)[1]).endswith("}<|call|>")


def test_the_ends_of_all_turns_count_where_asked_for(known: Any) -> None:
    turns = agent()
    plain, ended = (
        ids_of(encoder_of(known, "qwen3", turns="all", include_end_of_turn=ending), turns)
        for ending in (False, True)
    )
    end = known.convert_tokens_to_ids("<|im_end|>")
    counted = [id_ for id_, group in zip(ended.response, ended.groups, strict=True) if group]
    assert counted.count(end) == len(ASSISTANT)
    assert len(counted) == len(ASSISTANT) + sum(map(bool, plain.groups))


def test_a_cut_at_the_maximum_length_cuts_the_groups_too(known: Any) -> None:
    long = ids_of(encoder_of(known, "qwen3", turns="all"), agent())
    length = len(long.prompt) + len(long.response) - 5
    cut = ids_of(encoder_of(known, "qwen3", length=length, turns="all"), agent())
    assert (cut.response, cut.groups) == (long.response[:-5], long.groups[:-5])
    assert cut.truncated


@pytest.fixture(scope="module")
def thinker(tmp_path_factory: pytest.TempPathFactory, known: Any, make_model: Any) -> Path:
    """A saved tiny model with Qwen3's template."""
    folder = tmp_path_factory.mktemp("models") / "thinker"
    model = make_model("llama")
    model.resize_token_embeddings(512, mean_resizing=False)
    model.save_pretrained(folder)
    known.save_pretrained(folder)
    (folder / "chat_template.jinja").write_text(SOURCES["qwen3"])
    return folder


def scored(folder: Path, response: Response, **reading: Any) -> dict[str, float]:
    student = StudentModel(Student(model=str(folder)), reading=Reading(**reading))
    scorer = LikelihoodScorer(student)
    [[score]] = list(scorer.score([response]))
    values = {name: np.array([float(score.values[name])]) for name in scorer.columns}
    return {name: float(column[0]) for name, column in scorer.derive(values).items()}


def test_losses_of_trace_and_answer_apart_are_those_of_their_tokens(
    thinker: Path, known: Any, one_thread: None
) -> None:
    response = Response("one", Instruction(agent()[:2]), "<think>\nThe cat.\n</think>\n\nfour cats")
    asked = template_of("qwen3").render(agent()[:2])
    before, thought, whole = (
        known.encode(asked + text, add_special_tokens=False)
        for text in ("", (response.text or "").removesuffix("four cats"), response.text or "")
    )
    answer = known.encode("four cats", add_special_tokens=False)
    trace = whole[len(before) : -len(answer)]
    assert known.decode(trace) == known.decode(thought[len(before) :])
    ids = torch.tensor([[known.bos_token_id, *whole]])
    with torch.no_grad():
        logits = AutoModelForCausalLM.from_pretrained(thinker)(ids).logits[0, :-1]
    nll = torch.nn.functional.cross_entropy(logits, ids[0, 1:], reduction="none")
    of_answer, of_trace = nll[-len(answer) :], nll[-len(answer) - len(trace) : -len(answer)]
    apart = scored(thinker, response, reasoning="apart")
    assert apart["loss_answer"] == pytest.approx(float(of_answer.mean()), abs=1e-4)
    assert apart["loss_reasoning"] == pytest.approx(float(of_trace.mean()), abs=1e-4)
    assert (apart["tokens_answer"], apart["tokens_reasoning"]) == (len(answer), len(trace))
    kept = scored(thinker, response)
    assert {name: apart[name] for name in kept} == pytest.approx(kept)
    plain = scored(thinker, replace(response, text="four cats"), reasoning="apart")
    assert math.isnan(plain["loss_reasoning"])
    assert scored(thinker, response, reasoning="cut") == pytest.approx(
        {name: plain[name] for name in kept}
    )


def test_all_turns_are_counted_and_stored_with_what_is_left_out(
    thinker: Path, one_thread: None
) -> None:
    turns = agent(thoughts=True)
    response = Response("one", Instruction(turns[:-1], TOOLS), turns[-1].content)
    student = StudentModel(Student(model=str(thinker)), reading=Reading(turns="all"))
    [[score]] = list(LikelihoodScorer(student).score([response]))
    groups = student.encoder.encode(turns[:-1], turns[-1].content, tools=TOOLS).groups
    assert score.values["tokens"] == sum(group != CONTEXT for group in groups or ())
    assert score.values["left_out"] == 3


def test_new_readings_have_identities_of_their_own_and_old_ones_keep_theirs(thinker: Path) -> None:
    specs = [
        StudentModel(Student(model=str(thinker)), reading=Reading(**one)).spec()
        for one in ({}, {"turns": "all"}, {"reasoning": "apart"}, {"reasoning": "cut"})
    ]
    assert not {"turns", "reasoning", "written"} & set(specs[0])
    assert len({json.dumps(spec, sort_keys=True) for spec in specs}) == len(specs)


def test_a_template_that_opens_a_thought_is_said(thinker: Path, tmp_path: Path) -> None:
    folder = tmp_path / "r1"
    shutil.copytree(thinker, folder)
    (folder / "chat_template.jinja").write_text(SOURCES["r1"])
    student = StudentModel(Student(model=str(folder)))
    [caution] = LikelihoodScorer(student).cautions
    assert caution.code == "opened-thought"
    assert "written" in student.spec()
    assert LikelihoodScorer(StudentModel(Student(model=str(thinker)))).cautions == ()
