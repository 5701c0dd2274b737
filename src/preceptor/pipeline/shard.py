"""One shard of a study: the same command on many machines, each with a part of the instructions.

Parts follow from the instructions' content alone, so no machine needs to know of another; what they share is
the store. Once all are done, the command without a shard finds every number there and ranks.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from preceptor.errors import StudyError
from preceptor.pipeline.pipeline import Pipeline
from preceptor.pipeline.score import Step
from preceptor.pipeline.work import preflight


@dataclass(frozen=True)
class ShardStep:
    """One step of scoring: how many responses are the shard's, how many of them it scored now.

    `left` are those of the whole study that have no row yet, of this shard and of all others.
    """

    name: str
    responses: int
    scored: int
    left: int


def score_shard(pipeline: Pipeline) -> list[ShardStep]:
    """Score the shard that the runtime names, and return each of its steps once.

    A best-of-N teacher is left out until the rewards that choose its responses are there.

    Raises:
        StudyError: the study races, or lacks responses.
        PreceptorError: something cannot be scored; what was scored before is stored.
    """
    if pipeline.study.race is not None:
        raise StudyError("A race decides as it goes what to score next: it has no shards.")
    if lacking := [job.name for job in pipeline.source.jobs if job.lacking()]:
        raise StudyError(
            f"Responses of {', '.join(lacking)} are missing, and a shard scores what is there: get them "
            "first, with preceptor generate or the study without a shard."
        )
    whole, own = _steps(pipeline)
    preflight(own)
    before = [step.lacking() for step in own]
    for _ in pipeline.score(own):
        pass
    return [
        ShardStep(
            step.name, len(step.keyed.distinct), missing - step.lacking(), everything.lacking()
        )
        for everything, step, missing in zip(whole, own, before, strict=True)
    ]


def _steps(pipeline: Pipeline) -> tuple[Sequence[Step], Sequence[Step]]:
    """Return the steps of the study, and the same over the shard's instructions."""
    place, of = map(int, (pipeline.runtime.shard or "1/1").split("/"))
    whole: dict[str, Step] = {}
    own: dict[str, Step] = {}
    for data in pipeline.load(spend=False):
        part = replace(data, selection=data.selection.share(place - 1, of))
        for student in pipeline.students:
            for found, loaded in ((whole, data), (own, part)):
                for step in pipeline.plan(loaded, student)[1]:
                    found.setdefault(step.identity.digest, step)
    return list(whole.values()), list(own.values())
