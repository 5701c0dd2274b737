"""A teacher that makes up deterministic texts at once, to try a whole study without any model."""

from functools import cached_property

from preceptor.config.teachers import TeacherPoint
from preceptor.engines.base import ChatModel
from preceptor.engines.fake import FakeChat
from preceptor.store.identity import Identity
from preceptor.teachers.base import TeacherBackend


class FakeTeacher(TeacherBackend):
    """A fake; each name gives texts of its own."""

    part = 4096

    def __init__(self, teacher: TeacherPoint) -> None:
        self.teacher = teacher

    @cached_property
    def chat(self) -> ChatModel:
        """The fake."""
        return FakeChat(self.teacher.model)

    def identity(self) -> Identity:
        """Return the identity of the fake's name and sampling."""
        return Identity.of(
            {
                "engine": "fake",
                "model": self.teacher.model,
                "system": self.teacher.system,
                **self.teacher.sampling(),
            }
        )
