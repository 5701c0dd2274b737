"""Rewards from reward models: one number for a conversation, higher for a better response.

Any `AutoModelForSequenceClassification` with one label is one. The conversation goes through the model's own
chat template to ids, with exactly one beginning token, and is scored at its last token. A Bradley-Terry
reward is defined up to a constant only: see the reward transforms before dividing by it.
"""

import logging
import math
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING

from preceptor.config.reward_models import repository_of
from preceptor.config.rewards import RewardModelTable
from preceptor.config.runtime import Runtime
from preceptor.engines.base import TokenizedPair
from preceptor.engines.encoder import EncodedPair, Encoder
from preceptor.engines.loading import load_reward_model, load_tokenizer
from preceptor.engines.local import LocalModel
from preceptor.engines.models import LocatedModel, locate, padding_of
from preceptor.engines.pair_encoder import PairEncoder
from preceptor.engines.templates import ChatTemplate, choose_template, pair_template
from preceptor.errors import ModelError
from preceptor.scorers.base import Array, Scorer
from preceptor.store.identity import Identity, folder_digest
from preceptor.types import Message, NoteKind, Response, Score

if TYPE_CHECKING:
    from preceptor.engines.packed.reward import TransformersReward
    from preceptor.engines.served_reward import ServedReward

logger = logging.getLogger(__name__)

_RUNTIME = Runtime()
_SANITY_PROMPT = (Message("user", "What is the capital of France?"),)
_SANITY_ANSWERS = ("The capital of France is Paris.", "Bananas bananas of of the the 7 7 7.")


class RewardModel(LocalModel, Scorer):
    """The scorer that asks a reward model; `runtime` says where, and what the data type `auto` means."""

    columns = ("score", "tokens", "truncated")
    measures = ("reward",)
    reads_answer = True

    def __init__(self, table: RewardModelTable, runtime: Runtime = _RUNTIME) -> None:
        super().__init__(table, runtime)
        self.table = table

    @property
    def served(self) -> bool:  # type: ignore[override]
        """Whether a server runs it."""
        return self.table.engine == "served"

    @property
    def runs(self) -> str:
        """The reward model."""
        return self.table.model

    @property
    def name(self) -> str:
        """What it does, for progress and plans."""
        return f"reward by {self.located.name}"

    @cached_property
    def located(self) -> LocatedModel:
        """Where the model lies, and its identity."""
        return locate(repository_of(self.table.model), revision=self.table.revision)

    @cached_property
    def template(self) -> ChatTemplate:
        """The chat template of its conversations; `pair` for an encoder that reads two segments."""
        found = pair_template(self.table.chat_template, self.located.folder)
        return found or choose_template(self.table.chat_template, self.located.folder)

    @cached_property
    def encoder(self) -> Encoder:
        """The tokenizer under the template."""
        if self.template.name != "pair":
            return super().encoder
        tokenizer = load_tokenizer(self.located)
        return PairEncoder(tokenizer, self.template, max_length=self.max_length)

    def preflight(self) -> None:
        """Check libraries, and that something says where a served model is; PreceptorError otherwise."""
        super().preflight()
        if self.served:
            self._server()

    @cached_property
    def engine(self) -> "TransformersReward | ServedReward":
        """The loaded model, after a look at whether it prefers an answer to nonsense."""
        engine = self._served() if self.table.engine == "served" else self._loaded()
        self._compare_sanity_pair(engine)
        return engine

    def _server(self) -> "ServedReward":
        from preceptor.engines.served_reward import ServedReward

        return ServedReward(
            self.runtime.endpoint(self.table.model),
            self.table.model,
            padding=None if self.template.name == "pair" else padding_of(self.located),
            longest=self.max_length,
        )

    def _served(self) -> "ServedReward":
        if isinstance(self.encoder, PairEncoder) and self.encoder.typed:
            raise ModelError(
                f"'{self.located.name}' reads prompt and response as two segments and must be told of each "
                "token which of them it is of, which a server cannot be. Run it here (engine = "
                "'transformers'), or give a template for one text, such as chat_template = 'plain'."
            )
        engine = self._server()
        engine.require_scores(self._sanity_pairs())
        return engine

    def _loaded(self) -> "TransformersReward":
        from preceptor.engines.packed.reward import TransformersReward

        if self.table.trust_remote_code and self._code_of_now() != self._code:
            raise ModelError(
                f"The code of '{self.located.name}' changed since it was found. Read it, and run again."
            )
        model = load_reward_model(
            self.located,
            dtype=self.dtype,
            device=self.runtime.resolved_device(),
            trust_remote_code=self.table.trust_remote_code,
        )
        pairs = self.encoder if isinstance(self.encoder, PairEncoder) else None
        if pairs is not None and self.table.chat_template == "auto":
            logger.warning(
                "%s reads prompt and response as two segments (chat_template = 'pair'): it has no chat "
                "template and its tokenizer marks segments. Give a template, such as 'plain', for one text.",
                self.located.name,
            )
        typed = pairs is not None and pairs.typed
        return TransformersReward(model, self.runtime, packed=pairs is None, typed=typed)

    def _sanity_pairs(self) -> list[TokenizedPair]:
        """Return the ids of a right answer and of nonsense."""
        encoded = [self.encoder.encode_conversation(_SANITY_PROMPT, a) for a in _SANITY_ANSWERS]
        return [TokenizedPair(one.prompt, one.response) for one in encoded]

    def _compare_sanity_pair(self, engine: "TransformersReward | ServedReward") -> None:
        pairs = self._sanity_pairs()
        scores = {found.index: found.score for batch in engine.score(pairs) for found in batch}
        if len(scores) == len(pairs) and not scores[0] > scores[1]:
            logger.warning(
                "%s scores nonsense (%.3g) no lower than a right answer (%.3g): is it a reward model, "
                "and is '%s' its chat template?",
                self.located.name,
                scores[1],
                scores[0],
                self.template.name,
            )

    def identity(self) -> Identity:
        """Return the identity of model, template and reading."""
        spec: dict[str, object] = {
            "scorer": "reward_model",
            "model": dict(self.located.identity),
            "template": dict(self.template.identity()),
            "max_length": self.max_length,
            "dtype": self.dtype,
            "engine": self.table.engine,
        }
        if self.served:
            spec["read_at"] = "last token that is not padding"
        if self.table.trust_remote_code:
            spec["remote_code"] = self._code
        return Identity.of(spec)

    @cached_property
    def _code(self) -> str:
        return self._code_of_now()

    def _code_of_now(self) -> str:
        """Return the digest of a folder's code; on the Hub a commit covers it."""
        local = self.located.revision is None and any(self.located.folder.glob("*.py"))
        return folder_digest(self.located.folder, ("*.py",)) if local else "own"

    def score(self, responses: Sequence[Response]) -> Iterator[Sequence[Score]]:
        """Yield scores a batch at a time; what cannot be scored gets a note that says why."""
        unusable: list[Score] = []
        kept: list[tuple[bytes, EncodedPair]] = []
        for response in responses:
            encoded = self._encoded(response)
            if isinstance(encoded, str):
                unusable.append(Score(response.key, {}, encoded))
            else:
                kept.append((response.key, encoded))
        if unusable:
            yield unusable
        if kept:
            pairs = [TokenizedPair(encoded.prompt, encoded.response) for _, encoded in kept]
            for batch in self.engine.score(pairs):
                yield [_score(*kept[found.index], found.score, found.note) for found in batch]

    def _encoded(self, response: Response) -> EncodedPair | str:
        """Return the conversation's ids, or why there are none."""
        encoder = self.encoder  # a tokenizer that cannot be loaded is no fault of the row
        try:
            asked = response.instruction
            encoded = encoder.encode_conversation(
                asked.messages, response.text or "", tools=asked.tools
            )
        except ModelError as error:
            return str(error)
        return (
            encoded
            if encoded.response
            else NoteKind.NO_ROOM.note("for the response in the reward model")
        )

    def release(self) -> None:
        """Free the model's memory; it is loaded again where it is needed again."""
        self.__dict__.pop("engine", None)

    def derive(self, columns: Mapping[str, Array]) -> Mapping[str, Array]:
        """Return the reward: the model's score as it is."""
        return {"reward": columns["score"]}


def _score(key: bytes, encoded: EncodedPair, score: float, note: str) -> Score:
    if note or not math.isfinite(score):
        return Score(key, {}, note or NoteKind.NON_FINITE.note("reward"))
    tokens = len(encoded.prompt) + len(encoded.response)
    values = {"score": score, "tokens": tokens, "truncated": encoded.truncated}
    return Score(key, {name: float(value) for name, value in values.items()})
