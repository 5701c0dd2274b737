"""Sample a teacher: check what it does with seeds, send requests, sort out what has no answer.

What comes out are rows for the store. A note is final, so only what is a request's own fault becomes one;
what failed for a reason that may pass is left out, and asked again by the next run.
"""

import logging
import time
from collections.abc import Generator, Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import replace

from preceptor.engines.base import ChatRequest, Completion, Failure
from preceptor.engines.chat.sampling_check import check_sampling
from preceptor.engines.chat.watch import Watch
from preceptor.engines.reasoning import with_reasoning
from preceptor.errors import ModelError
from preceptor.teachers.base import GenerationRequest, TeacherBackend, request_of
from preceptor.types import Generation, Instruction

logger = logging.getLogger(__name__)

_PROBE = Instruction.from_text("How many legs has a cat?")


class Sampler:
    """One teacher being asked.

    `lost` counts the responses that were not given, to be asked for again another day; `why` is the last
    reason.
    """

    def __init__(self, backend: TeacherBackend) -> None:
        self.lost, self.why = 0, ""
        self._backend = backend
        self._teacher = backend.teacher
        self._name = backend.teacher.name
        self._watch = Watch(
            f"The teacher '{self._name}'",
            backend.where,
            lambda: backend.chat.complete(request_of(backend.teacher, _PROBE, 0)),
        )
        self._alone = self._teacher.samples_per_request == 1
        self._clock = time.monotonic()

    def check(self, waiting: int) -> None:
        """Find out whether a served model honours seeds, before samples are paid for.

        Raises:
            ModelError: further samples would be copies; `waiting` is how many are wanted.
        """
        if self._backend.honours_seeds or self._teacher.temperature == 0:
            return
        count = self._teacher.samples_per_request
        found = check_sampling(self._backend.chat, count=count)
        sentences = [f"'{self._name}': {sentence}" for sentence in found.findings()]
        samples = self._teacher.samples
        if found.seed == "no effect" and samples > 1:
            raise ModelError(
                f"{' '.join(sentences)} {samples} samples would be {samples} copies, and {waiting:,} are "
                "still to be paid for. Set samples = 1, or serve it with sampling."
            )
        for sentence in sentences:
            logger.warning("%s", sentence)
        # A count that is refused would be refused with every request, and each refusal noted for good.
        self._alone |= found.count in ("ignored", "copies", "unknown")

    def answers(
        self, wanted: Iterable[Sequence[GenerationRequest]]
    ) -> Generator[list[Generation], None, None]:
        """Yield rows as they come, for each request once or, where it was lost, never; none while it waits.

        `wanted` are groups that hold all samples of an instruction; an endpoint takes them as it gets free.

        Raises:
            ModelError: the endpoint is down, or refuses key, address, model or settings.
        """
        chat = self._backend.chat  # loading it is no part of the time that answers take
        self._clock = time.monotonic()
        again: list[GenerationRequest] = []
        while True:
            groups: list[list[GenerationRequest]] = []
            with closing(chat.complete_all(self._requests(wanted, groups))) as outcomes:
                for finished in outcomes:
                    group = groups[finished.index]
                    if len(group) > 1 and _refused(finished.outcome):
                        # It may be the count that is refused: a note would be final.
                        again += group
                        continue
                    rows = self._rows(group, finished.outcome)
                    if rows:
                        yield rows
                        again += group[len(rows) :]
                    if not finished.more:
                        yield []
            if not again:
                return
            self._go_alone()
            wanted, again = [again], []

    def _go_alone(self) -> None:
        if not self._alone:
            logger.warning(
                "'%s' gave fewer answers than were asked for at once (n): the rest is asked for singly",
                self._name,
            )
        self._alone = True

    def _requests(
        self,
        wanted: Iterable[Sequence[GenerationRequest]],
        groups: list[list[GenerationRequest]],
    ) -> Iterator[ChatRequest]:
        """Yield the requests, and add to `groups` which samples each is to give."""
        for todo in wanted:
            for group in [[one] for one in todo] if self._alone else self._shared(todo):
                groups.append(group)
                request = request_of(self._backend.teacher, group[0].instruction, group[0].sample)
                yield replace(request, count=len(group))

    def _shared(self, todo: Sequence[GenerationRequest]) -> list[list[GenerationRequest]]:
        """Group samples of one instruction that are asked for at once."""
        size = self._teacher.samples_per_request
        groups: dict[tuple[bytes, int], list[GenerationRequest]] = {}
        for request in todo:
            groups.setdefault((request.instruction.id, request.sample // size), []).append(request)
        return [sorted(group, key=lambda request: request.sample) for group in groups.values()]

    def _rows(
        self, group: Sequence[GenerationRequest], outcome: Completion | Failure
    ) -> list[Generation]:
        """Return what came as rows, of the first samples where there are fewer than were asked for."""
        if isinstance(outcome, Failure):
            note = self._watch.note(outcome)
            if note is None:
                self.lost, self.why = self.lost + len(group), f"{outcome.kind}: {outcome.detail}"
                return []
            return [
                Generation(request.instruction.given_id, request.sample, None, note=note)
                for request in group
            ]
        self._watch.answered()
        now = time.monotonic()
        answers = (outcome, *outcome.others)[: len(group)]
        # A batch waits for hours, which says nothing of how fast the model is.
        share = None if self._backend.terms else (now - self._clock) / len(answers)
        self._clock = now
        return [_row(request, one, share) for request, one in zip(group, answers, strict=False)]


def _refused(outcome: Completion | Failure) -> bool:
    return isinstance(outcome, Failure) and outcome.kind == "refused request"


def _row(request: GenerationRequest, answer: Completion, seconds: float | None) -> Generation:
    return Generation(
        instruction=request.instruction.given_id,
        sample=request.sample,
        text=with_reasoning(answer.reasoning, answer.text),
        finish_reason=answer.finish_reason,
        tokens=answer.tokens,
        prompt_tokens=answer.prompt_tokens,
        seconds=seconds,
    )
