"""The tokens of one response as a student reads them: what is context, what counts, what is left out."""

import math
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from itertools import islice, zip_longest

from rich.text import Text

from preceptor.config.runtime import Runtime
from preceptor.config.study import Study
from preceptor.engines.encoder import Encoder, Token
from preceptor.engines.marked import ANSWER, CONTEXT, REASONING
from preceptor.errors import DataError, StudyError
from preceptor.pipeline.sources import source_of
from preceptor.ranking.table import printable
from preceptor.report.data import Role, ShownToken
from preceptor.scorers.likelihood import LikelihoodScorer, StudentModel
from preceptor.store.store import Store
from preceptor.types import Response

_ROLES: dict[int, Role] = {CONTEXT: "context", ANSWER: "answer", REASONING: "reasoning"}
_STYLES: dict[Role, str] = {
    "context": "dim",
    "answer": "green",
    "reasoning": "cyan",
    "cut": "red strike",
}
_BRACKETS: dict[Role, str] = {"context": "", "answer": "[]", "reasoning": "{}", "cut": "()"}
_LEGEND = {
    "context": "context, not counted",
    "answer": "answer, counted",
    "reasoning": "reasoning, counted",
    "cut": "cut at the maximum length, not counted",
}


@dataclass(frozen=True)
class RowTokens:
    """A response's tokens under a student, with `left_out`: what its template leaves out of which turn."""

    row: int
    teacher: str
    student: str
    tokens: tuple[ShownToken, ...]
    left_out: tuple[tuple[int, str], ...]

    def to_dict(self) -> dict[str, object]:
        """Return it as plain data."""
        return asdict(self)

    def counts(self) -> dict[Role, int]:
        """Return how many tokens have each role."""
        roles = [token.role for token in self.tokens]
        return {role: roles.count(role) for role in _BRACKETS}

    def lines(self) -> Iterator[Text]:
        """Yield the rendered conversation in colours and brackets, and a legend."""
        found = Text()
        before: Role = "context"
        for token in self.tokens:
            if token.role != before:
                found.append(_BRACKETS[before][1:], style="bold")
                found.append(_BRACKETS[token.role][:1], style="bold")
            found.append(_shown(token.text), style=_STYLES[token.role])
            before = token.role
        found.append(_BRACKETS[before][1:], style="bold")
        yield found
        yield Text()
        for role, count in self.counts().items():
            if count:
                signs = f"{_BRACKETS[role]} ".lstrip()
                yield Text(f"{signs}{_LEGEND[role]}: {count:,} tokens", style=_STYLES[role])
        for place, what in self.left_out:
            yield Text(f"left out by the chat template: {what} of turn {place + 1}", style="yellow")

    def table(self) -> Iterator[str]:
        """Yield a line for each token with a stored loss: role, loss, rank, text."""
        stored = [token for token in self.tokens if token.loss is not None]
        if stored:
            yield f"{'role':<10}{'loss':>8}{'rank':>6}  token"
        for token in stored:
            rank = "" if token.rank is None else str(token.rank)
            yield f"{token.role:<10}{token.loss:>8.3f}{rank:>6}  {printable(token.text)!r}"


def tokens_of(study: Study, runtime: Runtime, row: int) -> RowTokens:
    """Return the tokens of the response at a row, counted from 1 as responses are read.

    Nothing is computed: losses are there where they were stored (`keep_tokens`).

    Raises:
        StudyError: there is not one student.
        DataError: there is no such row, or it holds no response.
        ModelError: the template refuses it, or the model is not found.
    """
    if len(study.students) != 1:
        raise StudyError(f"Tokens are shown for one student, {len(study.students)} are given.")
    response = _row(source_of(study, runtime), row)
    model = StudentModel(study.students[0], runtime, reading=study.reading)
    stored = Store(runtime.store).scores(LikelihoodScorer(model).identity())
    losses, ranks = (
        stored.lists([response.key], name).get(response.key, ())
        for name in ("token_nll", "token_rank")
    )
    context, answer, left_out = as_read(model.encoder, response, losses, ranks)
    return RowTokens(row, response.teacher, study.students[0].name, (*context, *answer), left_out)


def as_read(
    encoder: Encoder, response: Response, losses: Iterable[float], ranks: Iterable[float]
) -> tuple[list[ShownToken], list[ShownToken], tuple[tuple[int, str], ...]]:
    """Return the context and the response as a student reads them, and what its template leaves out.

    Losses and ranks are those of the response's tokens, from the first; there may be fewer.

    Raises:
        ModelError: the template refuses the conversation.
    """
    asked = response.instruction
    given = (asked.messages, response.text or "")
    prompt, answer = encoder.tokens(*given, tools=asked.tools, calls=response.tool_calls)
    pair = encoder.encode(*given, tools=asked.tools, calls=response.tool_calls)
    numbered = zip_longest(answer, losses, ranks)
    return (
        [ShownToken(one.id, one.text, "context") for one in prompt],
        [
            _answered(token, loss, rank, cut=place >= len(pair.response))
            for place, (token, loss, rank) in enumerate(numbered)
            if token is not None
        ],
        pair.left_out,
    )


def _row(source: Iterable[Response], row: int) -> Response:
    found = next(islice(source, row - 1, None), None)
    if found is None:
        raise DataError(f"There is no response {row}: give a smaller --row.")
    if found.text is None:
        raise DataError(f"Row {row} holds no response: {found.missing or 'no output'}.")
    return found


def _answered(token: Token, loss: float | None, rank: float | None, *, cut: bool) -> ShownToken:
    role: Role = "cut" if cut else _ROLES[token.group]
    return ShownToken(
        token.id,
        token.text,
        role,
        _known(loss),
        None if (place := _known(rank)) is None else int(place),
    )


def _known(number: float | None) -> float | None:
    """Return a stored number; None where there is none, as for tokens that are not counted."""
    return None if number is None or math.isnan(number) else float(number)


def _shown(text: str) -> str:
    """Return a text in which nothing but line feeds can drive a terminal."""
    return "\n".join(map(printable, text.split("\n")))
