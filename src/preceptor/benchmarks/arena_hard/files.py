"""Arena-Hard's files: judgements with two games a row, battles already expanded, and model answers.

Either way a prompt ends up with the weighted battles its model won, tied and lost. What is no verdict is left
out and counted, never half a point.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import blake2b

import numpy as np

from preceptor.benchmarks.arena_hard.score import (
    GAMES,
    MUCH_BETTER,
    V01,
    Battles,
    Edition,
    PromptBattles,
    battles_of,
)
from preceptor.benchmarks.comparisons import Outcome
from preceptor.benchmarks.questions import Answers
from preceptor.benchmarks.rows import ModelRows, Row, name_of, text_of
from preceptor.benchmarks.written_judge import SHARES, verdict_in
from preceptor.engines.cl100k import count_tokens
from preceptor.errors import DataError, nearest

_TIES = ("tie", "tie (bothbad)")

_TURNED = {"A<B": "B>A", "A<<B": "B>>A", "B=A": "A=B", "B<A": "A>B", "B<<A": "A>>B"}
"""Verdicts that v2.0 counts too, as v0.1 writes them."""

_SHORT_ID = 16
"""Characters of a prompt's id in v2.0; those of v0.1 have 32."""


@dataclass
class _Tally(ModelRows):
    """One model's battles by prompt while a file is read."""

    prompts: dict[str, Battles] = field(default_factory=dict)
    seen: set[str] = field(default_factory=set)
    verdicts: int = 0

    def add(self, prompt: str, battles: Battles) -> None:
        before = self.prompts.get(prompt, Battles(0, 0, 0))
        self.prompts[prompt] = Battles(*map(sum, zip(before, battles, strict=True)))

    def finished(self, where: str, *, baseline: str, games_known: bool) -> PromptBattles:
        counts = np.array(list(self.prompts.values()), dtype=np.float64).reshape(-1, 3)
        return PromptBattles(
            self.model,
            baseline,
            tuple(self.prompts),
            counts[:, 0],
            counts[:, 1],
            counts[:, 2],
            verdicts=self.verdicts if games_known else None,
            judge=self.judge(where),
            dropped=dict(self.dropped),
        )


def judged_battles(
    rows: Sequence[Row], path: str, edition: Edition = V01, *, baseline: str
) -> list[PromptBattles]:
    """Return the battles of each model of judgement rows, as the benchmark writes them.

    In the first of a row's two `games` answer A is the baseline's, in the second the model's. A
    game's `score` is its verdict; where it is null the verdict is sought in `judgment`.

    Args:
        rows: of one file; those of another category than the edition's are passed over.
        path: of the file, for messages.
        edition: whose rows they are.
        baseline: against whose answers, where the rows do not say.

    Raises:
        DataError: if a row has no prompt, model or games, a prompt is judged twice, or judges or baselines
            are mixed.
    """
    tallies: dict[str, _Tally] = {}
    baselines: set[str] = set()
    for place, row in enumerate(rows, start=1):
        where = f"'{path}', row {place}"
        if edition.category and text_of(row, "category", where) != edition.category:
            continue
        model, prompt = text_of(row, "model", where), text_of(row, edition.id_field, where)
        tally = tallies.setdefault(model, _Tally(model))
        tally.judges.add(name_of(row, "judge"))
        baselines.add((edition.category and name_of(row, "baseline")) or baseline)
        if prompt in tally.seen:
            raise DataError(
                f"{where}: '{model}' is judged twice on the prompt '{prompt}'. Expected one row "
                "for each prompt: drop the repeats."
            )
        tally.seen.add(prompt)
        verdicts = _verdicts(row.get("games"), where, turned=edition.category is not None)
        if edition.category and None in verdicts:
            tally.dropped["prompts with a game without a verdict"] += 1
            continue
        for second, verdict in enumerate(verdicts):
            if verdict is None:
                tally.dropped["games without a verdict"] += 1
                continue
            tally.verdicts += 1
            tally.add(prompt, battles_of(verdict, model_first=bool(second)))
    if len(baselines) > 1:
        names = ", ".join(sorted(baselines))
        raise DataError(f"'{path}' is judged against different baselines: {names}. Expected one.")
    against = next(iter(baselines), baseline)
    return [
        tally.finished(f"'{path}'", baseline=against, games_known=True)
        for tally in tallies.values()
    ]


def _verdicts(games: object, where: str, *, turned: bool) -> list[str | None]:
    """Return the verdict of each of the two games, None where there is none."""
    if not isinstance(games, list) or len(games) > GAMES:
        raise DataError(f"{where}: expected a list of at most {GAMES} games in 'games'.")
    return [_verdict(game, turned=turned) for game in [*games, *[None] * (GAMES - len(games))]]


def _verdict(game: object, *, turned: bool) -> str | None:
    if not isinstance(game, Mapping):
        return None
    score = game.get("score")
    if isinstance(score, str):
        score = _TURNED.get(score, score) if turned else score
        if score in SHARES:
            return score
    text = game.get("judgment")
    text = text.get("answer") if isinstance(text, Mapping) else text
    return verdict_in(text) if score is None and isinstance(text, str) else None


def expanded_battles(rows: Sequence[Row], path: str, *, baseline: str) -> list[PromptBattles]:
    """Return the battles of each model against the baseline, from rows with `winner`.

    A verdict with `>>` stands in three rows. Which game a row comes from is not known, so a prompt
    with one game missing looks complete.

    Raises:
        DataError: if a row lacks a name, no row is against the baseline, or a prompt has more
            battles than two games can give.
    """
    tallies: dict[str, _Tally] = {}
    unknown: Counter[str] = Counter()
    for place, row in enumerate(rows, start=1):
        where = f"'{path}', row {place}"
        first, second = text_of(row, "model_a", where), text_of(row, "model_b", where)
        prompt = text_of(row, "question_id", where)
        if (first == baseline) == (second == baseline):
            unknown.update({first, second})
            continue
        model = second if first == baseline else first
        tally = tallies.setdefault(model, _Tally(model))
        winner = row.get("winner")
        if winner in _TIES:
            tally.add(prompt, Battles(0, 1, 0))
        elif winner in ("model_a", "model_b"):
            won = (winner == "model_b") == (model == second)
            tally.add(prompt, Battles(int(won), 0, int(not won)))
        else:
            tally.dropped["battles without a winner"] += 1
    _check_battles(tallies, unknown, f"'{path}'", baseline=baseline)
    return [
        tally.finished(f"'{path}'", baseline=baseline, games_known=False)
        for tally in tallies.values()
    ]


def _check_battles(
    tallies: Mapping[str, _Tally], unknown: Counter[str], where: str, *, baseline: str
) -> None:
    if unknown:
        names = ", ".join(sorted(unknown))
        raise DataError(
            f"{where} holds battles that are not one model against the baseline '{baseline}', "
            f"between: {names}.{nearest(baseline, unknown)} Name the baseline, or leave them out."
        )
    for tally in tallies.values():
        for prompt, battles in tally.prompts.items():
            if sum(battles) > GAMES * MUCH_BETTER:
                raise DataError(
                    f"{where}: '{tally.model}' has {sum(battles):g} battles on the prompt "
                    f"'{prompt}', and two games give at most {GAMES * MUCH_BETTER}. Are verdicts in "
                    "the file twice?"
                )


def has_ids_of(rows: Sequence[Row], edition: Edition) -> bool:
    """Tell whether the first row's prompt is of the edition: both write `uid`, of different lengths."""
    short = len(str(rows[0].get("uid", ""))) == _SHORT_ID
    return short == (edition.id_field == "uid")


def answer_known(row: Row, where: str) -> tuple[str, str]:
    """Return the model and the prompt's id of a row of answers, of either age."""
    name = next((key for key in ("model", "model_id", "generator") if row.get(key)), "model")
    return text_of(row, name, where), prompt_id(row, where)


def prompt_id(row: Row, where: str) -> str:
    """Return the prompt's id; newer files call it uid."""
    return text_of(row, "uid" if "uid" in row else "question_id", where)


def answer_text(row: Row) -> object:
    """Return the answer wherever the layout has it; None where there is none."""
    try:
        if "choices" in row:
            return row["choices"][0]["turns"][-1]["content"]
        if "messages" in row:
            content = row["messages"][-1]["content"]
            return content.get("answer") if isinstance(content, Mapping) else content
    except (TypeError, KeyError, IndexError):
        return None
    return row.get("output")


def answer_rows(answers: Answers, edition: Edition) -> list[Row]:
    """Return model answers as the edition's own tool writes them, each of one turn."""
    made = _with_choices if edition.id_field == "question_id" else _with_messages
    return [made(answers, key, text) for key, text in answers.texts.items()]


def _with_choices(answers: Answers, key: str, text: str) -> Row:
    return {
        "question_id": key,
        "answer_id": _answer_id(answers.model, key),
        "model_id": answers.model,
        "choices": [{"index": 0, "turns": [{"content": text, "token_len": count_tokens(text)}]}],
        "tstamp": 0.0,
    }


def _with_messages(answers: Answers, key: str, text: str) -> Row:
    question = answers.questions.get(key, "")
    return {
        "uid": key,
        "ans_id": _answer_id(answers.model, key),
        "model": answers.model,
        "messages": [
            {"role": "user", "content": question},
            {"role": "assistant", "content": {"answer": text}},
        ],
        "tstamp": 0.0,
    }


def _answer_id(model: str, key: str) -> str:
    """Return an id that is the same each time; the tools want one that differs between answers."""
    raw = f"{model}\0{key}".encode("utf-8", "surrogatepass")
    return blake2b(raw, digest_size=11).hexdigest()


def judgement_rows(
    outcomes: Sequence[Outcome], edition: Edition, *, judge: str, baseline: str
) -> list[Row]:
    """Return one row per comparison with its two games, as Arena-Hard's own tool writes them."""
    more = {"category": edition.category, "baseline": baseline} if edition.category else {}
    return [
        {
            edition.id_field: one.comparison.question_id,
            **more,
            "model": one.comparison.model,
            "judge": judge,
            "games": [
                {
                    "user_prompt": game.prompt,
                    "judgment": game.answer and game.answer.text,
                    "score": game.verdict,
                }
                for game in one.games.values()
            ],
        }
        for one in outcomes
    ]


def questions_in(rows: Sequence[Row], path: str, edition: Edition = V01) -> dict[str, str]:
    """Return the texts by id from question.jsonl; older ones have `question_id` and `turns`."""
    found = {}
    for place, row in enumerate(rows, start=1):
        where = f"'{path}', row {place}"
        if edition.category and row.get("category") != edition.category:
            continue
        turns = row.get("turns")
        first = turns[0] if isinstance(turns, list) and turns else row
        text = first.get("content", first.get("prompt")) if isinstance(first, Mapping) else None
        if not isinstance(text, str):
            raise DataError(f"{where} has no text in 'prompt': expected Arena-Hard's questions.")
        found[prompt_id(row, where)] = text
    return found
