"""A teacher run in this process, by transformers or by vLLM."""

from functools import cached_property
from typing import TYPE_CHECKING

from preceptor.config.runtime import Runtime
from preceptor.config.teachers import TeacherPoint
from preceptor.engines.base import ChatModel
from preceptor.engines.loading import load_model
from preceptor.engines.local import LocalModel
from preceptor.engines.pace import fastest_pace, parameters_of
from preceptor.engines.reasoning import begins_reasoning
from preceptor.store.identity import Identity
from preceptor.teachers.base import TeacherBackend
from preceptor.types import Message

_PART = 2048
"""Instructions given to vLLM at once."""

if TYPE_CHECKING:
    from preceptor.engines.vllm import VllmChat


class LocalTeacher(LocalModel, TeacherBackend):
    """A model found on disk or on the Hub, loaded only when something must be answered."""

    def __init__(self, teacher: TeacherPoint, runtime: Runtime) -> None:
        super().__init__(teacher, runtime)
        self.teacher = teacher
        self.device = runtime.resolved_device()
        self.batch = runtime.batch_size if teacher.engine == "transformers" else None
        self.part = 1 if self.batch else _PART

    @property
    def opens_reasoning(self) -> bool:
        """Whether the template ends with the beginning of a reasoning trace."""
        return begins_reasoning(self.template.render((Message("user", "A"),)))

    @cached_property
    def chat(self) -> ChatModel:
        """The loaded model."""
        if self.teacher.engine == "vllm":
            return self._served_here()
        from preceptor.engines.generation import TransformersChat

        model = load_model(self.located, dtype=self.dtype, device=self.device)
        return TransformersChat(model, self.encoder, batch=self.batch or 1)

    def _served_here(self) -> "VllmChat":
        from preceptor.engines.vllm import VllmChat

        gpus = self.runtime.gpus or 1
        return VllmChat(self.located, encoder=self.encoder, dtype=self.dtype, gpus=gpus)

    @property
    def memory(self) -> int:
        """Bytes of its weights; vLLM takes the whole device."""
        return super().memory if self.batch else 2**63

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
                "template": dict(self.template.identity()),
                "max_length": self.max_length,
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
