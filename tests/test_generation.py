"""Answers written in process are the model's own, whatever runs beside them, and end where they should.

The reference is `model.generate` called directly, one unpadded prompt at a time. The distributions that
draws are held against are computed here from the model's own forward pass in float64.
"""

import logging
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
import torch
from scipy.stats import chisquare
from transformers import GenerationConfig

from preceptor.engines.base import ChatRequest, Completion, Failure
from preceptor.engines.encoder import Encoder
from preceptor.engines.generation import TransformersChat, draw
from preceptor.engines.templates import FAMILY_TEMPLATES, ChatTemplate
from preceptor.errors import StudyError
from preceptor.types import Message

pytestmark = pytest.mark.usefixtures("one_thread")

MakeModel = Callable[[str], Any]
SPECIAL = {"bos_token": "<bos>", "eos_token": "<eos>", "pad_token": "<pad>", "unk_token": ""}
QUESTIONS = (
    "What is two plus two?",
    "Write a poem about the sea, the sea that is wide and deep, and about the cat on the mat.",
    "Hello",
    "The dog lay beside the other cat. Why?",
    "def add(one, two):",
    "Is the sea deep?",
    "Where is the mat? Where is the cat? Where is the dog? Where is the sea? Where is four?",
    "Print",
)


ARCHITECTURES = ["llama", "gemma2", "gemma3", "qwen3", "neox", "gpt2"]


def asked(text: str, **settings: Any) -> ChatRequest:
    return ChatRequest((Message("user", text),), **{"max_tokens": 24, **settings})


def encoder_for(tokenizer: Any, template: str = "gemma", max_length: int = 256) -> Encoder:
    chosen = ChatTemplate(template, FAMILY_TEMPLATES[template], SPECIAL)
    return Encoder(tokenizer, chosen, max_length=max_length)


@pytest.fixture
def make_chat(make_model: MakeModel, tokenizer: Any) -> Callable[..., TransformersChat]:
    def make(name: str = "llama", *, batch: int = 16, **encoding: Any) -> TransformersChat:
        return TransformersChat(make_model(name), encoder_for(tokenizer, **encoding), batch=batch)

    return make


MakeChat = Callable[..., TransformersChat]


def answers(chat: TransformersChat, requests: Sequence[ChatRequest]) -> list[Completion]:
    found = {finished.index: finished.outcome for finished in chat.complete_all(requests)}
    assert sorted(found) == list(range(len(requests)))
    completions = [found[index] for index in range(len(requests))]
    assert all(isinstance(one, Completion) for one in completions), completions
    return completions


def directly(chat: TransformersChat, request: ChatRequest) -> tuple[str, int]:
    """Return the greedy text and number of tokens of the model's own `generate`, alone and unpadded."""
    ids = torch.tensor([chat.encoder.encode(request.messages, "").prompt])
    settings = GenerationConfig(
        max_new_tokens=request.max_tokens,
        do_sample=False,
        eos_token_id=sorted(chat.ends),
        pad_token_id=0,
    )
    kept, chat.model.generation_config = chat.model.generation_config, settings
    written = chat.model.generate(ids, attention_mask=torch.ones_like(ids))[0, ids.shape[1] :]
    chat.model.generation_config = kept
    tokens = written.tolist()
    cut = min([at for at, token in enumerate(tokens) if token in chat.ends], default=len(tokens))
    return chat.tokenizer.decode(tokens[:cut], skip_special_tokens=True), cut


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_a_padded_batch_writes_what_each_prompt_gets_alone(name: str, make_chat: MakeChat) -> None:
    chat = make_chat(name, batch=5)
    requests = [
        asked(text, max_tokens=tokens)
        for text, tokens in zip(QUESTIONS, (24, 40, 7, 24, 1, 30, 33, 24), strict=True)
    ]
    expected = [directly(chat, request) for request in requests]
    if name not in ("neox", "gpt2"):  # whose greedy answers are all alike: sampled ones tell more
        assert len({text for text, _ in expected}) == len(expected)
    found = answers(chat, requests)
    assert [(one.text, one.tokens) for one in found] == expected
    for request, one in zip(requests, found, strict=True):
        assert one.prompt_tokens == len(chat.encoder.encode(request.messages, "").prompt)
        assert one.finish_reason == ("length" if one.tokens == request.max_tokens else "stop")


def test_soft_caps_are_computed_by_attention_that_knows_them(make_chat: MakeChat) -> None:
    assert make_chat("gemma2").model.config._attn_implementation == "eager"


def test_the_models_own_generation_settings_do_not_leak_in(make_chat: MakeChat) -> None:
    chat = make_chat()
    sampled = {"temperature": 0.7, "top_p": 0.9}
    requests = [asked(QUESTIONS[0]), asked(QUESTIONS[0], **sampled)]
    before = answers(chat, requests)
    own = GenerationConfig(
        do_sample=True,
        temperature=3.0,
        top_k=2,
        top_p=0.3,
        min_p=0.5,
        repetition_penalty=5.0,
        no_repeat_ngram_size=1,
        suppress_tokens=list(range(20, 330)),
        eos_token_id=2,
        max_length=5,
    )
    chat.model.generation_config = own
    assert answers(chat, requests) == before
    assert chat.model.generation_config is own
    # The settings would show if they were used.
    ids = torch.tensor([chat.encoder.encode(requests[0].messages, "").prompt])
    leaked = chat.model.generate(
        ids, attention_mask=torch.ones_like(ids), max_new_tokens=24, do_sample=False, pad_token_id=0
    )
    assert chat.tokenizer.decode(leaked[0, ids.shape[1] :]) != before[0].text


@pytest.mark.parametrize("name", ["llama", "gemma3", "gpt2"])
def test_sampled_answers_do_not_depend_on_what_runs_beside_them(
    name: str, make_chat: MakeChat
) -> None:
    requests = [
        asked(text, temperature=0.5 + 0.1 * at, top_p=(1.0, 0.9)[at % 2], seed=at // 2)
        for at, text in enumerate(QUESTIONS)
    ]
    together = answers(make_chat(name, batch=8), requests)
    assert len({one.text for one in together}) == len(together)
    chat = make_chat(name, batch=3)
    assert [chat.complete(request) for request in requests] == together
    assert answers(chat, requests[::-1]) == together[::-1]
    mixed = [requests[5], asked(QUESTIONS[1]), requests[2]]
    assert answers(chat, mixed)[::2] == [together[5], together[2]]


def test_seed_and_conversation_choose_the_answer(make_chat: MakeChat) -> None:
    chat = make_chat()
    warm = {"temperature": 1.0, "max_tokens": 12}
    texts = [one.text for one in answers(chat, [asked("Hello", seed=s, **warm) for s in range(8)])]
    assert len(set(texts)) == 8
    assert chat.complete(asked("Hello", seed=3, **warm)).text == texts[3]
    fresh = answers(chat, [asked("Hello", seed=None, **warm) for _ in range(4)])
    assert len({one.text for one in fresh}) == 4


def test_several_answers_differ_and_the_first_is_the_one_given_alone(make_chat: MakeChat) -> None:
    chat = make_chat(batch=3)
    several, greedy = answers(
        chat, [asked("Hello", temperature=1.0, count=4), asked("Hello", count=3)]
    )
    texts = [several.text, *(other.text for other in several.others)]
    assert len(set(texts)) == 4
    assert chat.complete(asked("Hello", temperature=1.0)).text == texts[0]
    assert [other.text for other in greedy.others] == [greedy.text] * 2
    assert greedy.others[0].tokens == greedy.tokens


def nucleus(chances: np.ndarray, top_p: float) -> np.ndarray:
    """Return the renormalised probabilities by the definition of Holtzman et al. (2020), eq. 2 and 3."""
    kept, total = np.zeros_like(chances), 0.0
    for token in np.argsort(-chances, kind="stable"):
        kept[token] = chances[token]
        total += chances[token]
        if total >= top_p:
            break
    return kept / total


@pytest.mark.parametrize(("temperature", "top_p"), [(0.7, 1.0), (1.6, 0.8), (1.0, 0.95)])
def test_first_tokens_are_drawn_as_often_as_the_model_finds_them_likely(
    temperature: float, top_p: float, make_chat: MakeChat
) -> None:
    chat = make_chat(batch=250)
    settings = {"max_tokens": 1, "temperature": temperature, "top_p": top_p}
    requests = [asked("Hello", seed=seed, **settings) for seed in range(1500)]
    drawn = Counter(one.text for one in answers(chat, requests))
    ids = torch.tensor([chat.encoder.encode(requests[0].messages, "").prompt])
    with torch.inference_mode():
        logits = chat.model(input_ids=ids).logits[0, -1].double().numpy() / temperature
    chances = nucleus(np.exp(logits - logits.max()) / np.exp(logits - logits.max()).sum(), top_p)
    expected: Counter[str] = Counter()
    for token in np.flatnonzero(chances):
        text = "" if token in chat.ends else chat.tokenizer.decode(token, skip_special_tokens=True)
        expected[text] += 1500 * chances[token]
    assert drawn.keys() <= expected.keys()
    common = [text for text, count in expected.items() if count >= 5]
    assert len(common) >= 5
    rest = (1500 - sum(drawn[text] for text in common), 1500 - sum(expected[t] for t in common))
    cells = [(drawn[text], expected[text]) for text in common] + [rest] * int(rest[1] >= 5)
    seen, hoped = np.array(cells).T
    assert chisquare(seen, hoped * seen.sum() / hoped.sum()).pvalue > 0.001


def drawn_tokens(scores: list[float], uniforms: Sequence[float], top_p: float = 1.0) -> list[int]:
    rows = len(uniforms)
    return draw(
        torch.tensor([scores] * rows),
        temperature=torch.ones(rows, dtype=torch.float64),
        top_p=torch.full((rows,), top_p, dtype=torch.float64),
        uniform=torch.tensor(uniforms, dtype=torch.float64),
    ).tolist()


LOGS = np.log([0.1, 0.4, 0.2, 0.3]).tolist()


def test_a_draw_is_the_inverse_of_the_cumulative_probability_in_vocabulary_order() -> None:
    assert drawn_tokens(LOGS, [0.0, 0.09, 0.11, 0.49, 0.51, 0.69, 0.99]) == [0, 0, 1, 1, 2, 2, 3]
    # 0.4 and 0.3 hold the share 0.6, so 0.4/0.7 of all draws fall to token 1 and the rest to 3.
    assert drawn_tokens(LOGS, [0.0, 0.57, 0.58, 0.99], top_p=0.6) == [1, 1, 3, 3]
    assert drawn_tokens(LOGS, [0.0, 0.99], top_p=0.0) == [1, 1]


def test_a_draw_never_falls_outside_the_vocabulary_or_on_an_impossible_token() -> None:
    highest = float(np.nextafter(1.0, 0.0))
    impossible = [-float("inf"), 0.0, -float("inf"), 0.1, 0.2, -float("inf")]
    assert drawn_tokens(impossible, [0.0, highest]) == [1, 4]
    for top_p in (0.3, 0.6, 0.999999, 1.0):
        scores = np.random.default_rng(0).normal(size=1000).tolist()
        assert max(drawn_tokens(scores, [highest], top_p)) < 1000


def test_every_row_keeps_its_own_temperature_and_top_p() -> None:
    found = draw(
        torch.tensor([LOGS] * 3),
        temperature=torch.tensor([1.0, 0.01, 1.0], dtype=torch.float64),
        top_p=torch.tensor([1.0, 1.0, 0.3], dtype=torch.float64),
        uniform=torch.full((3,), 0.95, dtype=torch.float64),
    )
    assert found.tolist() == [3, 1, 1]


def force(chat: TransformersChat, text: str | Sequence[int]) -> list[int]:
    """Make the chat's model write these tokens (or this text's), one after the other; return them."""
    tokens = chat.tokenizer(text)["input_ids"] if isinstance(text, str) else list(text)
    steps = iter(tokens)

    def write(_module: Any, _args: Any, _options: Any, output: Any) -> None:
        output.logits[:, -1] = 0.0
        output.logits[:, -1, next(steps, 300)] = 50.0

    chat.model.register_forward_hook(write, with_kwargs=True)
    return tokens


def test_every_kind_of_end_ends_an_answer_and_is_no_part_of_it(
    make_model: MakeModel, tokenizer: Any
) -> None:
    turn = tokenizer.convert_tokens_to_ids("<|im_end|>")
    for end in (tokenizer.eos_token_id, turn, 321, 322):
        model = make_model("llama")
        model.generation_config.eos_token_id = [321, 322]
        chat = TransformersChat(model, encoder_for(tokenizer, "chatml"))
        words = tokenizer("Hello there!")["input_ids"]
        force(chat, [*words, end])
        found = chat.complete(asked("Hello"))
        assert (found.text, found.finish_reason) == ("Hello there!", "stop")
        assert found.tokens == len(words)


def test_a_turn_that_ends_in_words_does_not_end_answers_that_use_them(
    make_model: MakeModel, tokenizer: Any
) -> None:
    template = ChatTemplate(
        "arrows", "{% for m in messages %}{{ m.content }}>{% endfor %}", SPECIAL
    )
    assert len(tokenizer(template.end_of_turn)["input_ids"]) == 1
    chat = TransformersChat(make_model("llama"), Encoder(tokenizer, template, max_length=256))
    assert tokenizer(">")["input_ids"][0] not in chat.ends


def test_control_tokens_stay_out_of_the_text_and_white_space_stays_in(make_chat: MakeChat) -> None:
    chat = make_chat()
    control = chat.tokenizer.convert_tokens_to_ids("<|im_start|>")
    spaced = chat.tokenizer(" \n the cat  , the mat .\n")["input_ids"]
    force(chat, [*spaced, control, chat.tokenizer.eos_token_id])
    found = chat.complete(asked("Hello"))
    assert found.text == " \n the cat  , the mat .\n"
    assert found.tokens == len(spaced) + 1


@pytest.mark.parametrize(
    ("stop", "text"),
    [
        (("\n\n",), "one cat"),
        (("mat", "\n"), "one cat"),
        (("cat\n",), "one "),
        (("dog", "t\n\nt"), "one ca"),
        (("",), None),
        (("\u2603",), None),
    ],
)
def test_stop_texts_end_the_answer_and_are_cut_off(
    stop: tuple[str, ...], text: str | None, make_chat: MakeChat
) -> None:
    chat = make_chat()
    whole = "one cat\n\nthe mat\n\nthe end, " * 3
    tokens = force(chat, whole)
    found = chat.complete(asked("Hello", stop=stop, max_tokens=len(tokens)))
    if text is None:
        assert (found.text, found.finish_reason, found.tokens) == (whole, "length", len(tokens))
    else:
        assert (found.text, found.finish_reason) == (text, "stop")
        assert found.tokens < 15


def test_a_stop_text_spread_over_fragments_of_letters_is_found(make_chat: MakeChat) -> None:
    chat = make_chat()
    force(chat, "snow \u2603\u2603 falls")
    assert chat.complete(asked("Hello", stop=("\u2603\u2603",))).text == "snow "


def test_an_answer_gets_the_room_that_the_prompt_leaves(make_chat: MakeChat) -> None:
    room = make_chat().encoder
    length = len(room.encode(asked(QUESTIONS[1]).messages, "").prompt)
    chat = make_chat("gpt2", max_length=length + 3)
    requests = [asked(QUESTIONS[1]), asked("Hello"), asked(QUESTIONS[0], max_tokens=5)]
    found = answers(chat, requests)
    assert (found[0].tokens, found[0].finish_reason) == (3, "length")
    assert [found[1].text, found[2].text] == [directly(chat, one)[0] for one in requests[1:]]


def test_rows_that_have_ended_never_run_past_the_models_positions(make_chat: MakeChat) -> None:
    chat = make_chat("gpt2", max_length=512)
    long = asked("cat " * 330)
    room = 512 - len(chat.encoder.encode(long.messages, "").prompt)
    assert 0 < room < 180
    found = answers(chat, [asked("Hello", max_tokens=400), asked("cat " * 330, max_tokens=400)])
    assert [one.tokens for one in found] == [400, room]


def test_a_prompt_without_room_for_one_token_is_refused(make_chat: MakeChat) -> None:
    length = len(make_chat().encoder.encode(asked(QUESTIONS[1]).messages, "").prompt)
    chat = make_chat(max_length=length)
    outcome = chat.complete(asked(QUESTIONS[1]))
    assert isinstance(outcome, Failure)
    assert outcome.of_request
    assert f"the prompt has {length} tokens" in outcome.detail
    assert isinstance(chat.complete(asked("Hello", max_tokens=0)), Failure)


def test_a_conversation_that_the_template_refuses_is_refused(
    make_model: MakeModel, tokenizer: Any
) -> None:
    source = (
        "{{ bos_token }}{% for m in messages %}{% if m.content == 'No' %}"
        "{{ raise_exception('no such thing') }}{% endif %}{{ m.content }}<eos>{% endfor %}"
    )
    encoder = Encoder(tokenizer, ChatTemplate("strict", source, SPECIAL), max_length=128)
    chat = TransformersChat(make_model("llama"), encoder)
    found = {f.index: f.outcome for f in chat.complete_all([asked("No"), asked("Hello")])}
    assert found[0] == Failure(
        "refused request", "The chat template 'strict' refuses: no such thing"
    )
    assert isinstance(found[1], Completion)


def limit_memory(chat: TransformersChat, rows: int, tokens: int = 10_000) -> None:
    """Make the chat's model run out of memory on more rows, or on more tokens in one."""

    def refuse(_module: Any, _args: Any, options: dict[str, Any]) -> None:
        shape = options["input_ids"].shape
        if shape[0] > rows or shape[1] > tokens:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")

    chat.model.register_forward_pre_hook(refuse, with_kwargs=True)


def test_running_out_of_memory_halves_the_batch_and_changes_no_answer(
    make_chat: MakeChat, caplog: pytest.LogCaptureFixture
) -> None:
    requests = [asked(text, temperature=0.9, seed=at) for at, text in enumerate(QUESTIONS)]
    expected = answers(make_chat(), requests)
    chat = make_chat()
    limit_memory(chat, rows=3)
    with caplog.at_level(logging.WARNING, "preceptor"):
        assert answers(chat, requests) == expected
    assert "going on with 2 answers at once" in caplog.text
    assert chat.batch == 16


def test_an_answer_that_never_fits_in_memory_may_be_asked_for_again(make_chat: MakeChat) -> None:
    chat = make_chat()
    limit_memory(chat, rows=2, tokens=40)
    found = {f.index: f.outcome for f in chat.complete_all([asked(text) for text in QUESTIONS])}
    lost = [index for index, outcome in found.items() if isinstance(outcome, Failure)]
    assert sorted(lost) == [
        at
        for at, text in enumerate(QUESTIONS)
        if len(chat.encoder.encode(asked(text).messages, "").prompt) > 40
    ]
    assert lost
    assert all(found[at].kind == "server error" and not found[at].of_request for at in lost)
    assert "did not fit in memory" in found[lost[0]].detail


def test_other_errors_are_not_taken_for_a_lack_of_memory(make_chat: MakeChat) -> None:
    chat = make_chat()
    chat.model.lm_head = torch.nn.Linear(5, 5)
    with pytest.raises(RuntimeError, match="shapes cannot be multiplied"):
        chat.complete(asked("Hello"))


@pytest.mark.parametrize("temperature", [0.0, 0.8])
def test_scores_that_are_no_numbers_spoil_their_own_row_only(
    temperature: float, make_chat: MakeChat
) -> None:
    requests = [asked(text, temperature=temperature) for text in QUESTIONS[:3]]
    expected = answers(make_chat(), requests)
    chat = make_chat()

    def spoil(_module: Any, _args: Any, _options: Any, output: Any) -> None:
        output.logits[0, -1, 7] = float("nan")  # the longest prompt is the first row

    chat.model.register_forward_hook(spoil, with_kwargs=True)
    found = {f.index: f.outcome for f in chat.complete_all(requests)}
    assert isinstance(found[1], Failure)
    assert (found[1].kind, found[1].of_request) == ("unreadable answer", False)
    assert [found[0], found[2]] == [expected[0], expected[2]]


def test_each_batch_is_handed_over_before_the_next_is_run(make_chat: MakeChat) -> None:
    chat = make_chat(batch=2)
    runs: list[int] = []
    run = chat.model.generate

    def counted(**options: Any) -> Any:
        runs.append(len(options["input_ids"]))
        return run(**options)

    chat.model.generate = counted
    outcomes = chat.complete_all([asked(text) for text in QUESTIONS[:5]])
    seen = []
    for _ in range(5):
        next(outcomes)
        seen.append(list(runs))
    assert seen == [[2], [2], [2, 2], [2, 2], [2, 2, 1]]
    outcomes.close()


def test_a_batch_below_one_is_refused(make_chat: MakeChat) -> None:
    with pytest.raises(StudyError, match="batch of 0 answers"):
        make_chat(batch=0)


@pytest.mark.gpu
def test_on_cuda_answers_are_those_of_the_cpu(make_model: MakeModel, tokenizer: Any) -> None:
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    encoder = encoder_for(tokenizer)
    requests = [asked(t, temperature=x, top_p=0.9) for t in QUESTIONS for x in (0.0, 0.7)]
    expected = answers(TransformersChat(make_model("llama"), encoder), requests)
    assert answers(TransformersChat(make_model("llama").cuda(), encoder), requests) == expected
