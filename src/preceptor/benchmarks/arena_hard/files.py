"""Read Arena-Hard's files: judgements with two games a row, or battles already expanded.

The one idea: either way a prompt ends up with the weighted battles its model won, tied and lost. What is
no verdict is left out and counted, never half a point.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from preceptor.benchmarks.arena_hard.score import (
    GAMES,
    MUCH_BETTER,
    VERDICTS,
    Battles,
    PromptBattles,
    battles_of,
    verdict_in,
)
from preceptor.benchmarks.judgement_rows import Row, text_of
from preceptor.errors import DataError, nearest

_TIES = ("tie", "tie (bothbad)")


@dataclass
class _Tally:
    """One model's battles by prompt while a file is read."""

    model: str
    prompts: dict[str, Battles] = field(default_factory=dict)
    seen: set[str] = field(default_factory=set)
    judges: set[str | None] = field(default_factory=set)
    dropped: Counter[str] = field(default_factory=Counter)
    verdicts: int = 0

    def add(self, prompt: str, battles: Battles) -> None:
        before = self.prompts.get(prompt, Battles(0, 0, 0))
        self.prompts[prompt] = Battles(*map(sum, zip(before, battles, strict=True)))

    def finished(self, where: str, *, baseline: str, games_known: bool) -> PromptBattles:
        if len(self.judges) > 1:
            listed = ", ".join(sorted(str(judge) for judge in self.judges))
            raise DataError(
                f"{where}: '{self.model}' was judged by different judges: {listed}. Expected one: "
                "keep the rows of one."
            )
        counts = np.array(list(self.prompts.values()), dtype=np.float64).reshape(-1, 3)
        return PromptBattles(
            self.model,
            baseline,
            tuple(self.prompts),
            counts[:, 0],
            counts[:, 1],
            counts[:, 2],
            verdicts=self.verdicts if games_known else None,
            judge=next(iter(self.judges), None),
            dropped=dict(self.dropped),
        )


def judged_battles(rows: Sequence[Row], path: str, *, baseline: str) -> list[PromptBattles]:
    """Return the battles of each model of judgement rows, as the benchmark writes them.

    In the first of a row's two `games` answer A is the baseline's, in the second the model's. A
    game's `score` is its verdict; where it is null the verdict is sought in `judgment`.

    Raises:
        DataError: if a row has no prompt, model or games, a prompt is judged twice, or judges are
            mixed.
    """
    tallies: dict[str, _Tally] = {}
    for place, row in enumerate(rows, start=1):
        where = f"'{path}', row {place}"
        model, prompt = text_of(row, "model", where), text_of(row, "question_id", where)
        tally = tallies.setdefault(model, _Tally(model))
        tally.judges.add(row.get("judge") and str(row["judge"]))
        if prompt in tally.seen:
            raise DataError(
                f"{where}: '{model}' is judged twice on the prompt '{prompt}'. Expected one row "
                "for each prompt: drop the repeats."
            )
        tally.seen.add(prompt)
        games = row.get("games")
        if not isinstance(games, list) or len(games) > GAMES:
            raise DataError(f"{where}: expected a list of at most {GAMES} games in 'games'.")
        for second, game in enumerate([*games, *[None] * (GAMES - len(games))]):
            verdict = _verdict(game)
            if verdict is None:
                tally.dropped["games without a verdict"] += 1
                continue
            tally.verdicts += 1
            tally.add(prompt, battles_of(verdict, model_first=bool(second)))
    return [
        tally.finished(f"'{path}'", baseline=baseline, games_known=True)
        for tally in tallies.values()
    ]


def _verdict(game: object) -> str | None:
    if not isinstance(game, Mapping):
        return None
    score = game.get("score")
    if score in VERDICTS:
        return str(score)
    text = game.get("judgment")
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
    strangers: Counter[str] = Counter()
    for place, row in enumerate(rows, start=1):
        where = f"'{path}', row {place}"
        first, second = text_of(row, "model_a", where), text_of(row, "model_b", where)
        prompt = text_of(row, "question_id", where)
        if (first == baseline) == (second == baseline):
            strangers.update({first, second})
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
    _check_battles(tallies, strangers, f"'{path}'", baseline=baseline)
    return [
        tally.finished(f"'{path}'", baseline=baseline, games_known=False)
        for tally in tallies.values()
    ]


def _check_battles(
    tallies: Mapping[str, _Tally], strangers: Counter[str], where: str, *, baseline: str
) -> None:
    if strangers:
        names = ", ".join(sorted(strangers))
        raise DataError(
            f"{where} holds battles that are not one model against the baseline '{baseline}', "
            f"between: {names}.{nearest(baseline, strangers)} Name the baseline, or leave them out."
        )
    for tally in tallies.values():
        for prompt, battles in tally.prompts.items():
            if sum(battles) > GAMES * MUCH_BETTER:
                raise DataError(
                    f"{where}: '{tally.model}' has {sum(battles):g} battles on the prompt "
                    f"'{prompt}', and two games give at most {GAMES * MUCH_BETTER}. Are verdicts in "
                    "the file twice?"
                )
