"""A language model as judge: it reads a rubric, the conversation and one response, and gives a number.

A note is final, so only what is the row's own fault becomes one (a refused prompt, an answer
without a number). A failure that may pass leaves the row out; the next run asks for it again.
"""

import hashlib
import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from functools import cache, cached_property
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from preceptor.config.rewards import JudgeReward
from preceptor.config.runtime import Endpoint, Runtime
from preceptor.engines.base import ChatModel, ChatRequest, Completion, Failure
from preceptor.engines.chat.watch import Watch
from preceptor.engines.control_tokens import tell_of_cuts
from preceptor.engines.local import LocalModel
from preceptor.scorers.base import USAGE, Array, Fee, Scorer
from preceptor.scorers.judge_answer import LEAST_MASS, read_answer
from preceptor.scorers.judge_prompt import PROMPT_VERSION, judge_prompt
from preceptor.store.identity import Identity
from preceptor.store.shards import Shards
from preceptor.store.store import Store
from preceptor.types import Flush, Message, Response, Score

if TYPE_CHECKING:
    from preceptor.engines.chat.client import OpenAIChat

logger = logging.getLogger(__name__)

ALTERNATIVES = 20
"""Likeliest tokens asked for at each position: the most that OpenAI and vLLM give."""

_RUNTIME = Runtime()
_BATCH = 50_000
_PROBE = (Message("user", "How many legs has a cat?"),)


class Judge(Scorer):
    """Scores responses by what the model behind `endpoint` thinks of each; higher is better.

    `reward` is on the judge's own scale. Where the endpoint tells log-probabilities it is an expectation.
    """

    name = "judge"
    columns = ("score", "mass", "sampled", "expected", *USAGE)
    measures: ClassVar[tuple[str, ...]] = ("reward",)
    required = ("score", "expected")  # an answer may tell neither mass nor a number drawn
    reads_answer = True
    flush: Flush = "each"

    def __init__(
        self, table: JudgeReward, endpoint: Endpoint | None, store: str = ".preceptor"
    ) -> None:
        """`store` is where batches under way are remembered."""
        self.table = table
        self.endpoint = endpoint
        self._store = store
        self._watch = Watch(
            f"The judge '{table.model}'",
            endpoint,
            lambda: self.chat.complete(self.request(_PROBE, "Four.")),
        )

    @cached_property
    def chat(self) -> ChatModel:
        """The model that is asked."""
        return self._client

    @cached_property
    def _client(self) -> "OpenAIChat":
        from preceptor.engines.chat.client import OpenAIChat

        assert self.endpoint is not None
        return OpenAIChat(self.endpoint, self.table.model, request=self.table.request)

    @property
    def part(self) -> int:
        """Instructions whose responses are handed over at once: by a batch as many as it may hold."""
        by_batch = self.endpoint is not None and self.endpoint.batch_api
        return _BATCH if by_batch else super().part

    def _asked(self) -> ChatModel:
        """Return what answers requests, by batches where the endpoint is to be asked so."""
        if self.endpoint is None or not self.endpoint.batch_api:
            return self.chat
        return self.batches_in(Store(self._store).scores(self.identity()))

    def batches_in(self, partition: Shards) -> ChatModel:
        """Return the model, asked by batches that are remembered beside the partition's rows."""
        from preceptor.engines.chat.batch import BatchChat

        return BatchChat(self._client, partition.batches())

    @property
    def label(self) -> str:
        """The model's name in tables."""
        return self.table.model

    @property
    def fee(self) -> Fee | None:
        """What the endpoint takes; None where the model is run here."""
        if self.endpoint is None:
            return None
        prompt = self.request((), "").messages[0].content
        label = f"judge {self.label}"
        return Fee(label, *self.endpoint.prices, len(prompt), self.table.max_tokens)

    def preflight(self) -> None:
        """Check address and key without asking anything; ModelError where they cannot be used."""
        if self.endpoint is not None:
            self.chat  # noqa: B018

    def model_spec(self) -> Mapping[str, object]:
        """Return what bears on the scores about the model and how it is run."""
        return {
            "engine": "openai",
            "model": self.table.model,
            "revision": self.table.revision,
            "temperature": self.table.temperature or 0,
            "seed": self.table.seed,
            "max_tokens": self.table.max_tokens,
            "log_probabilities": self.table.logprobs,
            **self.table.request.spec(),
        }

    def identity(self) -> Identity:
        """Return the identity of model, prompt and scale; where it is served does not enter."""
        rubric = self.table.rubric.strip()
        return Identity.of(
            {
                "scorer": "judge",
                "prompt_version": PROMPT_VERSION,
                "rubric": rubric,
                "rubric_sha256": hashlib.sha256(rubric.encode("utf-8", "replace")).hexdigest(),
                "scale": list(self.table.scale),
                "least_mass": LEAST_MASS,
                **self.model_spec(),
            }
        )

    def score(self, responses: Sequence[Response]) -> Iterator[Sequence[Score]]:
        """Yield each score as its answer comes, and nothing where the next are waited for.

        A row whose failure may pass has no score.

        Raises:
            ModelError: the endpoint refuses the key, the address or the model, or is down.
        """
        empty = [r for r in responses if not (r.text or "").strip()]
        if empty:
            yield [Score(response.key, {}, "empty") for response in empty]
        asked = [r for r in responses if (r.text or "").strip()]
        requests = [self.request(r.instruction.messages, r.text or "") for r in asked]
        tell_of_cuts((r.text or "" for r in asked), f"The judge '{self.label}'")
        with closing(self._asked().complete_all(requests)) as outcomes:
            for finished in outcomes:
                score = self._scored(asked[finished.index].key, finished.outcome)
                if score is not None:
                    yield [score]
                if not finished.more:
                    yield []

    def derive(self, columns: Mapping[str, Array]) -> Mapping[str, Array]:
        """Return `reward`, on the judge's scale: the expectations, or what was drawn where one is lacking.

        The two are different scales: where a row has no expectation, every row gives the number drawn.
        """
        expected = columns["expected"]
        lacking, answers = int((expected == 0).sum()), int(np.isfinite(expected).sum())
        if lacking and self.table.logprobs:
            _tell_of_numbers_drawn(self.table.model, lacking, answers)
        return {"reward": columns["sampled" if 0 < lacking < answers else "score"]}

    def request(self, conversation: Sequence[Message], text: str) -> ChatRequest:
        """Return what the judge is asked about one response."""
        options = self.table
        low, high = options.scale
        prompt = judge_prompt(conversation, text, rubric=options.rubric, scale=options.scale)
        return ChatRequest(
            (Message("user", prompt),),
            max_tokens=options.max_tokens,
            temperature=options.temperature,
            seed=options.seed,
            alternatives=ALTERNATIVES if options.logprobs else 0,
            choices=tuple(str(number) for number in range(low, high + 1)),
        )

    def _scored(self, key: bytes, outcome: Completion | Failure) -> Score | None:
        if isinstance(outcome, Completion):
            self._watch.answered()
            reading = read_answer(outcome, self.table.scale)
            if isinstance(reading, str):
                return Score(key, {}, reading)
            return Score(key, {**reading.columns(), **_usage(outcome)})
        note = self._watch.note(outcome)
        return None if note is None else Score(key, {}, note)


def _usage(answer: Completion) -> Mapping[str, float]:
    """Return the tokens of request and answer where the endpoint tells both."""
    counts = (answer.prompt_tokens, answer.tokens)
    return {} if None in counts else dict(zip(USAGE, map(float, counts), strict=True))  # type: ignore[arg-type]


@cache
def _tell_of_numbers_drawn(model: str, lacking: int, answers: int) -> None:
    """Say once, however often the columns are read, why no expectation is used."""
    logger.warning(
        "%d of %d answers of the judge '%s' came without log-probabilities: the numbers it wrote are "
        "used for all, which are coarser than expectations and tie more often",
        lacking,
        answers,
        model,
    )


class LocalJudge(LocalModel, Judge):
    """The same judge over a model run in this process: prompt, expectation and measure are the same."""

    flush: Flush = "timed"

    def __init__(self, table: JudgeReward, runtime: Runtime = _RUNTIME) -> None:
        Judge.__init__(self, table, None)
        LocalModel.__init__(self, table, runtime)

    @property
    def label(self) -> str:
        """The model's name in tables."""
        return self.located.name

    @cached_property
    def chat(self) -> ChatModel:
        """The loaded model."""
        from preceptor.engines.choices import TransformersChoices
        from preceptor.engines.loading import load_model

        device = self.runtime.resolved_device()
        model = load_model(self.located, dtype=self.dtype, device=device)
        return TransformersChoices(model, self.encoder)

    def release(self) -> None:
        """Free the model's memory; it is loaded again where it is needed again."""
        self.__dict__.pop("chat", None)

    def model_spec(self) -> Mapping[str, object]:
        """Return what bears on the scores about the model and how it is run."""
        return {
            "engine": "transformers",
            "model": dict(self.located.identity),
            "template": dict(self.template.identity()),
            "max_length": self.table.max_length,
            "dtype": self.dtype,
        }
