"""The instructions on which the teachers differ most, with all their answers side by side.

What is shown is chosen by numbers alone; only then are the texts of those few instructions read, in one pass
over the data. Of a student only the tokenizer is loaded, to cut a text as it was scored.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from preceptor.data.selection import Selection
from preceptor.engines.reasoning import parts_of
from preceptor.pipeline.columns import ColumnMeasures
from preceptor.pipeline.outcome import Outcome
from preceptor.ranking.bootstrap import Array
from preceptor.report.data import Answer, Example, ShownToken
from preceptor.report.distributions import FIRST, each
from preceptor.report.tokens import as_read
from preceptor.types import Instruction, Response

if TYPE_CHECKING:
    from preceptor.engines.encoder import Encoder
    from preceptor.report.compared import Compared


MOST_EXAMPLES = 60
"""Instructions that are shown."""

LONGEST_TEXT = 4_000
"""Characters of a text that are shown."""

GONE = "The text is no longer in the data."
"""Why an answer that was scored has no text."""

_COUNTED = {
    "keep": "counted with the answer",
    "cut": "not counted",
    "apart": "counted with the answer and apart",
}


@dataclass(frozen=True)
class Read:
    """A response as a student reads it: see `Answer`. `left_out` says what the template leaves out."""

    context: str = ""
    tokens: tuple[ShownToken, ...] = ()
    beyond: int = 0
    left_out: tuple[str, ...] = ()


_Reader = Callable[[Response], Read | None]


def disagreements(compared: Compared) -> Array:
    """Return how far the teachers are apart on each instruction compared, (instructions,).

    That is the standard deviation over teachers of CAR, formed of the reward and the loss of the response
    alone (the mean of its samples); of the loss where there is no CAR, else the reward, else the length. It
    is in units of the standard deviation over all teachers and instructions; 0 where nothing differs.
    """
    used = compared.used
    if compared.car is not None:
        values = compared.car(each(used, "reward"), each(used, "loss"))
    else:
        order = ("loss", *FIRST, compared.metric.needs[0])
        values = each(used, next(name for name in order if name in used.values))
    overall = float(values.std())
    apart: Array = values.std(axis=0)
    return apart / overall if overall > 0 else np.zeros_like(apart)


def examples_of(chosen: Sequence[Chosen], source: Iterable[Response]) -> list[tuple[Example, ...]]:
    """Return the examples of each selection, of which all texts are read in one pass over the source.

    An answer whose text is no longer there has none, and says so.
    """
    texts = _texts(source, [one.selection for one in chosen])
    return [one.examples(texts) for one in chosen]


def first_samples(selection: Selection, instructions: NDArray[np.intp]) -> Selection:
    """Return the first sample of every teacher for these instructions, by instruction and teacher."""
    table = selection.table
    rows = selection.rows[np.isin(table.instruction[selection.rows], instructions)]
    order = np.lexsort((table.sample[rows], table.teacher[rows], table.instruction[rows]))
    rows = rows[order]
    pairs = np.stack([table.instruction[rows], table.teacher[rows]])
    first = np.r_[True, (np.diff(pairs) != 0).any(axis=0)]
    return Selection(table, rows[first], np.sort(instructions), len(instructions))


@dataclass(frozen=True)
class Chosen:
    """The instructions to show for one ranking, with all that is shown of them but the texts.

    At most 60, the most disagreed upon first, with each teacher's first sample; `order` is that of the
    ranking. `selection` holds their rows, by instruction and by teacher as in the table; so are the `scores`
    (teachers, instructions). Those are of the sample shown, the reward before any transform, and its CAR
    where CAR was formed. `counted` says how reasoning counts.
    """

    order: tuple[str, ...]
    instructions: NDArray[np.intp]
    disagreement: Array
    selection: Selection
    scores: Mapping[str, Array]
    reader: _Reader
    counted: str

    @classmethod
    def of(cls, compared: Compared) -> Chosen:
        """Choose by the numbers compared, and read those of the responses to show."""
        apart, outcome = disagreements(compared), compared.outcome
        # Equal ones in the order of their ids, which is that of the response table.
        places = np.argsort(-apart, kind="stable")[:MOST_EXAMPLES]
        shown = compared.instructions[places]
        selection = first_samples(outcome.data.selection, shown)
        scores = _scores(outcome, selection)
        if compared.car is not None:
            scores["car"] = compared.car(scores["reward"], scores["loss"])
        counted = _COUNTED[outcome.study.reading.reasoning]
        reader = _reader(outcome, selection)
        return cls(compared.teachers, shown, apart[places], selection, scores, reader, counted)

    def examples(self, texts: Mapping[bytes, Response]) -> tuple[Example, ...]:
        """Return the examples, given the responses by their keys."""
        columns = np.searchsorted(self.selection.taken, self.instructions).tolist()
        names = self.selection.table.category_of(self.instructions)
        described = zip(columns, names, self.disagreement.tolist(), strict=True)
        return tuple(self._example(*one, texts=texts) for one in described)

    def _example(
        self, column: int, category: str | None, apart: float, *, texts: Mapping[bytes, Response]
    ) -> Example:
        teachers, keys = self.selection.table.teachers, self.selection.keys
        rows = range(column * len(teachers), (column + 1) * len(teachers))
        found = {
            name: texts.get(keys[row].tobytes()) for name, row in zip(teachers, rows, strict=True)
        }
        response = next((one for one in found.values() if one is not None), None)
        instruction = GONE if response is None else conversation(response.instruction)
        return Example(
            instruction=instruction[:LONGEST_TEXT],
            category=category,
            disagreement=apart,
            answers=tuple(self._answer(name, column, found[name]) for name in self.order),
            left_out=max(0, len(instruction) - LONGEST_TEXT),
        )

    def _answer(self, teacher: str, column: int, response: Response | None) -> Answer:
        row = self.selection.table.teachers.index(teacher)
        scores = {name: _number(values[row, column]) for name, values in self.scores.items()}
        if response is None or response.text is None:
            return Answer(teacher, None, scores, note=GONE)
        text = response.text[:LONGEST_TEXT]
        read, parts = self.reader(response), parts_of(response.text)
        notes = [f"Slanted: the reasoning, {self.counted}."] if parts.trace else []
        trace = min(len(text), len("".join(parts[:3]))) if parts.trace else 0
        beyond = len(response.text) - len(text)
        if read is not None:
            notes = [*(notes if any(one.role == "reasoning" for one in read.tokens) else ())]
            return Answer(
                *(teacher, text, scores, read.tokens, read.beyond),
                note=" ".join([*notes, *read.left_out]) or None,
                context=read.context,
            )
        return Answer(teacher, text, scores, (), beyond, " ".join(notes) or None, trace)


def conversation(instruction: Instruction) -> str:
    """Return the text of a single turn; of a longer conversation every turn after its role."""
    if len(instruction.messages) == 1:
        return instruction.text
    return "\n\n".join(f"{message.role}: {message.text}" for message in instruction.messages)


def _texts(source: Iterable[Response], selections: Sequence[Selection]) -> dict[bytes, Response]:
    """Return the responses of these choices by key; equal texts of two teachers are one."""
    instructions = {
        one
        for selection in selections
        for one in selection.table.instructions[selection.taken].tolist()
    }
    waiting = {key for selection in selections for key in selection.keys.tolist()}
    found: dict[bytes, Response] = {}
    for response in source:
        if response.instruction.id in instructions and response.key in waiting:
            found[response.key] = response
            waiting.discard(response.key)
            if not waiting:
                break
    return found


def _scores(outcome: Outcome, selection: Selection) -> dict[str, Array]:
    """Return every measure of the selection's responses, (teachers, instructions)."""
    kinds = [metric.kind for metric in outcome.plan.metrics]
    steps = [replace(step, selection=selection) for step in outcome.steps]
    measurements = ColumnMeasures(selection, outcome.study, kinds).measurements(
        [step.scorer for step in steps], [step.stored() for step in steps]
    )
    below = measurements.denominators
    return {
        name: values / below[name] if name in below else values
        for name, values in measurements.values.items()
    }


def _reader(outcome: Outcome, selection: Selection) -> _Reader:
    """Return what reads a response as the student does, with the numbers of its tokens as they are stored."""
    for step in outcome.steps:
        model = step.scorer.token_model
        if model is not None:
            losses, ranks = (
                step.partition.lists(selection.keys, name) for name in ("token_nll", "token_rank")
            )
            # The tokenizer is loaded for nothing where no numbers of tokens are stored.
            return lambda response: (
                _read(model.encoder, response, losses[response.key], ranks.get(response.key, ()))
                if response.key in losses
                else None
            )
    return lambda response: None


def _read(
    encoder: Encoder, response: Response, losses: Iterable[float], ranks: Iterable[float]
) -> Read | None:
    """Return the response as it was read, its texts cut to what is shown; None where nothing can say."""
    if not encoder.tokenizer.is_fast:
        return None
    context, answer, left_out = as_read(encoder, response, losses, ranks)
    before = "".join(token.text for token in context)
    tokens = whole_characters(answer)
    ends = np.cumsum([len(token.text) for token in tokens], dtype=int)
    shown = int(np.searchsorted(ends, LONGEST_TEXT, side="right"))
    return Read(
        "… " * (len(before) > LONGEST_TEXT) + before[-LONGEST_TEXT:],
        tuple(tokens[:shown]),
        sum(len(token.text) for token in tokens[shown:]),
        tuple(
            f"Left out by the chat template: {what} of turn {place + 1}."
            for place, what in left_out
        ),
    )


def whole_characters(tokens: Iterable[ShownToken]) -> list[ShownToken]:
    """Return the tokens that stand for some text, each with the loss of those after it that stand for none.

    Several tokens may spell one character: it has the sum of their losses and the worst of their ranks. What
    stands before the first text is the first's.
    """
    found: list[ShownToken] = []
    for token in tokens:
        last = found[-1] if found else None
        if last is None or (token.text and last.text):
            found.append(token)
            continue
        losses = [one.loss for one in (last, token) if one.loss is not None]
        ranks = [one.rank for one in (last, token) if one.rank is not None]
        found[-1] = replace(
            token if token.text else last,
            text=last.text or token.text,
            loss=sum(losses) if losses else None,
            rank=max(ranks, default=None),
        )
    return found


def _number(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None
