"""From a teacher's table to its backend: the one place that knows every engine."""

from preceptor.config.runtime import Runtime
from preceptor.config.teachers import TEACHER_ENGINES, TeacherPoint
from preceptor.teachers.base import TeacherBackend


def backend_of(teacher: TeacherPoint, runtime: Runtime) -> TeacherBackend:
    """Return what asks this teacher; nothing is loaded or asked yet.

    Raises:
        StudyError: nothing says where the model is served.
    """
    if teacher.engine == "fake":
        from preceptor.teachers.fake import FakeTeacher

        return FakeTeacher(teacher)
    if teacher.engine == "openai":
        from preceptor.teachers.served import ServedTeacher

        return ServedTeacher(teacher, runtime.endpoint(teacher.model), runtime.store)
    if teacher.engine in ("transformers", "vllm"):
        from preceptor.teachers.local import LocalTeacher

        return LocalTeacher(teacher, runtime)
    backend: TeacherBackend = TEACHER_ENGINES[teacher.engine](teacher, runtime)
    return backend
