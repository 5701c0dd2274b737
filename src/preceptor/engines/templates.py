"""Chat templates: from a conversation to the text that a model was trained to read.

Templates are rendered here and not by the tokenizer: a date in a template would make scores depend on the
day, and identities must be known without importing transformers. Rendering equals `apply_chat_template`
otherwise (tested).
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from preceptor.engines.reasoning import begins_reasoning, parts_of
from preceptor.engines.template_shape import Shape, Tools, Turn, shape_of
from preceptor.errors import ModelError, StudyError, nearest
from preceptor.store.files import read_json, read_text
from preceptor.types import Message

FAMILY_TEMPLATES: Mapping[str, str] = {
    "gemma": (
        "{{ bos_token }}{% set start = namespace(text='') %}{% for m in messages %}"
        "{% if m.role == 'system' %}{% set start.text = m.content + '\n\n' %}{% else %}"
        "<start_of_turn>{{ 'model' if m.role == 'assistant' else m.role }}\n"
        "{{ start.text }}{{ m.content | trim }}<end_of_turn>\n{% set start.text = '' %}"
        "{% endif %}{% endfor %}"
        "{% if add_generation_prompt %}<start_of_turn>model\n{% endif %}"
    ),
    "llama3": (
        "{{ bos_token }}{% for m in messages %}<|start_header_id|>{{ m.role }}<|end_header_id|>\n\n"
        "{{ m.content | trim }}<|eot_id|>{% endfor %}"
        "{% if add_generation_prompt %}<|start_header_id|>assistant<|end_header_id|>\n\n{% endif %}"
    ),
    "chatml": (
        "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
        "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
    ),
    "phi3": (
        "{% for m in messages %}<|{{ m.role }}|>\n{{ m.content }}<|end|>\n{% endfor %}"
        "{% if add_generation_prompt %}<|assistant|>\n{% endif %}"
    ),
    "plain": "{{ bos_token }}{% for m in messages %}{{ m.content }}\n\n{% endfor %}",
}
"""The official templates of model families, written without injected system prompts or dates."""

_PAIR = "{{ messages | map(attribute='content') | join('\n\n') }}"

TEMPLATE_DATE = "26 Jul 2024"
"""The date a template that asks for today's date is given, so that no score depends on the day."""

PROBE = (Message("user", "INSTRUCTION"), Message("assistant", "RESPONSE"), Message("user", "NEXT"))
"""A conversation that shows what a template writes around every kind of turn."""


@dataclass(frozen=True)
class ChatTemplate:
    """A chat template and the special tokens it refers to.

    `name` says where it comes from: `own` (the tokenizer's), a family's name, or a file.
    """

    name: str
    source: str
    special_tokens: Mapping[str, str]

    @cached_property
    def _compiled(self) -> Any:
        from jinja2.exceptions import TemplateError
        from jinja2.ext import Extension, loopcontrols

        from preceptor.engines.template_bounds import BoundedEnvironment, bounded_filter

        class Generation(Extension):
            """Accept `{% generation %}` marks, which only matter when training."""

            tags = {"generation"}  # noqa: RUF012  (jinja2 declares it so)

            def parse(self, parser: Any) -> Any:
                next(parser.stream)
                return parser.parse_statements(("name:endgeneration",), drop_needle=True)

        def refuse(message: str) -> None:
            raise TemplateError(message)

        environment = BoundedEnvironment(
            trim_blocks=True, lstrip_blocks=True, extensions=[Generation, loopcontrols]
        )
        environment.globals["raise_exception"] = refuse
        environment.globals["strftime_now"] = lambda _format: TEMPLATE_DATE
        environment.filters["tojson"] = bounded_filter(
            "tojson",
            lambda value, **options: json.dumps(value, **{"ensure_ascii": False, **options}),
        )
        try:
            return environment.bounded(self.source)
        except Exception as error:  # a template nested too deeply is none of jinja2's errors
            raise ModelError(f"The chat template '{self.name}' cannot be read: {error}") from error

    @cached_property
    def shape(self) -> Shape:
        """What it reads of tools, calls and reasoning."""
        return shape_of(self.source, self._text)

    @cached_property
    def opens_reasoning(self) -> bool:
        """Whether a prompt of it ends with the beginning of a reasoning trace."""
        try:
            return begins_reasoning(self.render(PROBE[:1]))
        except ModelError:  # one that wants more turns
            return False

    @property
    def writes_reasoning(self) -> bool:
        """Whether an answer, with reasoning or without, is written otherwise than as it stands."""
        return self.opens_reasoning or bool(self.shape.trace)

    def render(
        self, messages: Sequence[Message], *, tools: str = "", generation: bool = True
    ) -> str:
        """Return the conversation as text, ready for the assistant's answer where `generation`.

        What the template has no place for (tools, calls, a developer) is folded into the turns that it knows
        (`template_shape`); a system turn that it refuses begins the first user turn. ModelError where it
        refuses the conversation.
        """
        turns, schemas = self._turns(messages, tools)
        try:
            return self._text(turns, schemas, generation)
        except ModelError:
            if turns[0]["role"] != "system" or len(turns) < 2:
                raise
        first = {**turns[1], "content": f"{turns[0]['content']}\n\n{turns[1]['content']}"}
        return self._text([first, *turns[2:]], schemas, generation)

    def _turns(self, messages: Sequence[Message], tools: str) -> tuple[list[Turn], Tools]:
        if not tools and all(_is_simple(message) for message in messages):
            return [message.as_dict() for message in messages], None
        return self.shape.turns(messages, tools)

    def _text(self, turns: list[Turn], tools: Tools, generation: bool = True) -> str:
        from preceptor.engines.template_bounds import text_of

        compiled = self._compiled
        try:
            text = text_of(
                compiled,
                messages=turns,
                tools=tools,
                documents=None,
                add_generation_prompt=generation,
                **self.special_tokens,
            )
            text.encode()  # half a character, which no tokenizer takes, is found here
            return text
        except Exception as error:  # it may divide by zero, or index what is not there
            raise ModelError(f"The chat template '{self.name}' refuses: {error}") from error

    @property
    def end_of_turn(self) -> str:
        """The text that ends an assistant's turn, for example `<|im_end|>`."""
        sentinel = "RESPONSE"
        turns = (Message("user", "INSTRUCTION"), Message("assistant", sentinel))
        after = self.render(turns, generation=False).rpartition(sentinel)[2].strip()
        return after.split(">")[0] + ">" if ">" in after else self.special_tokens["eos_token"]

    def identity(self) -> Mapping[str, object]:
        """Return what bears on scores: the template and its tokens, and how a probe is rendered."""
        exact = json.dumps([self.source, dict(self.special_tokens)], sort_keys=True)
        digest = hashlib.sha256(exact.encode("utf-8", "surrogatepass")).hexdigest()
        return {"name": self.name, "sha256": digest, "rendered": self.render(PROBE)}


def _is_simple(message: Message) -> bool:
    """Whether every template takes the turn as it is: no calls, no tool's, no reasoning in it."""
    known = message.role in ("system", "user", "assistant")
    parts = parts_of(message.content) if message.role == "assistant" else None
    return known and message.plain and (parts is None or parts.answer == message.content)


def choose_template(name: str, folder: Path) -> ChatTemplate:
    """Return the template that `name` means for the model whose files lie in `folder`.

    `auto` takes the tokenizer's own, else the official one of the model's family, else `plain`. A path to a
    Jinja file is read. StudyError for an unknown name.
    """
    settings = _read_json(folder / "tokenizer_config.json")
    special = _special_tokens(settings, folder)
    own = _own_template(settings, folder)
    if name == "auto":
        name = "own" if own else _family(folder)
    if name == "own":
        if not own:
            raise StudyError(
                "The student's tokenizer has no chat template. Use --chat-template auto."
            )
        return ChatTemplate("own", own, special)
    if name in FAMILY_TEMPLATES:
        return ChatTemplate(name, FAMILY_TEMPLATES[name], special)
    path = Path(name)
    if path.suffix in {".jinja", ".jinja2"} and path.is_file():
        return ChatTemplate(path.name, read_text(path, ModelError), special)
    known = ("auto", "own", *FAMILY_TEMPLATES)
    raise StudyError(
        f"No template '{name}'. Known: {', '.join(known)}, or the path of a .jinja file."
        + nearest(name, known)
    )


def pair_template(name: str, folder: Path) -> ChatTemplate | None:
    """Return what renders the first of two segments, or None where `name` means one running text.

    `pair` means it, and `auto` for a model without a chat template of its own whose tokenizer has marks
    around segments (`[CLS]`, `[SEP]`): an encoder, which never saw turns.
    """
    settings = _read_json(folder / "tokenizer_config.json")
    if name == "auto" and not _own_template(settings, folder):
        mapped = _read_json(folder / "special_tokens_map.json")
        marks = all(settings.get(one) or mapped.get(one) for one in ("cls_token", "sep_token"))
        name = "pair" if marks else name
    return ChatTemplate("pair", _PAIR, {}) if name == "pair" else None


def _read_json(path: Path) -> dict[str, Any]:
    content = read_json(path, ModelError) if path.is_file() else {}
    return content if isinstance(content, dict) else {}


def _special_tokens(settings: Mapping[str, Any], folder: Path) -> dict[str, str]:
    mapped = _read_json(folder / "special_tokens_map.json")
    found = {}
    for role in ("bos_token", "eos_token", "pad_token", "unk_token"):
        token = settings.get(role) or mapped.get(role)
        if isinstance(token, dict):
            token = token.get("content")
        found[role] = token if isinstance(token, str) else ""
    return found


def _own_template(settings: Mapping[str, Any], folder: Path) -> str | None:
    file = folder / "chat_template.jinja"
    if file.is_file():
        return read_text(file, ModelError)
    template = settings.get("chat_template") or _read_json(folder / "chat_template.json").get(
        "chat_template"
    )
    if isinstance(template, list):
        entries = [entry for entry in template if isinstance(entry, dict)]
        template = next(
            (one.get("template") for one in entries if one.get("name") == "default"), None
        )
    return template if isinstance(template, str) else None


def _family(folder: Path) -> str:
    kind = str(_read_json(folder / "config.json").get("model_type", ""))
    vocabulary = b"".join(
        (folder / name).read_bytes()
        for name in ("tokenizer.json", "tokenizer_config.json", "added_tokens.json")
        if (folder / name).is_file()
    )
    if kind.startswith("gemma") and b"<start_of_turn>" in vocabulary:
        return "gemma"
    if b"<|start_header_id|>" in vocabulary:
        return "llama3"
    if b"<|im_start|>" in vocabulary:
        return "chatml"
    return "phi3" if kind == "phi3" and b"<|assistant|>" in vocabulary else "plain"
