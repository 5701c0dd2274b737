"""A served model that is asked by a provider's batch API, at about half the price, within a day.

Every batch is remembered in the store before it is handed over. A run that is killed, or stopped while it
waits, leaves it running at the provider; the next run finds it by its requests, and pays for nothing twice.
"""

import json
import logging
import tempfile
import time
from collections.abc import Generator, Iterable, Iterator, Sequence
from dataclasses import asdict, replace
from hashlib import blake2b

from preceptor.engines.base import ChatRequest, Completion, Failure, Finished
from preceptor.engines.chat.batch_api import BatchApi, GoneError, Progress, body_of
from preceptor.engines.chat.client import OpenAIChat
from preceptor.errors import ModelError
from preceptor.store.batches import Batch, Batches

logger = logging.getLogger(__name__)

LEAST = 10
"""Fewer requests than this are asked at once, at the full price: a batch may take a day."""

MOST_REQUESTS, MOST_BYTES = 50_000, 100 * 2**20
"""What one batch may hold; OpenAI takes as many requests, and files of 200 MB."""

_ROUNDS = 3
_FIRST_POLL_S, _LONGEST_POLL_S = 5.0, 60.0
_LONGEST_WAIT_S = 48 * 3600.0


class BatchChat:
    """Answers requests by batches; `chat` says how they are put and read, and answers single ones.

    Each request's outcome is yielded once, as in `OpenAIChat`. What fails for a reason that may pass, or is
    lost, goes into another batch, three in all.

    ModelError where the endpoint has no batch API, refuses a batch, or does not answer.
    """

    def __init__(self, chat: OpenAIChat, batches: Batches) -> None:
        self._chat, self._batches = chat, batches
        self._api = BatchApi(chat.endpoint, chat.secrets)
        self._where = str(chat.endpoint)

    def complete(self, request: ChatRequest) -> Completion | Failure:
        """Return the answer to one request, asked at once."""
        return self._chat.complete(request)

    def complete_all(self, requests: Iterable[ChatRequest]) -> Generator[Finished, None, None]:
        """Yield every request's outcome once, those of batches under way first."""
        wanted = _Wanted(requests)
        yield from self._collected(list(self._under_way(wanted)), wanted)
        if len(wanted.left) >= LEAST:
            # What the endpoint refuses of the settings is found out by one request, not by a whole batch.
            yield from self._at_once(wanted, [next(iter(wanted.left))])
        for _ in range(_ROUNDS):
            if len(wanted.left) < LEAST:
                break
            yield from self._collected(list(self._handed_over(wanted)), wanted)
        if len(wanted.left) < LEAST:
            yield from self._at_once(wanted, list(wanted.left))
        for name in list(wanted.left):
            yield from wanted.settle(name, wanted.failures.get(name, _LOST))

    def _under_way(self, wanted: "_Wanted") -> Iterator[Batch]:
        """Yield the batches that were handed over here and hold what is wanted."""
        for batch in self._batches.known():
            held = len(wanted.left.keys() & set(batch.requests))
            if held and batch.where == self._where:
                yield batch
            elif held and not batch.collected:
                logger.warning(
                    "batch %s at %s holds %d of these requests, which are asked again at %s",
                    *(batch.id, batch.where, held, self._where),
                )

    def _at_once(self, wanted: "_Wanted", names: Sequence[str]) -> Iterator[Finished]:
        for finished in self._chat.complete_all([wanted.left[name] for name in names]):
            yield from wanted.settle(names[finished.index], finished.outcome, more=finished.more)

    def _handed_over(self, wanted: "_Wanted") -> Iterator[Batch]:
        """Hand over what is wanted, in batches of a size that is taken; each is remembered before."""
        waiting = iter(list(wanted.left.items()))
        item = next(waiting, None)
        while item is not None:
            with tempfile.TemporaryFile() as lines:
                names: list[str] = []
                while item and len(names) < MOST_REQUESTS and lines.tell() < MOST_BYTES:
                    if line := self._line(*item, wanted):
                        lines.write(line)
                        names.append(item[0])
                    item = next(waiting, None)
                if not names:
                    return
                batch = Batch.of(names, where=self._where)
                file = self._api.upload(lines)
            self._batches.keep(batch)
            batch = replace(batch, id=self._api.create(file, self._chat.function, batch.token))
            self._batches.keep(batch)
            logger.warning(
                "%s: %d requests are in batch %s, which may take a day. To stop is safe: it goes on, and the "
                "same command finds it again",
                self._chat.model,
                len(names),
                batch.id,
            )
            yield batch

    def _line(self, name: str, request: ChatRequest, wanted: "_Wanted") -> bytes:
        """Return a request as a line of a file; nothing where it cannot be put, which is its failure."""
        try:
            body = self._chat.payload(request)
        except ModelError as error:
            wanted.failures[name] = Failure("refused request", str(error)[:200])
            return b""
        line = {
            "custom_id": name,
            "method": "POST",
            "url": f"/v1/{self._chat.function}",
            "body": body,
        }
        return json.dumps(line).encode("ascii") + b"\n"

    def _collected(self, batches: Sequence[Batch], wanted: "_Wanted") -> Iterator[Finished]:
        """Wait for batches, and yield what they bring of what is wanted."""
        for batch in batches:
            if not wanted.left.keys() & set(batch.requests):
                continue
            try:
                named = batch if batch.id else self._found_again(batch)
                if named is not None:
                    yield from self._outcomes(named, wanted)
                    self._batches.keep(replace(named, collected=True))
            except GoneError:
                logger.warning("batch %s is gone: what it held is asked again", batch.id)
                self._batches.drop(batch)

    def _found_again(self, batch: Batch) -> Batch | None:
        """Return a batch whose handing over was interrupted with its name; None where it never came."""
        found = self._api.find(batch.token)
        if found is None:
            self._batches.drop(batch)
            return None
        named = replace(batch, id=found)
        self._batches.keep(named)
        return named

    def _outcomes(self, batch: Batch, wanted: "_Wanted") -> Iterator[Finished]:
        assert batch.id is not None
        progress = self._awaited(batch)
        if progress.status == "failed":
            self._batches.drop(batch)
            words = progress.words or "without a word"
            raise ModelError(
                f"'{self._chat.model}': batch {batch.id} was refused ({words}), and nothing of it was paid "
                "for. Check the model's name and the limits of the account, or leave out batch_api."
            )
        own = set(batch.requests)
        for file in progress.files:
            for result in self._api.results(file):
                name = str(result.get("custom_id"))
                if name not in own or name not in wanted.left:
                    continue
                outcome = self._chat.outcome_of(*body_of(result), count=wanted.left[name].count)
                final = isinstance(outcome, Completion) or not (outcome.passes or batch.collected)
                if final:
                    yield from wanted.settle(name, outcome)
                elif isinstance(outcome, Failure):
                    wanted.failures[name] = outcome

    def _awaited(self, batch: Batch) -> Progress:
        """Return a batch's end; where the wait is interrupted, say how to come back."""
        assert batch.id is not None
        end, pause, told = time.monotonic() + _LONGEST_WAIT_S, _FIRST_POLL_S, -1
        try:
            while not (found := self._api.progress(batch.id)).finished:
                if found.done + found.failed > told:
                    told = found.done + found.failed
                    logger.info(
                        "%s: batch %s is %s, %d of %d requests are done, %d failed",
                        *(self._chat.model, batch.id, found.status),
                        *(found.done, len(batch.requests), found.failed),
                    )
                if time.monotonic() > end:
                    raise ModelError(
                        f"Batch {batch.id} is {found.status} after two days. Look at the provider's page."
                    )
                time.sleep(pause)
                pause = min(1.5 * pause, _LONGEST_POLL_S)
        except KeyboardInterrupt:
            logger.warning(
                "batch %s goes on at the provider. The same command collects it, and pays for nothing twice; "
                "to end it, cancel it there",
                batch.id,
            )
            raise
        return found


_LOST = Failure("timed out", "no batch brought an answer")


class _Wanted:
    """Requests that have no outcome yet, by an id made of their content; equal ones are asked once."""

    def __init__(self, requests: Iterable[ChatRequest]) -> None:
        self.left: dict[str, ChatRequest] = {}
        self.failures: dict[str, Failure] = {}
        self._places: dict[str, list[int]] = {}
        for place, request in enumerate(requests):
            name = _id_of(request)
            self.left[name] = request
            self._places.setdefault(name, []).append(place)

    def settle(
        self, name: str, outcome: Completion | Failure, *, more: bool = True
    ) -> Iterator[Finished]:
        """Yield the outcome for every request of this id, which is wanted no longer.

        Those of a batch may be stored together: what was not stored is collected from it again.
        """
        del self.left[name]
        yield from (Finished(place, outcome, more) for place in self._places[name])


def _id_of(request: ChatRequest) -> str:
    """Return 32 characters that follow from all that is asked: another run finds the request by them."""
    spec = asdict(request) | {"messages": [turn.parts for turn in request.messages]}
    if not request.tools:
        del spec["tools"]
    asked = json.dumps(spec, sort_keys=True)
    return blake2b(asked.encode(), digest_size=16).hexdigest()
