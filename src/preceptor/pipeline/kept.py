"""What stays loaded from one look of a race to the next: models, as far as half of the memory goes."""

from preceptor.pipeline.work import Executor, Progress, Work
from preceptor.scorers.base import Resource


class Kept:
    """An executor that frees nothing after its use; what was used longest ago makes room for what comes.

    Args:
        execute: what runs the work.
        most: bytes that all that is loaded may take together; one alone may take more.
    """

    def __init__(self, execute: Executor, most: int) -> None:
        self._execute, self._most = execute, most
        self._loaded: list[Resource] = []

    def __call__(self, work: Work, progress: Progress) -> None:
        """Run work that has something missing, once there is room for what it loads."""
        if not work.lacking():
            return
        resource = work.resource
        kept = [one for one in self._loaded if one is not resource]
        while kept and sum(one.memory for one in kept) + resource.memory > self._most:
            kept.pop(0).release()
        self._loaded = [*kept, resource]
        self._execute(work, progress)

    def release(self) -> None:
        """Free all that is loaded."""
        for one in self._loaded:
            one.release()
        self._loaded = []
