"""The examples of a page as compact JSON, within a budget of bytes.

A text is written once per page, however many rankings show it, and answers point to it by its place. The
page's script puts one example at a time into the document, as text and never as markup.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby

from preceptor.report.data import Answer, Example, RankingData
from preceptor.report.wording import island

BUDGET = 6_000_000
"""Bytes that all examples of a page may take: with its charts a ranking then stays under eight megabytes."""


@dataclass(frozen=True)
class Examples:
    """What one ranking's explorer needs. `data` is JSON of `shown` examples of `of` instructions.

    `read` tells whether some response has its tokens.
    """

    data: str
    shown: int
    of: int
    categories: tuple[str, ...]
    read: bool


class Texts:
    """Texts by place, each kept once."""

    def __init__(self) -> None:
        self._places: dict[str, int] = {}

    def place(self, text: str | None) -> int | None:
        """Return the place of a text, None for none."""
        return None if text is None else self._places.setdefault(text, len(self._places))

    def holds(self, text: str | None) -> bool:
        """Return whether the text is there already, or is none."""
        return text is None or text in self._places

    def data(self) -> str:
        """Return all texts as a JSON list."""
        return island(list(self._places))


def explorers(
    ranked: Sequence[RankingData], *, budget: int = BUDGET
) -> tuple[tuple[Examples, ...], Texts]:
    """Return each ranking's examples, most disagreed upon first, and the texts that they point to.

    Rankings share the budget equally; where it is spent, further examples are left out, and `shown` tells.
    """
    texts = Texts()
    share = budget // max(1, len(ranked))
    return tuple(_examples(one, texts, share) for one in ranked), texts


def _examples(ranked: RankingData, texts: Texts, budget: int) -> Examples:
    teachers = [result.teacher for result in ranked.ranking.teachers]
    measures = _measures(ranked)
    kept: list[object] = []
    left = budget
    for example in ranked.examples:
        left -= _new_bytes(example, texts)
        if left < 0 and kept:
            break
        kept.append(_record(example, texts, teachers, measures))
    found = [example.category for example in ranked.examples[: len(kept)]]
    data = {"teachers": teachers, "measures": measures, "examples": kept}
    return Examples(
        data=island(data),
        shown=len(kept),
        of=max(ranked.examples_of, len(ranked.examples)),
        categories=tuple(sorted({name for name in found if name})),
        read=any(one.tokens for example in ranked.examples for one in example.answers),
    )


def _measures(ranked: RankingData) -> list[str]:
    names = [
        name for example in ranked.examples for answer in example.answers for name in answer.scores
    ]
    return list(dict.fromkeys(names))


def _new_bytes(example: Example, texts: Texts) -> int:
    """Return about how many bytes the example adds: its new texts, and eight a token."""
    new: list[str | None] = [example.instruction]
    for answer in example.answers:
        new += [answer.text, answer.context, _read(answer)]
    fresh = {text for text in new if text is not None and not texts.holds(text)}
    tokens = sum(len(answer.tokens) for answer in example.answers)
    return sum(len(island(text).encode()) for text in fresh) + 8 * tokens


def _record(
    example: Example, texts: Texts, teachers: Sequence[str], measures: Sequence[str]
) -> dict[str, object]:
    return {
        "instruction": texts.place(example.instruction),
        "category": example.category,
        "disagreement": _rounded(example.disagreement),
        # RankingData that cuts instructions too says how much; without that field none was cut.
        "left_out": example.left_out,
        "answers": [
            _answer(answer, texts, teachers.index(answer.teacher), measures)
            for answer in example.answers
            if answer.teacher in teachers
        ],
    }


def _answer(
    answer: Answer, texts: Texts, teacher: int, measures: Sequence[str]
) -> dict[str, object]:
    """Return an answer's record: token lengths in UTF-16 units, which scripts count in; tenths of nats."""
    record: dict[str, object] = {
        "teacher": teacher,
        "text": texts.place(answer.text),
        "scores": [_rounded(answer.scores.get(name)) for name in measures],
    }
    if answer.note:
        record["note"] = answer.note
    if answer.left_out:
        record["left_out"] = answer.left_out
    if answer.trace and answer.text is not None:
        record["trace"] = _units(answer.text[: answer.trace])
    if answer.tokens and answer.text is not None:
        record |= {
            "context": texts.place(answer.context),
            "read": texts.place(_read(answer)),
            "lengths": [_units(token.text) for token in answer.tokens],
            "nll": [_tenths(token.loss) for token in answer.tokens],
            "ranks": [token.rank for token in answer.tokens],
            "roles": [
                [role, len(list(run))] for role, run in groupby(one.role for one in answer.tokens)
            ],
        }
    return record


def _read(answer: Answer) -> str:
    """Return the response as the student's chat template writes it."""
    return "".join(token.text for token in answer.tokens)


def _tenths(nats: float | None) -> int | None:
    return None if nats is None or not math.isfinite(nats) else round(10 * nats)


def _units(piece: str) -> int:
    return len(piece) + sum(character > "\uffff" for character in piece)


def _rounded(value: float | None) -> float | None:
    return None if value is None or not math.isfinite(value) else float(f"{value:.4g}")
