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
from numpy.typing import NDArray

from preceptor.config.runtime import Runtime
from preceptor.config.student import Reading, Student
from preceptor.engines.base import NOTHING, Extra, Likelihood, Measured, Numbers, TokenizedPair
from preceptor.engines.encoder import BOUNDARY, EncodedPair
from preceptor.engines.likelihoods import LIKELIHOOD_ENGINES
from preceptor.engines.local import LocalModel
from preceptor.engines.marked import ANSWER, CONTEXT, REASONING
from preceptor.engines.models import lacks_layer
from preceptor.errors import ModelError
from preceptor.scorers.base import Array, Scorer
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
from preceptor.types import NoteKind, Response, Score, Warning

Conditioning = Literal["conditional", "unconditional"]

_MEANS = {"loss": "nll", "token_rank": "rank"}
"""Measures that are means over the tokens of a response, and what of each token they are means of."""

APART = ("loss_reasoning", "loss_answer", "tokens_reasoning", "tokens_answer")
"""The measures of reasoning and answer by themselves."""

_RUNTIME = Runtime()
_READING = Reading()


class StudentModel(LocalModel):
    """A student found on disk or on the Hub, loaded only when something must be computed.

    `runtime` says where and in what batches, and what the data type `auto` means. One student serves both
    passes. `reading` says which turns, and what of them, count as the response.
    """

    def __init__(
        self,
        student: Student,
        runtime: Runtime = _RUNTIME,
        *,
        reading: Reading = _READING,
    ) -> None:
        super().__init__(student, runtime)
        self.student = student
        self.reading = reading

    @cached_property
    def engine(self) -> type[Likelihood]:
        """What measures it; StudyError where nothing is known under the engine's name."""
        return LIKELIHOOD_ENGINES[self.student.engine]

    @property
    def served(self) -> bool:  # type: ignore[override]
        """Whether a server runs it."""
        return getattr(self.engine, "served", False)

    @property
    def memory(self) -> int:
        """Bytes of its weights; an engine that takes a device for itself leaves no room beside it."""
        return 2**63 if getattr(self.engine, "takes_device", False) else super().memory

    @property
    def memory_note(self) -> str:
        """What an engine that is not the default has to say of its memory, in brackets."""
        note = getattr(self.engine, "memory_note", None)
        return f" ({note(self.located, self.runtime)})" if note is not None else ""

    @property
    def given(self) -> tuple[str, ...]:
        """The means over tokens that its engine gives, by the names of measures."""
        return tuple(name for name, of in _MEANS.items() if of in self.engine.measures)

    @property
    def lacking(self) -> frozenset[str]:
        """The measures that its engine does not give."""
        given = self.engine.measures
        sources = {**_MEANS, **{name: one.of for name, one in LATER.items()}, **FORMED}
        sources |= dict.fromkeys(("g_norm", "grace"), "gradient")
        return frozenset(name for name, of in sources.items() if of not in given)

    def require_up_projection(self) -> None:
        """Refuse a model whose weights have no `mlp.up_proj`; ModelError."""
        from preceptor.engines.packed.similarity import UP_PROJECTION, no_up_projection

        if lacks_layer(self.located, UP_PROJECTION):
            raise no_up_projection(f"'{self.student.name}'")

    def preflight(self) -> None:
        """Check libraries, and what its engine needs.

        Raises:
            MissingPackage: a library is not installed.
            StudyError: nothing says where the student is served.
            ModelError: the endpoint's address or key cannot be used.
        """
        super().preflight()
        if (check := getattr(self.engine, "preflight", None)) is not None:
            check(self.student, self.runtime)

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
        spec: dict[str, object] = {
            "model": dict(self.located.identity),
            "template": dict(self.template.identity()),
            "begin": "one beginning token where the tokenizer has one, else its end token as context",
            "boundary": BOUNDARY,
            "max_length": self.max_length,
            "dtype": self.dtype,
            "include_end_of_turn": self.reading.include_end_of_turn,
            "engine": self.student.engine,
        }
        chosen = {"turns": self.reading.turns, "reasoning": self.reading.reasoning}
        spec |= {name: one for name, one in chosen.items() if one != getattr(_READING, name)}
        if self.template.writes_reasoning:
            spec["written"] = "reasoning and plain answers as the template writes them"
        return spec


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
        """What it does."""
        without = " without instruction" if self.conditioning == "unconditional" else ""
        by = f" by {self.student.student.model}" if self.suffix else ""
        return f"likelihood{without}{by}"

    @property
    def memory_note(self) -> str:
        """What an engine that is not the default has to say of its memory."""
        return self.student.memory_note

    @property
    def runs(self) -> str:
        """The student, or the reference model."""
        return self.student.student.model

    @property
    def measures(self) -> tuple[str, ...]:
        """The measures of this pass; those of the pass without the instruction are suffixed."""
        loss, *others = self.student.given
        names = (
            *("tokens", loss, "perplexity", *others),
            *(APART if self._apart else ()),
            *self.wanted,
        )
        if self.conditioning == "unconditional":
            names = ("loss_unconditional",)
        return tuple(name + self.suffix for name in names)

    @property
    def columns(self) -> tuple[str, ...]:
        """Sums over the tokens of a response, as far as the engine gives them and metrics want them."""
        sums = (_MEANS[name] for name in self.student.given)
        apart = ("tokens_reasoning", "nll_reasoning") if self._apart else ()
        every = ("left_out",) if self._every_turn else ()
        return ("tokens", *sums, *apart, "truncated", *every, *columns_of(self.wanted))

    @property
    def _apart(self) -> bool:
        return self.student.reading.reasoning == "apart"

    @property
    def _every_turn(self) -> bool:
        return self.student.reading.turns == "all"

    def identity(self) -> Identity:
        """Return the identity of student, template and pass, refusing a student that SCAS cannot take."""
        if any(LATER[name].of == "similarity" for name in self.wanted):
            self.student.require_up_projection()
        spec = {"scorer": "likelihood", "conditioning": self.conditioning}
        return Identity.of({**spec, **self.student.spec()})

    def preflight(self) -> None:
        """Check what the student needs to be run; see `StudentModel.preflight`."""
        self.student.preflight()

    def score(self, responses: Sequence[Response]) -> Iterator[Sequence[Score]]:
        """Yield scores a batch at a time; what cannot be measured gets a note that says why."""
        unusable: list[Score] = []
        usable: list[Response] = []
        pairs: list[TokenizedPair] = []
        kept: list[EncodedPair] = []
        for response in responses:
            encoded = self.encoded(response)
            if isinstance(encoded, str):
                unusable.append(Score(response.key, {}, encoded))
                continue
            usable.append(response)
            pairs.append(self.pair(encoded))
            kept.append(encoded)
        if unusable:
            yield unusable
        if pairs:
            for batch in self.student.likelihood.measure(pairs, self._extra):
                yield [self._scored(usable[m.index], kept[m.index], m) for m in batch]

    @cached_property
    def _extra(self) -> Extra:
        """What the engine is to measure beside what comes always."""
        names = frozenset(LATER[name].of for name in self.wanted if LATER[name].extra)
        return Extra(names, self.student.encoder.special_ids) if names else NOTHING

    def encoded(self, response: Response) -> EncodedPair | str:
        """Return the response's ids, or why there are none."""
        encoder = self.student.encoder  # a tokenizer that cannot be loaded is no fault of the row
        try:
            pair = encoder.encode(
                response.instruction.messages,
                response.text or "",
                tools=response.instruction.tools,
                calls=response.tool_calls,
            )
        except ModelError as error:
            return str(error)
        if not pair.response or (pair.counted is not None and not any(pair.counted)):
            return (
                NoteKind.NO_ROOM.note("for the response")
                if pair.truncated
                else "no response tokens"
            )
        return pair

    def pair(self, encoded: EncodedPair) -> TokenizedPair:
        """Return the ids that this pass reads."""
        if self.conditioning == "unconditional":
            return TokenizedPair((self.student.encoder.context,), encoded.response, encoded.counted)
        return TokenizedPair(encoded.prompt, encoded.response, encoded.counted)

    def _scored(self, response: Response, encoded: EncodedPair, measured: Measured) -> Score:
        if measured.note:
            return Score(response.key, {}, measured.note)
        groups = np.array(encoded.groups or (ANSWER,) * len(encoded.response))
        sums = sums_of(_of(measured.columns, groups != CONTEXT))
        sums |= self._first_tokens(response, encoded, measured.columns["nll"][groups != CONTEXT])
        if self._apart:
            trace = sums_of(_of(measured.columns, groups == REASONING))
            sums |= {f"{name}_reasoning": trace[name] for name in ("tokens", "nll")}
        if not all(map(math.isfinite, sums.values())):
            return Score(response.key, {}, NoteKind.NON_FINITE.note("likelihood"))
        if measured.values:
            special = [token in self._extra.special for token in encoded.response]
            sums |= scas_of(measured, np.array(special) | (groups == CONTEXT))
        values: dict[str, float | Sequence[float]] = {**sums, "truncated": float(encoded.truncated)}
        if self._every_turn:
            values["left_out"] = float(len(encoded.left_out))
        if self.student.runtime.keep_tokens:
            kept = {"nll", "rank"}.intersection(measured.columns)
            values |= {f"token_{name}": clipped(measured.columns)[name].tolist() for name in kept}
        return Score(response.key, values)

    def _first_tokens(
        self, response: Response, encoded: EncodedPair, nll: Numbers
    ) -> dict[str, float]:
        """Return the wanted sums over the tokens that begin steps; `nll` is of those that count."""
        found: dict[str, float] = {}
        steps = [name for name in STEPS if f"loss_{name}" in self.wanted]
        if steps:
            pieces = self._pieces(response, encoded)
            for name in steps:
                found |= first_tokens(nll, pieces, name)
        return found

    def _pieces(self, response: Response, encoded: EncodedPair) -> Sequence[str]:
        """Return the texts of the tokens that count, as they were read: without a trace that was cut.

        Raises:
            ModelError: the tokenizer cannot say what its tokens stand for.
        """
        encoder = self.student.encoder
        if not encoder.tokenizer.is_fast:
            raise ModelError(
                f"The tokenizer of '{self.student.student.name}' cannot say what its tokens stand for, so "
                "steps have no first tokens. Leave 'aslec_drop' out."
            )
        instruction, text = response.instruction, response.text or ""
        tokens = encoder.tokens(
            instruction.messages, text, tools=instruction.tools, calls=response.tool_calls
        )[1][: len(encoded.response)]
        return [token.text for token in tokens if token.group != CONTEXT]

    @property
    def token_column(self) -> str | None:
        """The negative log-likelihood of each token, where these are kept."""
        return "token_nll" if self.student.runtime.keep_tokens else None

    @property
    def of_student(self) -> bool:
        """Whether the model is the student and no reference."""
        return not self.suffix

    @property
    def token_model(self) -> LocalModel | None:
        """The student, of the pass that reads the instruction."""
        return None if self.suffix or self.conditioning != "conditional" else self.student

    @property
    def cautions(self) -> tuple[Warning, ...]:
        """That the template begins every answer with a thought, where it does."""
        if self.suffix or not self.student.template.opens_reasoning:
            return ()
        text = (
            f"The chat template of '{self.student.student.name}' begins every answer with a thought: an "
            "answer without one is read after an empty thought, and where there is one its opening mark is "
            "not repeated."
        )
        return (Warning("opened-thought", text),)

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
        found |= _told_apart(columns) if self._apart else {}
        return {name + self.suffix: column for name, column in found.items()}


def _told_apart(columns: Mapping[str, Array]) -> dict[str, Array]:
    """Return the measures of reasoning and answer each; no loss where there is no token of it."""
    trace, nll = columns["tokens_reasoning"], columns["nll_reasoning"]
    parts = {
        "reasoning": (trace, nll),
        "answer": (columns["tokens"] - trace, columns["nll"] - nll),
    }
    found = {f"tokens_{name}": tokens for name, (tokens, _) in parts.items()}
    for name, (tokens, sums) in parts.items():
        found[f"loss_{name}"] = sums / np.where(tokens > 0, tokens, np.nan)
    return found


def _of(columns: Mapping[str, Numbers], those: NDArray[np.bool_]) -> dict[str, Numbers]:
    return {name: column[those] for name, column in columns.items()}


def instruction_following_difficulty(conditional: Array, unconditional: Array) -> Array:
    """Return perplexity over unconditional perplexity, from the two losses (Li et al. 2024)."""
    ratio = np.exp(np.clip(conditional - unconditional, -700, 700))
    return np.asarray(ratio, dtype=np.float64)
