"""Find out whether an endpoint that is to give samples gives different ones, and the same ones again.

Many endpoints take a seed or a count and silently do nothing with it. Four short requests find that out
before hundreds of samples are paid for that are copies of one another or cannot be made again.
"""

from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import Literal, TypeAlias

from preceptor.engines.base import ChatModel, ChatRequest, Completion, Failure
from preceptor.types import Message

SeedFinding: TypeAlias = Literal["honoured", "ignored", "no effect", "unknown"]
CountFinding: TypeAlias = Literal["honoured", "ignored", "copies", "not asked", "unknown"]

# Random words: a model that writes the same story every time still draws these differently.
_PROMPT = (
    Message("user", "Write a list of random words that have nothing to do with each other."),
)
_MAX_TOKENS = 24
_SEED, _OTHER_SEED = 1234, 98765


@dataclass(frozen=True)
class SamplingCheck:
    """What an endpoint does with a seed and with a count of answers.

    `seed` is "honoured" where the same seed gave the same answer and another seed another; "ignored" where
    the same seed gave two answers; "no effect" where two seeds gave one answer; "unknown" where requests
    failed or the answers were empty. `count` is "ignored" where fewer answers than `asked` came back,
    "copies" where all were alike. `received` is how many came, None where none was asked for or the request
    failed. `why` says why something is unknown.
    """

    seed: SeedFinding
    count: CountFinding = "not asked"
    asked: int = 1
    received: int | None = None
    why: str | None = None

    def findings(self) -> list[str]:
        """Return a sentence for people on each finding that is not as hoped; none where all is well."""
        return [text for text in (self._of_seed(), self._of_count()) if text is not None]

    def _of_seed(self) -> str | None:
        if self.seed == "ignored":
            return (
                "The same seed gave two different answers: samples differ, so that the best of several is "
                "a real choice, but none can be made again; keep the stored answers, for another run "
                "will not repeat them."
            )
        if self.seed == "no effect":
            return (
                "Two different seeds gave the same answer at temperature 1: every further sample would be "
                "a copy and the best of several no choice at all; ask for one answer each, or look for "
                "a cache or a fixed temperature in the server's settings."
            )
        if self.seed == "unknown":
            return (
                f"Whether the endpoint heeds the seed is unknown ({self.why}): whether samples differ and "
                "can be made again will only show in the answers; check again before paying for many."
            )
        return None

    def _of_count(self) -> str | None:
        if self.count == "ignored":
            return (
                f"Asked for {self.asked} answers at once, the endpoint gave {self.received}: the others "
                "must be asked for one by one, each with a seed of its own, and the prompt is paid for "
                "every time."
            )
        if self.count == "copies":
            return (
                f"The {self.received} answers to one request were all alike: the best of them is no choice "
                "at all; ask for each in a request of its own, each with a seed of its own."
            )
        if self.count == "unknown":
            return (
                f"Whether the endpoint gives {self.asked} answers at once is unknown ({self.why}): ask for "
                "each in a request of its own, each with a seed of its own."
            )
        return None


def check_sampling(chat: ChatModel, *, count: int = 1) -> SamplingCheck:
    """Ask at temperature 1 with one seed twice and with another, and for `count` answers at once if above 1.

    They are asked side by side as far as the engine does that, as samples are: an endpoint of which the
    answers depend on what else it is working on does not honour its seeds.
    """
    seeds = [_SEED, _SEED, _OTHER_SEED]
    requests = [_request(seed) for seed in seeds]
    if count > 1:
        requests.append(_request(_SEED, count=count))
    outcomes: dict[int, Completion | Failure] = {}
    with closing(chat.complete_all(requests)) as finished:
        for one in finished:
            outcomes[one.index] = one.outcome
    asked = [outcomes[index] for index in range(len(seeds))]
    several = outcomes.get(len(seeds))
    seed, number = _seed_finding(asked), _count_finding(several, count)
    return SamplingCheck(
        seed,
        number,
        asked=count,
        received=1 + len(several.others) if isinstance(several, Completion) else None,
        why=_why_unknown(outcomes) if "unknown" in (seed, number) else None,
    )


def _request(seed: int, *, count: int = 1) -> ChatRequest:
    return ChatRequest(_PROMPT, max_tokens=_MAX_TOKENS, temperature=1.0, seed=seed, count=count)


def _seed_finding(outcomes: Sequence[Completion | Failure]) -> SeedFinding:
    texts = [one.text for one in outcomes if isinstance(one, Completion)]
    if len(texts) < len(outcomes) or not any(texts):
        return "unknown"
    first, again, other = texts
    if first != again:
        return "ignored"
    return "honoured" if first != other else "no effect"


def _count_finding(outcome: Completion | Failure | None, count: int) -> CountFinding:
    if outcome is None:
        return "not asked"
    if isinstance(outcome, Failure):
        return "unknown"
    texts = [outcome.text, *(other.text for other in outcome.others)]
    if len(texts) < count:
        return "ignored"
    if not any(texts):
        return "unknown"
    return "honoured" if len(set(texts)) > 1 else "copies"


def _why_unknown(outcomes: Mapping[int, Completion | Failure]) -> str:
    """Return the first failure in words, or that answers were empty, as a thinking model's may be."""
    for _, outcome in sorted(outcomes.items()):
        if isinstance(outcome, Failure):
            return f"{outcome.kind}: {outcome.detail}" if outcome.detail else outcome.kind
    return f"answers within {_MAX_TOKENS} tokens were empty"
