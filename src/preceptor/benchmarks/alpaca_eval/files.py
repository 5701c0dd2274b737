"""AlpacaEval 2's files: model outputs, the judge's annotations, and compact preferences of many models.

A verdict is known by its instruction, so nothing depends on the order of rows. What is no verdict is left out
and counted, never half a win.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from preceptor.benchmarks.alpaca_eval.score import Preferences, judged_win, win_of
from preceptor.benchmarks.cached_chat import Answer
from preceptor.benchmarks.comparisons import Comparison, Decided, Outcome
from preceptor.benchmarks.rows import ModelRows, Row, name_of, text_of
from preceptor.errors import DataError

_COMPACT = ("idx", "pref", "len_base", "len_model")


@dataclass
class _Verdicts(ModelRows):
    """One model's usable rows while a file is read."""

    wins: dict[str | int, float] = field(default_factory=dict)
    lengths: list[float] = field(default_factory=list)
    baseline_lengths: list[float] = field(default_factory=list)

    def finished(self, where: str, baseline: str | None = None) -> Preferences:
        return Preferences(
            self.model,
            tuple(self.wins),
            np.array(list(self.wins.values()), dtype=np.float64),
            np.array(self.lengths, dtype=np.float64),
            np.array(self.baseline_lengths, dtype=np.float64),
            judge=self.judge(where),
            baseline=baseline,
            dropped=dict(self.dropped),
        )

    def add(
        self, instruction: str | int, win: float, lengths: tuple[float, float], where: str
    ) -> None:
        if instruction in self.wins:
            raise DataError(
                f"{where}: '{self.model}' is judged twice on {str(instruction)[:80]!r}. "
                "Expected one verdict for each instruction: drop the repeats."
            )
        self.wins[instruction] = win
        self.lengths.append(lengths[0])
        self.baseline_lengths.append(lengths[1])


def annotated_preferences(rows: Sequence[Row], path: str) -> list[Preferences]:
    """Return the verdicts on each model of annotation rows, as the `alpaca_eval` package writes them.

    `output_1` is the baseline's answer and `output_2` the model's. Where `preference` is null it is
    formed from the judge's log-probabilities in `raw_completion`, if these are there. A row without
    an answer or a usable verdict is left out and counted.

    Raises:
        DataError: if a row has no instruction or model, one instruction is judged twice, or judges
            or baselines are mixed.
    """
    found: dict[str, _Verdicts] = {}
    baselines: set[str | None] = set()
    for place, row in enumerate(rows, start=1):
        where = f"'{path}', row {place}"
        model, instruction = text_of(row, "generator_2", where), text_of(row, "instruction", where)
        baselines.add(name_of(row, "generator_1"))
        verdicts = found.setdefault(model, _Verdicts(model))
        verdicts.judges.add(name_of(row, "annotator"))
        answers = row.get("output_2"), row.get("output_1")
        if not (isinstance(answers[0], str) and isinstance(answers[1], str)):
            verdicts.dropped["without both answers"] += 1
            continue
        win, why = _win(row, instruction)
        if win is None:
            verdicts.dropped[why] += 1
            continue
        verdicts.add(instruction, win, (len(answers[0]), len(answers[1])), where)
    if len(baselines) > 1:
        raise DataError(
            f"'{path}' mixes the baselines {', '.join(sorted(map(str, baselines)))} (generator_1): "
            "expected one."
        )
    (baseline,) = baselines
    return [verdicts.finished(f"'{path}'", baseline) for verdicts in found.values()]


def _win(row: Row, instruction: str) -> tuple[float | None, str]:
    """Return the win, or None and why there is none."""
    stored = _number(row.get("preference"))
    if stored is not None:
        return win_of(stored), "with a preference outside 1 to 2"
    logprobs = _logprobs(row.get("raw_completion"))
    return (None if logprobs is None else judged_win(instruction, logprobs)), "without a verdict"


def _number(value: object) -> float | None:
    """Return a finite number, or None for anything else; true and false are no numbers."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return float(value) if abs(value) < 1e300 else None


def _logprobs(completion: object) -> dict[str, float] | None:
    """Return the log-probabilities of the judge's first token, None where there are none."""
    try:
        top = completion["logprobs"]["content"][0]["top_logprobs"]  # type: ignore[index]
        pairs = [(entry["token"], _number(entry["logprob"])) for entry in top]
    except (TypeError, KeyError, IndexError):
        return None
    return {str(token): min(value, 0.0) for token, value in pairs if value is not None}


def decided_comparisons(rows: Sequence[Row], path: str) -> list[Decided]:
    """Return the comparisons in annotation rows that have both answers and a preference."""
    found: list[Decided] = []
    for place, row in enumerate(rows, start=1):
        answer, baseline = row.get("output_2"), row.get("output_1")
        preference = _number(row.get("preference"))
        win = None if preference is None else win_of(preference)
        if win is None or not (isinstance(answer, str) and isinstance(baseline, str)):
            continue
        where = f"'{path}', row {place}"
        question, model = text_of(row, "instruction", where), text_of(row, "generator_2", where)
        found.append((Comparison(model, question, question, answer, baseline), win))
    return found


def compact_preferences(models: Mapping[str, Row], path: str) -> list[Preferences]:
    """Return the verdicts on each model of an object of columns.

    `idx` is the position in the benchmark's list, `pref` the preference in 1..2 (0 is a tie), and
    `len_base` and `len_model` are the answers' characters. Null verdicts are left out and counted.

    Raises:
        DataError: if columns are missing or of unequal length, or a position is none or repeated.
    """
    return [_compact(model, row, f"'{path}', '{model}'") for model, row in models.items()]


def _compact(model: str, row: Row, where: str) -> Preferences:
    columns = [row.get(name) for name in _COMPACT]
    if len({len(c) if isinstance(c, list) else None for c in columns}) != 1 or columns[0] is None:
        raise DataError(f"{where}: expected the lists {', '.join(_COMPACT)}, equally long.")
    verdicts = _Verdicts(model)
    for position, *values in zip(*columns, strict=True):
        if isinstance(position, bool) or not isinstance(position, int) or position < 0:
            raise DataError(f"{where}: {position!r} in 'idx' is no position: expected 0, 1, 2, ...")
        preference, baseline_length, length = map(_number, values)
        win = None if preference is None else win_of(preference)
        if win is None:
            usual = (
                "without a verdict" if preference is None else "with a preference outside 1 to 2"
            )
            verdicts.dropped[usual] += 1
        elif length is None or baseline_length is None:
            verdicts.dropped["without both answers"] += 1
        else:
            verdicts.add(position, win, (length, baseline_length), where)
    return verdicts.finished(where)


def annotation_rows(outcomes: Sequence[Outcome], *, baseline: str, judge: str) -> list[Row]:
    """Return one row per comparison, as the `alpaca_eval` package writes them.

    `output_1` is the baseline's. `preference` is in 1..2, null without a verdict. `raw_completion` holds the
    judge's token and log-probabilities where a single order was asked: from two no single one follows.
    """
    return [
        {
            "instruction": one.comparison.question,
            "output_1": one.comparison.baseline,
            "generator_1": baseline,
            "output_2": one.comparison.answer,
            "generator_2": one.comparison.model,
            "annotator": judge,
            "preference": None if one.win is None else 1 + one.win,
            "price_per_example": None,
            "time_per_example": None,
            "raw_completion": _raw_completion(one),
        }
        for one in outcomes
    ]


def _raw_completion(outcome: Outcome) -> Row | None:
    games = [game.answer for game in outcome.games.values()]
    if len(games) != 1 or games[0] is None:
        return None
    return _as_completion(games[0])


def _as_completion(answer: Answer) -> Row:
    """Return an answer in the form of an OpenAI choice, as the package keeps it."""
    ranked = [{"token": token, "logprob": share, "bytes": None} for token, share in answer.likely]
    written = dict(answer.likely).get(answer.text, -9999.0)
    first = {"token": answer.text, "logprob": written, "bytes": None, "top_logprobs": ranked}
    return {
        "finish_reason": answer.finish_reason,
        "index": 0,
        "logprobs": {"content": [first]} if ranked else None,
        "message": {"content": answer.text, "role": "assistant"},
        "text": answer.text,
        "total_tokens": (answer.prompt_tokens or 0) + (answer.tokens or 0) or None,
    }
