"""A teacher behind an OpenAI-compatible endpoint: hosted, or vLLM, SGLang, llama.cpp, Ollama."""

import re
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path

from preceptor.config.runtime import Endpoint
from preceptor.config.teachers import TeacherPoint
from preceptor.engines.base import ChatModel
from preceptor.engines.control_tokens import spelled_in
from preceptor.engines.reasoning import begins_reasoning
from preceptor.engines.templates import ChatTemplate, choose_template
from preceptor.errors import ModelError
from preceptor.store.identity import Identity
from preceptor.store.store import Store
from preceptor.teachers.base import TeacherBackend
from preceptor.types import Message

_MARK = re.compile(r"<[^<>\s]{1,40}>")
_PROBE = (
    Message("system", "A"),
    Message("user", "B"),
    Message("assistant", "C"),
    Message("user", "D"),
)


class ServedTeacher(TeacherBackend):
    """A model that `endpoint` serves under its name."""

    honours_seeds = False
    paid = True

    def __init__(
        self, teacher: TeacherPoint, endpoint: Endpoint, store: str = ".preceptor"
    ) -> None:
        """`store` is where batches under way are remembered."""
        self.teacher = teacher
        self.endpoint = endpoint
        self._store = store
        self.where = endpoint
        known = (teacher.price_in, teacher.price_out)
        at = (endpoint.price_in, endpoint.price_out)
        share = endpoint.share_paid
        price_in, price_out = known if None not in known else at
        self.prices = (price_in and price_in * share, price_out and price_out * share)
        if endpoint.batch_api:
            self.terms = f"by batches, within a day, at {share:.0%} of the price"

    @property
    def opens_reasoning(self) -> bool:
        """Whether the template rendered here ends with the beginning of a reasoning trace; else not known."""
        return self._template is not None and begins_reasoning(self._template.render(_PROBE))

    @cached_property
    def chat(self) -> ChatModel:
        """The client."""
        from preceptor.engines.chat.batch import BatchChat
        from preceptor.engines.chat.client import OpenAIChat

        render = self._rendered if self._template else None
        chat = OpenAIChat(
            self.endpoint, self.teacher.model, render=render, request=self.teacher.request
        )
        if not self.endpoint.batch_api:
            return chat
        return BatchChat(chat, Store(self._store).responses(self.identity()).batches())

    def _rendered(self, messages: Sequence[Message]) -> str:
        """Return the raw prompt; ModelError where a text would steer its structure.

        A server tokenises the whole, so that what spells a turn's end in the data would end the turn.
        """
        assert self._template is not None
        own = set(_MARK.findall(self._template.render(_PROBE, generation=True)))
        texts = [message.content for message in messages]
        spelled = {mark for text in texts for mark in spelled_in(text)}
        spelled |= {mark for mark in own if any(mark in text for text in texts)}
        if spelled:
            raise ModelError(f"the conversation spells {min(spelled)}, which ends or begins a turn")
        return self._template.render(messages)

    @cached_property
    def _template(self) -> ChatTemplate | None:
        """The template of raw prompts; without a beginning token, which servers add themselves."""
        if self.teacher.api == "chat":
            return None
        chosen = choose_template(self.teacher.chat_template, Path("no model"))
        return ChatTemplate(chosen.name, chosen.source, dict.fromkeys(chosen.special_tokens, ""))

    def identity(self) -> Identity:
        """Return the identity of model, prompt and sampling; where it is served does not enter."""
        template = self._template
        return Identity.of(
            {
                "engine": "openai",
                "api": self.teacher.api,
                "model": self.teacher.model,
                "revision": self.teacher.revision,
                "template": dict(template.identity()) if template else None,
                "system": self.teacher.system,
                **self.teacher.sampling(),
                **self.teacher.request.spec(),
            }
        )

    def preflight(self) -> None:
        """Check address and key without asking anything; ModelError where they cannot be used."""
        self.chat  # noqa: B018
