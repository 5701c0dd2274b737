"""A language model as judge: it reads a rubric, the conversation and one response, and gives a number.

The one idea: a note is final, so only what is the row's own fault becomes one (a refused prompt, an answer
without a number). A failure that may pass leaves the row out; the next run asks for it again.
"""

import hashlib
import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar

import numpy as np

from preceptor.engines.base import ChatModel, ChatRequest, Completion, Failure
from preceptor.engines.chat.client import Endpoint, OpenAIChat
from preceptor.engines.chat.watch import Watch
from preceptor.engines.choices import TransformersChoices
from preceptor.engines.models import (
    LocatedModel,
    context_length,
    load_model,
    load_tokenizer,
    locate,
)
from preceptor.engines.templates import ChatTemplate, Encoder, choose_template
from preceptor.errors import StudyError
from preceptor.scorers.base import Array, Scorer
from preceptor.scorers.judge_answer import LEAST_MASS, read_answer
from preceptor.scorers.judge_prompt import DEFAULT_RUBRIC, PROMPT_VERSION, judge_prompt
from preceptor.store.identity import Identity
from preceptor.store.writer import Flush
from preceptor.types import Message, Response, Score

logger = logging.getLogger(__name__)

ALTERNATIVES = 20
"""Likeliest tokens asked for at each position: the most that OpenAI and vLLM give."""

_PROBE = (Message("user", "How many legs has a cat?"),)


@dataclass(frozen=True)
class JudgeOptions:
    """What the judge is and what it is asked; all of it bears on the scores.

    `model` is the name under which it is served, or for a local judge what `locate` understands.
    `revision` is the local model's, or what the user declares about a served one. `scale` is the lowest
    and the highest whole number, within 0 to 10. A model that thinks aloud needs more `max_tokens`.
    """

    model: str
    revision: str | None = None
    rubric: str = DEFAULT_RUBRIC
    scale: tuple[int, int] = (1, 10)
    seed: int = 0
    max_tokens: int = 16
    log_probabilities: bool = True

    def __post_init__(self) -> None:
        low, high = self.scale
        if not 0 <= low < high <= 10:
            raise StudyError(
                f"A judge's scale runs from {low} to {high}: expected two whole numbers within 0 to "
                "10, the lower first. A common choice is (1, 10)."
            )
        if not self.rubric.strip():
            raise StudyError("The judge's rubric is empty: say what it is to look at.")


class Judge(Scorer):
    """Scores responses by what the model behind `endpoint` thinks of each; higher is better.

    `reward` is on the judge's own scale. Where the endpoint tells log-probabilities it is an expectation.
    """

    name = "judge"
    columns = ("score", "mass", "sampled", "expected")
    measures: ClassVar[tuple[str, ...]] = ("reward",)
    required = ("score", "expected")  # an answer may tell neither mass nor a number drawn
    flush: Flush = "each"

    def __init__(self, options: JudgeOptions, endpoint: Endpoint | None) -> None:
        self.options = options
        self.endpoint = endpoint
        self._watch = Watch(
            f"The judge '{options.model}'",
            endpoint,
            lambda: self.chat.complete(self.request(_PROBE, "Four.")),
        )

    @cached_property
    def chat(self) -> ChatModel:
        """The model that is asked."""
        assert self.endpoint is not None
        return OpenAIChat(self.endpoint, self.options.model)

    def preflight(self) -> None:
        """Check address and key without asking anything; ModelError where they cannot be used."""
        if self.endpoint is not None:
            self.chat  # noqa: B018

    def model_spec(self) -> Mapping[str, object]:
        """Return what bears on the scores about the model and how it is run."""
        return {
            "engine": "openai",
            "model": self.options.model,
            "revision": self.options.revision,
            "temperature": 0,
            "seed": self.options.seed,
            "max_tokens": self.options.max_tokens,
            "log_probabilities": self.options.log_probabilities,
        }

    def identity(self) -> Identity:
        """Return the identity of model, prompt and scale; where it is served does not enter."""
        rubric = self.options.rubric.strip()
        return Identity.of(
            {
                "scorer": "judge",
                "prompt_version": PROMPT_VERSION,
                "rubric": rubric,
                "rubric_sha256": hashlib.sha256(rubric.encode("utf-8", "replace")).hexdigest(),
                "scale": list(self.options.scale),
                "least_mass": LEAST_MASS,
                **self.model_spec(),
            }
        )

    def score(self, responses: Sequence[Response]) -> Iterator[Sequence[Score]]:
        """Yield each score as its answer comes; a row whose failure may pass yields nothing.

        Raises:
            ModelError: the endpoint refuses the key, the address or the model, or is down.
        """
        empty = [r for r in responses if not (r.text or "").strip()]
        if empty:
            yield [Score(response.key, {}, "empty") for response in empty]
        asked = [r for r in responses if (r.text or "").strip()]
        requests = [self.request(r.instruction.messages, r.text or "") for r in asked]
        left_out = 0
        with closing(self.chat.complete_all(requests)) as outcomes:
            for finished in outcomes:
                score = self._scored(asked[finished.index].key, finished.outcome)
                left_out += score is None
                if score is not None:
                    yield [score]
        if left_out:
            logger.warning(
                "%d responses have no score because the judge gave no answer in time: "
                "run again to ask for them once more",
                left_out,
            )

    def derive(self, columns: Mapping[str, Array]) -> Mapping[str, Array]:
        """Return `reward`, on the judge's scale: the expectations, or what was drawn where one is lacking.

        The two are different scales: where a row has no expectation, every row gives the number drawn.
        """
        expected = columns["expected"]
        if not ((expected == 1).any() and (expected == 0).any()):
            return {"reward": columns["score"]}
        logger.warning(
            "%d of %d answers of the judge '%s' came without log-probabilities: the numbers it wrote are "
            "used for all",
            int((expected == 0).sum()),
            int(np.isfinite(expected).sum()),
            self.options.model,
        )
        return {"reward": columns["sampled"]}

    def request(self, conversation: Sequence[Message], text: str) -> ChatRequest:
        """Return what the judge is asked about one response."""
        options = self.options
        low, high = options.scale
        prompt = judge_prompt(conversation, text, rubric=options.rubric, scale=options.scale)
        return ChatRequest(
            (Message("user", prompt),),
            max_tokens=options.max_tokens,
            seed=options.seed,
            alternatives=ALTERNATIVES if options.log_probabilities else 0,
            choices=tuple(str(number) for number in range(low, high + 1)),
        )

    def _scored(self, key: bytes, outcome: Completion | Failure) -> Score | None:
        if isinstance(outcome, Completion):
            self._watch.answered()
            reading = read_answer(outcome, self.options.scale)
            if isinstance(reading, str):
                return Score(key, {}, reading)
            return Score(key, reading.columns())
        note = self._watch.note(outcome)
        return None if note is None else Score(key, {}, note)


@dataclass(frozen=True)
class LocalModel:
    """How a local judge is run. `device` is where and changes no score; the rest bears on them."""

    template: str = "auto"
    max_length: int = 8192
    dtype: str = "float32"
    device: str = "cpu"


class LocalJudge(Judge):
    """The same judge over a model run in this process: prompt, expectation and measure are the same."""

    flush: Flush = "timed"

    def __init__(self, options: JudgeOptions, run: LocalModel | None = None) -> None:
        super().__init__(options, None)
        self.run = run or LocalModel()

    @cached_property
    def located(self) -> LocatedModel:
        """Where the model lies, and its identity."""
        return locate(self.options.model, revision=self.options.revision)

    @cached_property
    def chat(self) -> ChatModel:
        """The loaded model."""
        longest = context_length(self.located) or self.run.max_length
        encoder = Encoder(
            load_tokenizer(self.located),
            self._template,
            max_length=min(self.run.max_length, longest),
        )
        model = load_model(self.located, dtype=self.run.dtype, device=self.run.device)
        return TransformersChoices(model, encoder)

    def release(self) -> None:
        """Free the model's memory; it is loaded again where it is needed again."""
        self.__dict__.pop("chat", None)

    @cached_property
    def _template(self) -> ChatTemplate:
        return choose_template(self.run.template, self.located.folder)

    def model_spec(self) -> Mapping[str, object]:
        """Return what bears on the scores about the model and how it is run."""
        return {
            "engine": "transformers",
            "model": dict(self.located.identity),
            "template": dict(self._template.identity()),
            "max_length": self.run.max_length,
            "dtype": self.run.dtype,
        }
