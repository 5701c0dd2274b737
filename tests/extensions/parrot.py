"""A teacher backend: repeats the instruction."""

from preceptor import Completion, Finished, Identity, TeacherBackend


class Parrot(TeacherBackend):
    """A teacher that gives back what it is asked, in capitals where its model is called loud."""

    part = 64

    def __init__(self, teacher, runtime):
        self.teacher = teacher

    @property
    def chat(self):
        return self

    def identity(self):
        return Identity.of({"engine": "parrot", "model": self.teacher.model})

    def complete_all(self, requests):
        for index, request in enumerate(requests):
            text = request.messages[-1].content
            yield Finished(
                index, Completion(text.upper() if self.teacher.model == "loud" else text)
            )
