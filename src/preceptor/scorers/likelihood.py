"""Likelihood of responses under a student before fine-tuning: loss, perplexity, token rank, IFD and more.

The student sees each response after its instruction (conditional) or after nothing but the beginning
token (unconditional); both passes cover the same response tokens. Sums and token counts are stored, so
that every mean the paper could have meant can be formed later without another pass.
"""

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from typing import Literal

import numpy as np

from preceptor.config.runtime import Runtime
from preceptor.config.student import Student
from preceptor.engines.base import NOTHING, Extra, Likelihood, Measured, TokenizedPair
from preceptor.engines.encoder import BOUNDARY, EncodedPair
from preceptor.engines.likelihoods import LIKELIHOOD_ENGINES
from preceptor.engines.local import LocalModel
from preceptor.errors import ModelError
from preceptor.scorers.base import Array, Pieces, Scorer
from preceptor.scorers.token_measures import (
    FORMED,
    LATER,
    STEPS,
    clipped,
    columns_of,
    first_tokens,
    scas_of,
    sums_of,
)
from preceptor.store.identity import Identity
from preceptor.types import NoteKind, Response, Score

Conditioning = Literal["conditional", "unconditional"]

_MEANS = {"loss": "nll", "token_rank": "rank"}
"""Measures that are means over the tokens of a response, and what of each token they are means of."""

_RUNTIME = Runtime()


class StudentModel(LocalModel):
    """A student found on disk or on the Hub, loaded only when something must be computed.

    `runtime` says where and in what batches, and what the data type `auto` means. One student serves both
    passes. With `include_end_of_turn` the token that ends the turn counts as part of the response.
    """

    def __init__(
        self,
        student: Student,
        runtime: Runtime = _RUNTIME,
        *,
        include_end_of_turn: bool = False,
    ) -> None:
        super().__init__(student, runtime)
        self.student = student
        self.include_end_of_turn = include_end_of_turn

    @cached_property
    def engine(self) -> type[Likelihood]:
        """What measures it; StudyError where nothing is known under the engine's name."""
        return LIKELIHOOD_ENGINES[self.student.engine]

    @property
    def given(self) -> tuple[str, ...]:
        """The means over tokens that its engine gives, by the names of measures."""
        return tuple(name for name, of in _MEANS.items() if of in self.engine.measures)

    @property
    def lacking(self) -> frozenset[str]:
        """The measures that its engine does not give."""
        given = self.engine.measures
        sources = {**_MEANS, **{name: one.of for name, one in LATER.items()}, **FORMED}
        return frozenset(name for name, of in sources.items() if of not in given)

    @cached_property
    def likelihood(self) -> Likelihood:
        """The loaded model."""
        settled = self.student.model_copy(update={"dtype": self.dtype})
        return self.engine.load(self.located, settled, self.runtime)

    def release(self) -> None:
        """Free the model's memory; it is loaded again where it is needed again."""
        loaded = self.__dict__.pop("likelihood", None)
        if loaded is not None:
            loaded.release()

    def spec(self) -> dict[str, object]:
        """Return everything about the student that can change a likelihood."""
        return {
            "model": dict(self.located.identity),
            "template": dict(self.template.identity()),
            "begin": "one beginning token where the tokenizer has one, else its end token as context",
            "boundary": BOUNDARY,
            "max_length": self.max_length,
            "dtype": self.dtype,
            "include_end_of_turn": self.include_end_of_turn,
            "engine": self.student.engine,
        }


class LikelihoodScorer(Scorer):
    """Scores responses by their likelihood under `student`, after the instruction or without it.

    `suffix` ends the names of its measures where the model is not the student but a reference. `wanted` are
    the measures of `LATER` that metrics ask for.
    """

    def __init__(
        self,
        student: StudentModel,
        conditioning: Conditioning = "conditional",
        *,
        suffix: str = "",
        wanted: Iterable[str] = (),
    ) -> None:
        self.student = student
        self.conditioning = conditioning
        self.suffix = suffix
        asked = frozenset(wanted)
        self.wanted = tuple(name for name in LATER if name in asked)

    @property
    def name(self) -> str:
        """What it does, for progress and plans."""
        without = " without instruction" if self.conditioning == "unconditional" else ""
        return f"likelihood{without}" + (f" by {self.student.student.model}" if self.suffix else "")

    @property
    def measures(self) -> tuple[str, ...]:
        """The measures of this pass; those of the pass without the instruction are suffixed."""
        loss, *others = self.student.given
        names = ("tokens", loss, "perplexity", *others, *self.wanted)
        if self.conditioning == "unconditional":
            names = ("loss_unconditional",)
        return tuple(name + self.suffix for name in names)

    @property
    def columns(self) -> tuple[str, ...]:
        """Sums over the tokens of a response, as far as the engine gives them and metrics want them."""
        sums = (_MEANS[name] for name in self.student.given)
        return ("tokens", *sums, "truncated", *columns_of(self.wanted))

    def identity(self) -> Identity:
        """Return the identity of student, template and pass."""
        spec = {"scorer": "likelihood", "conditioning": self.conditioning}
        return Identity.of({**spec, **self.student.spec()})

    def score(self, responses: Sequence[Response]) -> Iterator[Sequence[Score]]:
        """Yield scores a batch at a time; what cannot be measured gets a note that says why."""
        unusable: list[Score] = []
        usable: list[Response] = []
        pairs: list[TokenizedPair] = []
        truncated: list[bool] = []
        for response in responses:
            encoded = self._encoded(response)
            if isinstance(encoded, str):
                unusable.append(Score(response.key, {}, encoded))
                continue
            usable.append(response)
            pairs.append(self._pair(encoded))
            truncated.append(encoded.truncated)
        if unusable:
            yield unusable
        if pairs:
            for batch in self.student.likelihood.measure(pairs, self._extra):
                yield [
                    self._scored(usable[m.index], pairs[m.index], m, truncated[m.index])
                    for m in batch
                ]

    @cached_property
    def _extra(self) -> Extra:
        """What the engine is to measure beside what comes always."""
        names = frozenset(LATER[name].of for name in self.wanted if LATER[name].extra)
        return Extra(names, self.student.encoder.special_ids) if names else NOTHING

    def _encoded(self, response: Response) -> EncodedPair | str:
        """Return the response's ids, or why there are none."""
        encoder = self.student.encoder  # a tokenizer that cannot be loaded is no fault of the row
        try:
            pair = encoder.encode(response.instruction.messages, response.text or "")
        except ModelError as error:
            return str(error)
        if not pair.response:
            return (
                NoteKind.NO_ROOM.note("for the response")
                if pair.truncated
                else "no response tokens"
            )
        return pair

    def _pair(self, encoded: EncodedPair) -> TokenizedPair:
        if self.conditioning == "unconditional":
            return TokenizedPair((self.student.encoder.context,), encoded.response)
        return TokenizedPair(encoded.prompt, encoded.response)

    def _scored(
        self, response: Response, pair: TokenizedPair, measured: Measured, truncated: bool
    ) -> Score:
        sums = {**sums_of(measured.columns), **self._of_response(response, pair, measured)}
        if not all(map(math.isfinite, sums.values())):
            return Score(response.key, {}, NoteKind.NON_FINITE.note("likelihood"))
        values: dict[str, float | Sequence[float]] = {**sums, "truncated": float(truncated)}
        if self.student.runtime.keep_tokens:
            kept = {"nll", "rank"}.intersection(measured.columns)
            values |= {f"token_{name}": clipped(measured.columns)[name].tolist() for name in kept}
        return Score(response.key, values)

    def _of_response(
        self, response: Response, pair: TokenizedPair, measured: Measured
    ) -> dict[str, float]:
        """Return the wanted sums that need more than the columns of tokens."""
        special = np.array([token in self._extra.special for token in pair.response], np.float32)
        found = scas_of(measured, special)
        steps = [name for name in STEPS if f"loss_{name}" in self.wanted]
        if steps:
            pieces = self.student.encoder.pieces(response.instruction.messages, response.text or "")
            for name in steps:
                found |= first_tokens(measured.columns["nll"], pieces, name)
        return found

    @property
    def token_column(self) -> str | None:
        """The negative log-likelihood of each token, where these are kept."""
        return "token_nll" if self.student.runtime.keep_tokens else None

    @property
    def of_student(self) -> bool:
        """Whether the model is the student and no reference."""
        return not self.suffix

    @property
    def pieces(self) -> Pieces | None:
        """The student's own tokens, of the pass that reads the instruction."""
        if self.suffix or self.conditioning != "conditional":
            return None
        return lambda messages, text: self.student.encoder.pieces(messages, text)

    @property
    def resource(self) -> StudentModel:
        """The model, which both passes share."""
        return self.student

    def derive(self, columns: Mapping[str, Array]) -> Mapping[str, Array]:
        """Return the measures; a mean is over the tokens of the response, rank 1 is the likeliest."""
        tokens = columns["tokens"]
        loss = columns["nll"] / tokens
        if self.conditioning == "unconditional":
            found = {"loss_unconditional": loss, "nll_unconditional": columns["nll"]}
            return {name + self.suffix: column for name, column in found.items()}
        with np.errstate(over="ignore"):
            perplexity = np.exp(loss)
        found = {
            "tokens": tokens,
            "nll": columns["nll"],
            "loss": loss,
            "perplexity": np.where(np.isfinite(perplexity), perplexity, np.nan),
        }
        found |= {name: columns[of] / tokens for name, of in _MEANS.items() if of in columns}
        found |= {name: LATER[name].form(columns) for name in self.wanted}
        return {name + self.suffix: column for name, column in found.items()}


def instruction_following_difficulty(conditional: Array, unconditional: Array) -> Array:
    """Return perplexity over unconditional perplexity, from the two losses (Li et al. 2024)."""
    ratio = np.exp(np.clip(conditional - unconditional, -700, 700))
    return np.asarray(ratio, dtype=np.float64)
