"""A teacher run in this process, by transformers or by vLLM."""

from functools import cached_property
from typing import TYPE_CHECKING

from preceptor.config.runtime import Runtime
from preceptor.config.teachers import TeacherPoint
from preceptor.engines.base import ChatModel
from preceptor.engines.encoder import Encoder
from preceptor.engines.loading import load_model, load_tokenizer
from preceptor.engines.models import LocatedModel, context_length, locate
from preceptor.engines.pace import fastest_pace, parameters_of
from preceptor.engines.reasoning import begins_reasoning
from preceptor.engines.templates import ChatTemplate, choose_template
from preceptor.store.identity import Identity
from preceptor.teachers.base import TeacherBackend
from preceptor.types import Message

_PART = 2048
"""Requests given to vLLM at once."""

if TYPE_CHECKING:
    from preceptor.engines.vllm import VllmChat


class LocalTeacher(TeacherBackend):
    """A model found on disk or on the Hub, loaded only when something must be answered."""

    def __init__(self, teacher: TeacherPoint, runtime: Runtime) -> None:
        self.teacher = teacher
        self.runtime = runtime
        self.dtype = runtime.resolved_dtype(teacher.dtype)
        self.device = runtime.resolved_device()
        self.batch = runtime.batch_size if teacher.engine == "transformers" else None
        self.part = self.batch or _PART

    @cached_property
    def located(self) -> LocatedModel:
        """Where the model lies, and its identity."""
        return locate(self.teacher.model, revision=self.teacher.revision)

    @property
    def opens_reasoning(self) -> bool:
        """Whether the template ends with the beginning of a reasoning trace."""
        return begins_reasoning(self._template.render((Message("user", "A"),)))

    @cached_property
    def chat(self) -> ChatModel:
        """The loaded model."""
        encoder = Encoder(load_tokenizer(self.located), self._template, max_length=self._max_length)
        if self.teacher.engine == "vllm":
            return self._served_here(encoder)
        from preceptor.engines.generation import TransformersChat

        model = load_model(self.located, dtype=self.dtype, device=self.device)
        return TransformersChat(model, encoder, batch=self.batch or 1)

    def _served_here(self, encoder: Encoder) -> "VllmChat":
        from preceptor.engines.vllm import VllmChat

        gpus = self.runtime.gpus or 1
        return VllmChat(self.located, encoder=encoder, dtype=self.dtype, gpus=gpus)

    @cached_property
    def _template(self) -> ChatTemplate:
        return choose_template(self.teacher.chat_template, self.located.folder)

    @cached_property
    def _max_length(self) -> int:
        return min(self.teacher.max_length, context_length(self.located) or self.teacher.max_length)

    def fastest_pace(self, batch: int) -> float | None:
        """Return tokens a second that it cannot beat on this machine; None where unknown."""
        parameters = parameters_of(self.located)
        if parameters is None or self.teacher.engine != "transformers":
            return None
        return fastest_pace(parameters, batch=batch, dtype=self.dtype, device=self.device)

    def identity(self) -> Identity:
        """Return the identity of weights, template, precision and sampling; the device does not enter."""
        return Identity.of(
            {
                "engine": self.teacher.engine,
                "model": dict(self.located.identity),
                "template": dict(self._template.identity()),
                "max_length": self._max_length,
                "dtype": self.dtype,
                "system": self.teacher.system,
                **self.teacher.sampling(),
            }
        )

    def release(self) -> None:
        """Free the model's memory; it is loaded again where it is needed again."""
        chat = self.__dict__.pop("chat", None)
        if self.teacher.engine == "vllm" and chat is not None:
            chat.release()
