"""Projected gradients of responses under the student: G-norm, and what GRACE is formed of.

A pass of its own, forwards and backwards, so it is done only where a metric asks for it and only for students
that are small.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from preceptor.engines.gradients import BUCKETS, DIMENSIONS, projected_gradients
from preceptor.engines.marked import ANSWER, CONTEXT
from preceptor.engines.pace import parameters_of
from preceptor.errors import ModelError
from preceptor.scorers.base import Array, Scorer
from preceptor.store.identity import Identity
from preceptor.types import NoteKind, Response, Score

if TYPE_CHECKING:
    from preceptor.scorers.likelihood import LikelihoodScorer

MOST_PARAMETERS = 600_000_000
"""Of a student: its weights, their gradients and those of a response in hand are 7 GB of float32 then."""

_AT_ONCE = 16


class GradientScorer(Scorer):
    """Scores responses by the gradient of their mean loss, times the logarithm of their length in tokens.

    `reader` says how the student reads them.
    """

    name = "gradients"
    measures = ("g_norm", "gradient")
    columns = ("g_norm", "gradient")
    required = ("g_norm",)
    token_column = "gradient"

    def __init__(self, reader: "LikelihoodScorer") -> None:
        self.reader = reader
        self.student = reader.student
        self.model: Any = None

    @property
    def memory(self) -> int:
        """Bytes of the student's weights, their gradients and those of a response in hand."""
        return 3 * self.student.memory

    def identity(self) -> Identity:
        """Return the identity of student, template and projection, refusing a student that is too large."""
        self.preflight()
        spec = {
            "scorer": "gradient",
            "dimensions": DIMENSIONS,
            "buckets": BUCKETS,
            "rescaled": "log tokens",
        }
        return Identity.of({**spec, **self.student.spec()})

    def preflight(self) -> None:
        """Refuse a student that is too large.

        Raises:
            ModelError: it has more than `MOST_PARAMETERS`.
        """
        count = parameters_of(self.student.located) or 0
        if count > MOST_PARAMETERS:
            raise ModelError(
                f"Gradients of '{self.student.student.name}' do not fit: it has {count:,} parameters, "
                f"expected at most {MOST_PARAMETERS:,}. Leave the metrics grace and g_norm out, or take a "
                "smaller student."
            )

    def score(self, responses: Sequence[Response]) -> Iterator[Sequence[Score]]:
        """Yield scores a few at a time; what cannot be read gets a note that says why."""
        from preceptor.engines.loading import load_model

        self.preflight()
        if self.model is None:
            device = self.student.runtime.resolved_device()
            self.model = load_model(self.student.located, dtype=self.student.dtype, device=device)
        for start in range(0, len(responses), _AT_ONCE):
            part = responses[start : start + _AT_ONCE]
            found = {one.key: self.reader.encoded(one) for one in part}
            read = {key: one for key, one in found.items() if not isinstance(one, str)}
            counted = [
                [group != CONTEXT for group in one.groups or (ANSWER,) * len(one.response)]
                for one in read.values()
            ]
            pairs = [self.reader.pair(one) for one in read.values()]
            vectors = projected_gradients(self.model, pairs, counted)
            notes = [Score(key, {}, one) for key, one in found.items() if isinstance(one, str)]
            yield notes + [
                _scored(key, vector * math.log(sum(tokens)))
                for key, vector, tokens in zip(read, vectors, counted, strict=True)
            ]

    def release(self) -> None:
        """Free the model's memory."""
        self.model = None

    def derive(self, columns: Mapping[str, Array]) -> Mapping[str, Array]:
        """Return the squared length of each gradient, and the gradients."""
        return columns


def _scored(key: bytes, vector: Any) -> Score:
    if not np.isfinite(vector).all():
        return Score(key, {}, NoteKind.NON_FINITE.note("gradient"))
    return Score(
        key, {"g_norm": float((vector.astype(np.float64) ** 2).sum()), "gradient": vector.tolist()}
    )
