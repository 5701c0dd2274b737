"""Prompts are what the families' makers write, boundaries are exact, and data never becomes structure."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from preceptor.config.student import Reading
from preceptor.engines.encoder import Encoder
from preceptor.engines.templates import FAMILY_TEMPLATES, ChatTemplate, choose_template
from preceptor.errors import ModelError, StudyError
from preceptor.types import Message

SPECIAL = {"bos_token": "<bos>", "eos_token": "<eos>", "pad_token": "", "unk_token": ""}
ONE_TURN = (Message("user", "What is two plus two?"),)
CHAT = (
    Message("user", "Hello there!"),
    Message("assistant", "Hello!"),
    Message("user", "What is two plus two?"),
)
WITH_SYSTEM = (Message("system", "The sea is deep."), *ONE_TURN)
CONTROL = ("<start_of_turn>", "<end_of_turn>", "<|im_start|>", "<|im_end|>", "<bos>", "<eos>")

GEMMA_OWN = (
    "{{ bos_token }}{% if messages[0]['role'] == 'system' %}"
    "{{ raise_exception('System role not supported') }}{% endif %}"
    "{% for message in messages %}"
    "{% if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}"
    "{{ raise_exception('Conversation roles must alternate user/assistant/user/assistant/...') }}"
    "{% endif %}{% if (message['role'] == 'assistant') %}{% set role = 'model' %}"
    "{% else %}{% set role = message['role'] %}{% endif %}"
    "{{ '<start_of_turn>' + role + '\n' + message['content'] | trim + '<end_of_turn>\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{'<start_of_turn>model\n'}}{% endif %}"
)
QWEN_OWN = (
    "{%- if tools is none %}\n"
    "    {%- if messages[0]['role'] != 'system' %}\n"
    "        {{- '<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n' }}\n"
    "    {%- endif %}\n"
    "{%- endif %}\n"
    "{%- for message in messages %}\n"
    "    {%- if message.role == 'nobody' %}{% continue %}{% endif %}\n"
    "    {{- '<|im_start|>' + message.role + '\n' }}{% generation %}{{ message.content }}"
    "{% endgeneration %}{{ '<|im_end|>\n' }}\n"
    "{%- endfor %}\n"
    "{%- if add_generation_prompt %}\n"
    "    {{- '<|im_start|>assistant\n' }}\n"
    "{%- endif %}\n"
)
DATED = "Today is {{ strftime_now('%d %b %Y') }}.{% for m in messages %}{{ m.content }}{% endfor %}"


def family(name: str) -> ChatTemplate:
    return ChatTemplate(name, FAMILY_TEMPLATES[name], SPECIAL)


# The makers' published formats: Gemma's formatting page, Llama 3's model card, OpenAI's ChatML note,
# Phi-3's model card.
GOLDEN = {
    "gemma": (
        "<bos><start_of_turn>user\nHello there!<end_of_turn>\n<start_of_turn>model\nHello!<end_of_turn>\n"
        "<start_of_turn>user\nWhat is two plus two?<end_of_turn>\n<start_of_turn>model\n"
    ),
    "llama3": (
        "<bos><|start_header_id|>user<|end_header_id|>\n\nHello there!<|eot_id|>"
        "<|start_header_id|>assistant<|end_header_id|>\n\nHello!<|eot_id|>"
        "<|start_header_id|>user<|end_header_id|>\n\nWhat is two plus two?<|eot_id|>"
        "<|start_header_id|>assistant<|end_header_id|>\n\n"
    ),
    "chatml": (
        "<|im_start|>user\nHello there!<|im_end|>\n<|im_start|>assistant\nHello!<|im_end|>\n"
        "<|im_start|>user\nWhat is two plus two?<|im_end|>\n<|im_start|>assistant\n"
    ),
    "phi3": (
        "<|user|>\nHello there!<|end|>\n<|assistant|>\nHello!<|end|>\n"
        "<|user|>\nWhat is two plus two?<|end|>\n<|assistant|>\n"
    ),
    "plain": "<bos>Hello there!\n\nHello!\n\nWhat is two plus two?\n\n",
}


@pytest.mark.parametrize("name", FAMILY_TEMPLATES)
def test_family_templates_render_the_published_formats(name: str) -> None:
    assert family(name).render(CHAT) == GOLDEN[name]


@pytest.mark.parametrize(
    ("name", "ending"),
    [
        ("gemma", "<end_of_turn>"),
        ("llama3", "<|eot_id|>"),
        ("chatml", "<|im_end|>"),
        ("phi3", "<|end|>"),
        ("plain", "<eos>"),
    ],
)
def test_the_end_of_a_turn_is_read_from_the_template(name: str, ending: str) -> None:
    assert family(name).end_of_turn == ending


@pytest.mark.parametrize("source", [GEMMA_OWN, QWEN_OWN, *FAMILY_TEMPLATES.values()])
@pytest.mark.parametrize("messages", [ONE_TURN, CHAT])
@pytest.mark.parametrize("generation", [True, False])
def test_templates_render_as_in_transformers(
    source: str,
    messages: tuple[Message, ...],
    generation: bool,
    make_tokenizer: Callable[..., Any],
    tmp_path: Path,
) -> None:
    tokenizer = make_tokenizer(bos_token="<bos>", eos_token="<eos>", chat_template=source)
    tokenizer.save_pretrained(tmp_path)
    template = choose_template("auto", tmp_path)
    assert template.name == "own"
    assert template.render(messages, generation=generation) == tokenizer.apply_chat_template(
        [message._asdict() for message in messages],
        tokenize=False,
        add_generation_prompt=generation,
    )


def test_a_refused_system_turn_begins_the_first_user_turn() -> None:
    template = ChatTemplate("own", GEMMA_OWN, SPECIAL)
    assert template.render(WITH_SYSTEM) == (
        "<bos><start_of_turn>user\nThe sea is deep.\n\nWhat is two plus two?<end_of_turn>\n"
        "<start_of_turn>model\n"
    )
    assert template.render(WITH_SYSTEM) == family("gemma").render(WITH_SYSTEM)


def test_a_conversation_that_a_template_refuses_is_a_model_error_in_its_words() -> None:
    template = ChatTemplate("own", GEMMA_OWN, SPECIAL)
    with pytest.raises(ModelError, match=r"'own' refuses: .*must alternate"):
        template.render((*ONE_TURN, *ONE_TURN))
    with pytest.raises(ModelError, match="must alternate"):
        template.render((Message("system", "Be kind."), Message("assistant", "Hello!")))


def test_a_template_that_asks_for_the_date_gets_the_same_one_every_day() -> None:
    assert ChatTemplate("own", DATED, SPECIAL).render(ONE_TURN).startswith("Today is 26 Jul 2024.")


def test_a_template_may_set_its_own_json_options() -> None:
    source = "{{ {'sea': 'größe'} | tojson(ensure_ascii=True, indent=None) }}"
    assert ChatTemplate("own", source, {}).render(ONE_TURN) == '{"sea": "gr\\u00f6\\u00dfe"}'


def test_a_template_that_cannot_be_read_is_a_model_error() -> None:
    with pytest.raises(ModelError, match=r"'mine\.jinja' cannot be read"):
        ChatTemplate("mine.jinja", "{% for %}", {}).render(ONE_TURN)


@pytest.mark.parametrize(
    "source",
    [
        "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}",
        "{% macro m() %}{{ m() }}{{ m() }}{% endmacro %}{{ m() }}",
        "{% for m in range(99999) %}{{ 'xxxxxxxxxx' * 99999 }}{% endfor %}",
        "{{ 'x' * 10000000000 }}",
        "{{ 9 ** 9 ** 9 }}",
        "{{ 'x'.ljust(10000000000) }}",
        "{{ 'x' | center(10000000000) }}",
        "{% set s = namespace(x='xx') %}{% for i in range(60) %}{% set s.x = s.x ~ s.x %}{% endfor %}",
        "{% set s = namespace(x='xx') %}{% for i in range(60) %}{% set s.x = s.x + s.x %}{% endfor %}",
        "{% set s = namespace(x=3) %}{% for i in range(9999) %}{% set s.x = s.x * s.x %}{% endfor %}",
        "{% set s = namespace() %}{% for i in range(99) %}{% set s.x = [s.x, 9999999 * 'x'] %}{% endfor %}",
        "{{ ('x' * 9999999) | replace('x', 'y' * 99) }}",
        "{{ ('x' * 9999999).replace('x', 'y' * 99) }}",
        "{{ ('\\t' * 999999).expandtabs(9999) }}",
        "{{ ('x' * 999999).translate({120: 'y' * 999999}) }}",
        "{{ ('x' * 999999) | join('y' * 999999) }}",
        "{{ ('x\\n' * 999999) | indent(999999) }}",
        "{{ '{:>999999999}'.format(1) }}",
        "{{ '%999999999d' % 1 }}",
        "{{ [messages * 99999] * 99999 }}",
        "{{ messages | tojson(indent=99999999) }}",
        "{{ 1 / 0 }}",
        "{{ messages[99].content.x }}",
        "{{ 'x' | int('y') / 'z' }}",
        "{{ '\\ud800' }}",
    ],
)
def test_a_template_that_would_hang_fill_memory_or_fail_is_a_model_error(source: str) -> None:
    with pytest.raises(ModelError, match="chat template 'own' refuses"):
        ChatTemplate("own", source, SPECIAL).render(ONE_TURN)


@pytest.mark.parametrize("source", ["{{ messages | random }}", "{{ lipsum() }}"])
def test_a_template_cannot_give_another_text_each_time(source: str) -> None:
    with pytest.raises(ModelError):
        ChatTemplate("own", source, SPECIAL).render(ONE_TURN)


def test_identities_differ_with_the_rendering_and_the_name() -> None:
    identities = [family(name).identity() for name in FAMILY_TEMPLATES]
    assert len({json.dumps(identity) for identity in identities}) == len(FAMILY_TEMPLATES)


def write_model(folder: Path, kind: str, tokens: str, **settings: object) -> Path:
    (folder / "config.json").write_text(json.dumps({"model_type": kind}))
    (folder / "tokenizer.json").write_text(json.dumps({"added_tokens": tokens}))
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    return folder


@pytest.mark.parametrize(
    ("kind", "tokens", "name"),
    [
        ("gemma3_text", "<start_of_turn>", "gemma"),
        ("gemma", "", "plain"),
        ("llama", "<|start_header_id|>", "llama3"),
        ("qwen2", "<|im_start|>", "chatml"),
        ("phi3", "<|assistant|>", "phi3"),
        ("gpt2", "", "plain"),
    ],
)
def test_a_base_model_without_a_template_gets_its_familys(
    kind: str, tokens: str, name: str, tmp_path: Path
) -> None:
    assert choose_template("auto", write_model(tmp_path, kind, tokens)).name == name


def test_own_templates_are_found_in_every_place_transformers_writes_them(tmp_path: Path) -> None:
    named = [{"name": "tool_use", "template": "A"}, {"name": "default", "template": "B"}]
    for place, (name, content) in enumerate(
        [
            ("chat_template.jinja", "B"),
            ("chat_template.json", json.dumps({"chat_template": "B"})),
            ("tokenizer_config.json", json.dumps({"chat_template": "B"})),
            ("tokenizer_config.json", json.dumps({"chat_template": named})),
        ]
    ):
        folder = tmp_path / str(place)
        folder.mkdir()
        write_model(folder, "llama", "<|im_start|>")
        (folder / name).write_text(content)
        template = choose_template("auto", folder)
        assert (template.name, template.source) == ("own", "B")


def test_special_tokens_are_read_as_texts_or_as_objects(tmp_path: Path) -> None:
    write_model(tmp_path, "llama", "", bos_token={"content": "<s>"}, eos_token=None)
    (tmp_path / "special_tokens_map.json").write_text(json.dumps({"eos_token": "</s>"}))
    template = choose_template("plain", tmp_path)
    assert template.special_tokens["bos_token"] == "<s>"
    assert template.special_tokens["eos_token"] == "</s>"


def test_a_jinja_file_can_be_the_template(tmp_path: Path) -> None:
    path = tmp_path / "mine.jinja"
    path.write_text("{{ messages[0].content }}!")
    assert choose_template(str(path), tmp_path).render(ONE_TURN) == "What is two plus two?!"


def test_an_unknown_template_is_refused_with_the_nearest_name(tmp_path: Path) -> None:
    with pytest.raises(StudyError, match=r"No template 'gema'.*Did you mean 'gemma'\?"):
        choose_template("gema", tmp_path)
    with pytest.raises(StudyError, match=r"no chat template\. Use --chat-template auto"):
        choose_template("own", tmp_path)


def test_damaged_settings_are_a_model_error(tmp_path: Path) -> None:
    (tmp_path / "tokenizer_config.json").write_text("{")
    with pytest.raises(ModelError, match=r"tokenizer_config.json' is not JSON"):
        choose_template("auto", tmp_path)
    (tmp_path / "tokenizer_config.json").write_text('{"chat_template": [null, 3, {"name": []}]}')
    assert choose_template("auto", tmp_path).name == "plain"
    (tmp_path / "chat_template.jinja").write_bytes(b"{{ \xec }}")
    with pytest.raises(ModelError, match=r"chat_template\.jinja"):
        choose_template("auto", tmp_path)


def encoder_of(tokenizer: Any, name: str, max_length: int = 500, **options: Any) -> Encoder:
    special = {
        role: getattr(tokenizer, role) or "" for role in ("bos_token", "eos_token", "pad_token")
    }
    template = ChatTemplate(name, FAMILY_TEMPLATES[name], special)
    return Encoder(tokenizer, template, max_length=max_length, **options)


@pytest.mark.parametrize("name", FAMILY_TEMPLATES)
@pytest.mark.parametrize("text", ["Two plus two is four.", " four", "\nfour", "四 🐈", "x" * 50])
def test_prompt_and_response_decode_to_the_whole(name: str, text: str, tokenizer: Any) -> None:
    encoder = encoder_of(tokenizer, name)
    pair = encoder.encode(CHAT, text)
    whole = encoder.template.render(CHAT) + text
    begin = "" if whole.startswith("<bos>") else "<bos>"
    assert tokenizer.decode(pair.prompt + pair.response) == begin + whole
    assert pair.prompt[0] == tokenizer.bos_token_id
    assert pair.prompt.count(tokenizer.bos_token_id) == 1
    assert tokenizer.decode(pair.response).endswith(text)
    assert not pair.truncated


@pytest.mark.parametrize("text", ["\n\nprint", "\nprint", "\n    return one"])
def test_where_a_token_would_span_prompt_and_response_they_are_tokenised_apart(
    text: str, tokenizer: Any
) -> None:
    """The tiny vocabulary has a token of two line feeds, which no model asked by chatml can write."""
    encoder = encoder_of(tokenizer, "chatml")
    pair = encoder.encode(ONE_TURN, text)
    assert pair.prompt == encoder.encode(ONE_TURN, "").prompt
    assert pair.response == tuple(tokenizer(text, add_special_tokens=False)["input_ids"])
    assert tokenizer.decode(pair.prompt).endswith("<|im_start|>assistant\n")


def test_line_feeds_that_the_prompt_ends_with_stay_with_it_however_they_are_cut(
    tokenizer: Any,
) -> None:
    """GPT-2's rule makes one token of two line feeds at the end, two before a word."""
    encoder = encoder_of(tokenizer, "plain")
    alone = tokenizer(encoder.template.render(ONE_TURN), add_special_tokens=False)["input_ids"]
    pair = encoder.encode(ONE_TURN, "Hello there!")
    assert pair.prompt[: len(alone)] != tuple(alone)
    assert tokenizer.decode(pair.prompt) == "<bos>What is two plus two?\n\n"
    assert tokenizer.decode(pair.response) == "Hello there!"


@pytest.mark.parametrize("name", FAMILY_TEMPLATES)
def test_guarded_text_keeps_the_white_space_that_the_template_keeps(
    name: str, tokenizer: Any
) -> None:
    """Spelling a control token of no structure changes nothing but that token's own ids."""
    encoder = encoder_of(tokenizer, name)
    messages = (Message("system", " Be brief.\n"), Message("user", "\n 2+2? <eos> \n"))
    written = tokenizer.decode(encoder.encode(messages, "4").prompt)
    begin = "" if encoder.template.render(messages).startswith("<bos>") else "<bos>"
    assert written == begin + encoder.template.render(messages)


@pytest.mark.parametrize("name", FAMILY_TEMPLATES)
@pytest.mark.parametrize("spelled", CONTROL)
def test_control_tokens_spelled_in_data_stay_text(name: str, spelled: str, tokenizer: Any) -> None:
    encoder = encoder_of(tokenizer, name)
    harmless = encoder.encode(WITH_SYSTEM, "Hello!")
    ids = [tokenizer.convert_tokens_to_ids(token) for token in CONTROL]
    data = f"The {spelled}{spelled} cat {spelled}"
    messages = (Message("system", data), Message("user", data))
    pair = encoder.encode(messages, data)
    assert not set(pair.response) & set(ids)
    assert tokenizer.decode(pair.response) == data
    assert [pair.prompt.count(id_) for id_ in ids] == [harmless.prompt.count(id_) for id_ in ids]
    assert tokenizer.decode(pair.prompt).count(data) == 2


def test_spelled_control_tokens_are_guarded_where_a_template_leaves_out_or_moves_messages(
    tokenizer: Any,
) -> None:
    source = "{{ messages[2].content }}|{{ messages[1].content }}|{{ messages[2].content }}:"
    encoder = Encoder(tokenizer, ChatTemplate("own", source, SPECIAL), max_length=500)
    messages = (*WITH_SYSTEM, Message("user", "<eos>"))
    pair = encoder.encode(messages, "four")
    assert tokenizer.decode(pair.prompt) == "<bos><eos>|What is two plus two?|<eos>:"
    assert tokenizer.eos_token_id not in pair.prompt


def test_a_template_that_begins_twice_is_refused(tokenizer: Any) -> None:
    template = ChatTemplate("own", "{{ bos_token }}<bos>{{ messages[0].content }}", SPECIAL)
    with pytest.raises(ModelError, match=r"two beginning-of-sequence tokens.*--chat-template"):
        Encoder(tokenizer, template, max_length=50).encode(ONE_TURN, "four")


def test_where_beginning_and_end_are_one_token_it_begins_the_prompt_once(
    make_tokenizer: Callable[..., Any],
) -> None:
    tokenizer = make_tokenizer(bos_token="<|endoftext|>", eos_token="<|endoftext|>")
    for name in ("plain", "chatml"):
        encoder = encoder_of(tokenizer, name, reading=Reading(include_end_of_turn=name == "plain"))
        pair = encoder.encode(ONE_TURN, "four")
        assert encoder.context == pair.prompt[0] == tokenizer.eos_token_id
        assert pair.prompt.count(tokenizer.eos_token_id) == 1
        assert pair.response.count(tokenizer.eos_token_id) == (name == "plain")


def test_without_a_beginning_token_none_is_added_and_the_end_token_is_the_context(
    make_tokenizer: Callable[..., Any],
) -> None:
    tokenizer = make_tokenizer(eos_token="<|endoftext|>")
    encoder = encoder_of(tokenizer, "chatml")
    pair = encoder.encode(ONE_TURN, "four")
    assert encoder.begin is None
    assert encoder.context == tokenizer.eos_token_id
    assert tokenizer.decode(pair.prompt) == encoder.template.render(ONE_TURN)
    empty = Encoder(tokenizer, ChatTemplate("own", "", SPECIAL), max_length=50)
    assert empty.encode(ONE_TURN, "four").prompt == (tokenizer.eos_token_id,)


def test_a_tokenizer_with_neither_beginning_nor_end_is_refused(
    make_tokenizer: Callable[..., Any],
) -> None:
    with pytest.raises(ModelError, match="neither a beginning nor an end token"):
        encoder_of(make_tokenizer(), "chatml")


def test_the_end_of_the_turn_joins_the_response_only_when_asked_for(tokenizer: Any) -> None:
    end = tokenizer.convert_tokens_to_ids("<end_of_turn>")
    plain = encoder_of(tokenizer, "gemma").encode(ONE_TURN, "four")
    ended = encoder_of(tokenizer, "gemma", reading=Reading(include_end_of_turn=True)).encode(
        ONE_TURN, "four"
    )
    assert ended[:3] == (plain.prompt, (*plain.response, end), False)
    guarded = encoder_of(tokenizer, "gemma", reading=Reading(include_end_of_turn=True)).encode(
        ONE_TURN, "<end_of_turn>"
    )
    assert guarded.response.count(end) == 1


def test_a_response_beyond_the_maximum_length_is_cut_at_its_end_and_said_so(tokenizer: Any) -> None:
    whole = encoder_of(tokenizer, "gemma").encode(ONE_TURN, "The sea is wide.")
    total = len(whole.prompt) + len(whole.response)
    assert encoder_of(tokenizer, "gemma", total).encode(ONE_TURN, "The sea is wide.") == whole
    cut = encoder_of(tokenizer, "gemma", total - 2).encode(ONE_TURN, "The sea is wide.")
    assert cut[:3] == (whole.prompt, whole.response[:-2], True)
    for length in (len(whole.prompt), 1):
        none = encoder_of(tokenizer, "gemma", length).encode(ONE_TURN, "The sea is wide.")
        assert none[:3] == (whole.prompt, (), True)


def test_an_empty_response_has_no_tokens_and_is_not_truncated(tokenizer: Any) -> None:
    for messages in (ONE_TURN, (Message("user", "<eos>"),)):
        pair = encoder_of(tokenizer, "gemma").encode(messages, "")
        assert (pair.response, pair.truncated) == ((), False)


def test_templates_that_differ_only_in_the_last_turn_have_different_identities() -> None:
    source = FAMILY_TEMPLATES["chatml"]
    other = source + "{% if not add_generation_prompt %}END{% endif %}"
    first, second = (ChatTemplate("own", text, SPECIAL) for text in (source, other))
    assert first.identity()["rendered"] == second.identity()["rendered"]
    assert first.identity() != second.identity()


@pytest.mark.parametrize("name", FAMILY_TEMPLATES)
@pytest.mark.parametrize(
    "text", ["Two plus two is four.", " four ", "\n\nprint", "四 🐈 é", f"a {CONTROL[0]} b", ""]
)
def test_pieces_join_to_the_response_one_for_each_of_its_tokens(
    name: str, text: str, tokenizer: Any
) -> None:
    encoder = encoder_of(tokenizer, name)
    pieces = [token.text for token in encoder.tokens(ONE_TURN, text)[1]]
    assert "".join(pieces) == text
    assert len(pieces) == len(encoder.encode(ONE_TURN, text).response)


def test_tokens_end_with_the_turn_where_it_counts_and_know_no_cut(tokenizer: Any) -> None:
    text = "The cat sat on the mat, and the dog lay beside the other cat."
    _, whole = encoder_of(tokenizer, "gemma").tokens(ONE_TURN, text)
    ended = encoder_of(tokenizer, "gemma", reading=Reading(include_end_of_turn=True))
    _, ending = ended.tokens(ONE_TURN, text)
    assert "".join(token.text for token in ending) == f"{text}{ended.template.end_of_turn}"
    assert ending[: len(whole)] == whole
    assert encoder_of(tokenizer, "gemma", max_length=20).tokens(ONE_TURN, text)[1] == whole
