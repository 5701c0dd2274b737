"""Ask a chat model only what it has not answered yet, and store each answer as it comes.

A request is known by its whole conversation, so by the prompt, the question, both answers and their order.
The answer is kept whole, and verdicts are read from what is kept. A request without an answer is a typed
failure: it is never stored, and the next run asks it again.
"""

import json
import logging
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from typing import NamedTuple

from preceptor.engines.base import ChatModel, ChatRequest, Completion, Failure
from preceptor.engines.chat.watch import Watch
from preceptor.engines.cl100k import count_tokens
from preceptor.errors import counted
from preceptor.store.identity import Identity
from preceptor.store.sharing import SharedRows
from preceptor.store.store import ResponsePartition, Store
from preceptor.store.writer import StoreWriter
from preceptor.types import Flush, Generation, Instruction, generation_key

logger = logging.getLogger(__name__)

OnProgress = Callable[[int, int], None]
"""Called with how many requests are done, and of how many."""

NO_LOG_PROBABILITIES = Failure("unreadable answer", "it returns no log-probabilities")
"""What an answer without the log-probabilities that were asked for is: it is not the answer, so not kept."""


@dataclass(frozen=True)
class Answer:
    """What a model answered: its text, and the likeliest first tokens with their log-probabilities.

    `likely` is empty where the engine reports none. Token counts are None where it does not say.
    """

    text: str
    finish_reason: str | None = None
    likely: tuple[tuple[str, float], ...] = ()
    tokens: int | None = None
    prompt_tokens: int | None = None


class Cost(NamedTuple):
    """What a judge would take: requests to send, those already stored, and tokens.

    `prompt_tokens` are counted with OpenAI's cl100k, so another model's differ somewhat;
    `answer_tokens` is the most that may be written. `price` is at most the money, None without prices.
    """

    requests: int
    stored: int
    prompt_tokens: int
    answer_tokens: int
    price: float | None

    def __str__(self) -> str:
        text = f"{counted(self.requests, 'request')}, {self.stored:,} stored"
        if self.prompt_tokens:
            text += f"; about {self.prompt_tokens:,} prompt tokens and at most {self.answer_tokens:,} written"
        return text + ("." if self.price is None else f", at most {self.price:,.2f} USD.")


class CachedChat:
    """Asks `chat()` what the partition of this identity lacks.

    `chat` is called when something must be asked, so that a model is loaded for nothing only then. `who`
    begins sentences and `where` says where it is asked. `flush` says when answers are stored.
    """

    def __init__(
        self,
        chat: Callable[[ResponsePartition], ChatModel],
        identity: Identity,
        *,
        who: str,
        where: object,
        flush: Flush,
    ) -> None:
        self._chat, self.identity = chat, identity
        self._who, self._where = who, where
        self._flush: Flush = flush

    def stored(self, requests: Sequence[ChatRequest], store: Store) -> dict[bytes, Answer]:
        """Return the stored answers to these requests, by the id of the conversation."""
        wanted = {generation_key(conversation_id(request), 0) for request in requests}
        partition = store.responses(self.identity)
        return {kept.instruction: _read(kept) for kept in partition.each(wanted)}

    def cost(
        self,
        requests: Sequence[ChatRequest],
        store: Store,
        prices: tuple[float | None, float | None] = (None, None),
    ) -> Cost:
        """Return what it would take to have all answers; `prices` are for a million tokens in and out."""
        known = self.stored(requests, store)
        lacking = [one for key, one in _by_id(requests).items() if key not in known]
        texts = [message.content for request in lacking for message in request.messages]
        prompt = sum(map(count_tokens, texts))
        most = sum(request.max_tokens for request in lacking)
        price_in, price_out = prices
        price = None
        if price_in is not None and price_out is not None:
            price = (prompt * price_in + most * price_out) / 1e6
        return Cost(len(lacking), len(known), prompt, most, price)

    def complete(
        self, requests: Sequence[ChatRequest], store: Store, progress: OnProgress | None = None
    ) -> list[Answer | Failure]:
        """Return an answer or a failure for each request, in order; equal requests are asked once.

        Raises:
            ModelError: the model is down, or refuses every request; what was answered is stored.
        """
        different = _by_id(requests)
        found: dict[bytes, Answer | Failure] = dict(self.stored(requests, store))
        lacking = {key: one for key, one in different.items() if key not in found}
        done = 0

        def advance(keys: Sequence[bytes]) -> None:
            nonlocal done
            done += len(keys)
            if progress is not None:
                progress(done, len(different))

        advance(list(found))
        for key, outcome in self._outcomes(lacking, store, advance):
            found[key] = outcome
            advance([key])
        if elsewhere := [one for key, one in different.items() if key not in found]:
            found |= self.stored(elsewhere, store)  # another process asked meanwhile
        return [found[conversation_id(request)] for request in requests]

    def _outcomes(
        self,
        lacking: dict[bytes, ChatRequest],
        store: Store,
        elsewhere: Callable[[Sequence[bytes]], None],
    ) -> Iterator[tuple[bytes, Answer | Failure]]:
        if not lacking:
            return
        partition = store.responses(self.identity)
        chat = self._chat(partition)
        short = _short(next(iter(lacking.values())))
        watch = Watch(self._who, self._where, lambda: chat.complete(short))
        seen: set[str] = set()
        shared = SharedRows(
            partition.claims(),
            {key: [key] for key in lacking},
            lambda key: generation_key(key, 0),
            lambda: partition.keys(seen).tolist(),
            elsewhere,
        )
        kept = StoreWriter(partition, self._flush, lambda rows: shared.stored(r.key for r in rows))
        with shared, kept as writer:
            while shared.more():
                for key, outcome, more in _asked(chat, lacking, shared):
                    answer = outcome if isinstance(outcome, Failure) else _answer(outcome)
                    if isinstance(answer, Failure):
                        watch.note(answer)
                    else:
                        watch.answered()
                        if lacking[key].alternatives and not answer.likely:
                            answer = NO_LOG_PROBABILITIES
                        else:
                            writer.add([_generation(key, answer)])
                    if not more:
                        writer.add([])
                    yield key, answer
                writer.flush()


def _asked(
    chat: ChatModel, requests: Mapping[bytes, ChatRequest], shared: SharedRows[bytes]
) -> Iterator[tuple[bytes, Completion | Failure, bool]]:
    """Ask what is this process's to ask; yield outcomes by the request's id, and whether more are there."""
    keys: list[bytes] = []

    def taken() -> Iterator[ChatRequest]:
        for group in shared.each():
            keys.extend(group)
            yield from (requests[key] for key in group)

    with closing(chat.complete_all(taken())) as outcomes:
        for finished in outcomes:
            yield keys[finished.index], finished.outcome, finished.more


def conversation_id(request: ChatRequest) -> bytes:
    """Return the 16 bytes under which the answer is known: the hash of the whole conversation."""
    return Instruction(request.messages).given_id


def _by_id(requests: Sequence[ChatRequest]) -> dict[bytes, ChatRequest]:
    return {conversation_id(request): request for request in requests}


def _short(like: ChatRequest) -> ChatRequest:
    """Return a short request in the same terms."""
    message = like.messages[-1]._replace(content="How many legs has a cat?")
    return replace(like, messages=(message,), choices=(), count=1)


def _answer(completion: Completion) -> Answer:
    likely = completion.positions[0].alternatives if completion.positions else ()
    return Answer(
        completion.text,
        completion.finish_reason,
        tuple((one.text, one.log_probability) for one in likely if one.log_probability > -math.inf),
        completion.tokens,
        completion.prompt_tokens,
    )


def _generation(key: bytes, answer: Answer) -> Generation:
    # The token counts stand in the text, because what a judge writes says nothing of how long teachers'
    # responses are, which is estimated from the counts of all responses in a store.
    kept = {
        "text": answer.text,
        "likely": answer.likely,
        "tokens": answer.tokens,
        "prompt_tokens": answer.prompt_tokens,
    }
    return Generation(key, 0, json.dumps(kept), answer.finish_reason)


def _read(kept: Generation) -> Answer:
    held = json.loads(kept.text or "{}")
    likely = tuple((str(text), float(share)) for text, share in held["likely"])
    return Answer(
        held["text"], kept.finish_reason, likely, held.get("tokens"), held.get("prompt_tokens")
    )
