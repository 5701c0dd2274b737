"""Arena-Hard: prompts against a baseline in two games each, judged by written verdicts; here its v0.1.

A judge too small to write judgements, or a reward model, is asked only which answer is better; its games
count by probability, and the result says so. The benchmark's home is `lmarena-ai/arena-hard-auto`
(Apache-2.0); nothing of it is in the package.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np

from preceptor.benchmarks.answers import answers_in, only
from preceptor.benchmarks.arena_hard.files import (
    answer_known,
    answer_rows,
    answer_text,
    expanded_battles,
    has_ids_of,
    judged_battles,
    judgement_rows,
    questions_in,
)
from preceptor.benchmarks.arena_hard.score import (
    GAMES,
    V01,
    Edition,
    PromptBattles,
    evaluate_arena_hard,
)
from preceptor.benchmarks.base import Benchmark, Judged, Scored, Verdicts, first_places
from preceptor.benchmarks.cached_chat import Cost, OnProgress
from preceptor.benchmarks.comparisons import (
    Outcome,
    both_orders,
    compared,
    comparisons,
    missing_reasons,
    pairs_of,
    require_complete,
)
from preceptor.benchmarks.pairwise import JudgeKind, PairJudge
from preceptor.benchmarks.questions import Answers, QuestionSet, fetched
from preceptor.benchmarks.rows import Row, file_name, fits, listed, read_rows, write_rows
from preceptor.errors import DataError
from preceptor.store.store import Store

_HOME = "lmarena-ai/arena-hard-auto"
_ANSWERS = (("question_id", "choices"), ("question_id", "output"), ("uid", "messages"))
_BATTLES = ("question_id", "model_a", "model_b", "winner")


@dataclass(frozen=True)
class Games(Benchmark):
    """What the editions of Arena-Hard share: two games for each prompt of the class's `edition`.

    `arena_questions` is a local copy of question.jsonl; by default the texts in the files of answers are
    taken, else it is fetched.
    """

    edition: ClassVar[Edition]
    judge_kinds: ClassVar[tuple[JudgeKind, ...]] = ("written", "letter", "reward")
    published: ClassVar[bool] = True

    arena_questions: Path | None = None

    def questions(
        self,
        limit: int | None = None,
        *,
        baseline: Answers | None = None,
        answers: Sequence[Answers] = (),
    ) -> QuestionSet:
        """Return the prompts that the baseline answered; by default the edition's own published answers."""
        if baseline is None:
            path = fetched(
                _HOME,
                f"{self.edition.folder}/model_answer/{self.edition.baseline}.jsonl",
                instead="Give a local copy with --baseline-answers FILE.",
            )
            baseline = only(self.read_answers(listed(read_rows(path)), str(path)) or (), str(path))
        known: dict[str, str] = {}
        for one in (*answers, baseline):
            known |= one.questions
        if self.arena_questions is not None or not set(baseline.texts) <= set(known):
            known = self._published_questions()
        kept = {name: known[name] for name in baseline.texts if name in known}
        if not kept:
            raise DataError(
                f"The baseline '{baseline.model}' answers none of the {len(known)} questions of "
                f"{self.title}. Check that answers, questions and baseline belong together."
            )
        return QuestionSet.of(kept, baseline).drawn(limit)

    def _published_questions(self) -> dict[str, str]:
        path = self.arena_questions or fetched(
            _HOME,
            f"{self.edition.folder}/question.jsonl",
            instead="Give a local copy with --arena-questions FILE.",
        )
        return questions_in(listed(read_rows(path)), str(path), self.edition)

    def judge(
        self,
        answers: Sequence[Answers],
        questions: QuestionSet,
        judge: PairJudge,
        store: Store,
        progress: OnProgress | None = None,
    ) -> Judged:
        """Return the battles of every model; in the first game of a prompt the baseline's answer is A."""
        asked, written = comparisons(answers, questions), judge.kind == "written"
        outcomes = compared(
            asked, judge, store, orders=both_orders, equal=written, progress=progress
        )
        missing = _missing_games if written else missing_reasons
        count = len(questions.instructions) * (GAMES if written else 1)
        reasons = {one.model: missing(outcomes, one.model, count) for one in answers}
        for model, own in reasons.items():
            require_complete(own, model=model, questions=count)
        baseline = questions.baseline.model
        rows = (
            judgement_rows(outcomes, self.edition, judge=judge.name, baseline=baseline)
            if written
            else []
        )
        if written:
            battles = judged_battles(rows, "the judge's verdicts", self.edition, baseline=baseline)
        else:
            battles = [
                _by_letter(outcomes, one.model, reasons[one.model], baseline=baseline, judge=judge)
                for one in answers
            ]
        return Judged(
            benchmark=self.name,
            baseline=baseline,
            judge=judge.identity(),
            judge_name=judge.name if written else _letter_label(judge),
            verdicts=battles,
            rows=rows,
            first_place={} if written else first_places(outcomes, answers),
        )

    def cost(
        self, answers: Sequence[Answers], questions: QuestionSet, judge: PairJudge, store: Store
    ) -> Cost:
        """Return what judging would take: two games for each prompt, second questions not counted."""
        asked, equal = comparisons(answers, questions), judge.kind == "written"
        return judge.cost(pairs_of(asked, judge, both_orders, equal=equal), store)

    def score(self, verdicts: Sequence[Verdicts], *, seed: int = 0) -> Scored:
        """Return the score of each model."""
        judged = [one for one in verdicts if isinstance(one, PromptBattles)]
        return Scored([evaluate_arena_hard(one, self.edition, seed=seed) for one in judged], [])

    def read_answers(self, rows: Sequence[Row], path: str) -> list[Answers] | None:
        """Return model answers of either age, or rows of `question_id`, `output` and `generator`."""
        if "winner" in rows[0] or not fits(rows, *_ANSWERS) or not has_ids_of(rows, self.edition):
            return None
        return answers_in(rows, path, benchmark=self.name, known=answer_known, text=answer_text)

    def read(self, rows: Sequence[Row] | Row, path: str) -> Sequence[Verdicts] | None:
        """Return the battles of judgements with `games` that are of the edition."""
        if not fits(rows, (self.edition.id_field, "model", "games")):
            return None
        return judged_battles(listed(rows), path, self.edition, baseline=self.edition.baseline)

    def write(
        self, folder: Path, answers: Sequence[Answers], judged: Judged | None = None
    ) -> list[Path]:
        """Write `arena_hard/model_answer/<model>.jsonl` and `model_judgment/<judge>/<model>.jsonl`.

        Games judged by letter have no verdict that the files could hold.
        """
        files: dict[Path, list[Row]] = {}
        for one in answers:
            place = Path("model_answer", f"{file_name(one.model)}.jsonl")
            files[place] = answer_rows(one, self.edition)
        for row in judged.rows if judged else ():
            place = Path("model_judgment", file_name(row["judge"]))
            files.setdefault(place / f"{file_name(row['model'])}.jsonl", []).append(row)
        return [write_rows(folder / self.name / path, rows) for path, rows in files.items()]


@dataclass(frozen=True)
class ArenaHard(Games):
    """Arena-Hard v0.1 with any judge; `baseline` is whom the models of ready files played against."""

    edition: ClassVar[Edition] = V01
    name: ClassVar[str] = V01.name
    title: ClassVar[str] = V01.title
    measures: ClassVar[Mapping[str, str]] = {V01.measure: "score"}
    facts: ClassVar[tuple[str, ...]] = ("AH_published_low", "AH_published_high")

    baseline: str = V01.baseline

    def read(self, rows: Sequence[Row] | Row, path: str) -> Sequence[Verdicts] | None:
        """Return the battles of rows with `winner`, or of judgements with `games`."""
        if fits(rows, _BATTLES):
            return expanded_battles(listed(rows), path, baseline=self.baseline)
        if fits(rows, (self.edition.id_field, "model", "games")):
            return judged_battles(listed(rows), path, baseline=self.baseline)
        return None


def _missing_games(outcomes: Sequence[Outcome], model: str, count: int) -> Counter[str]:
    """Return how many of a model's games have no verdict, by reason."""
    games = [
        game for one in outcomes if one.comparison.model == model for game in one.games.values()
    ]
    reasons = Counter(game.why or "" for game in games if game.verdict is None)
    if count > len(games):
        reasons["without an answer"] = count - len(games)
    return reasons


def _by_letter(
    outcomes: Sequence[Outcome],
    model: str,
    reasons: Counter[str],
    *,
    baseline: str,
    judge: PairJudge,
) -> PromptBattles:
    """Return battles of which each game is won by its probability; both games stand for one prompt."""
    own = [one for one in outcomes if one.comparison.model == model and one.win is not None]
    wins = np.array([one.win for one in own], dtype=np.float64)
    return PromptBattles(
        model,
        baseline,
        tuple(one.comparison.question_id for one in own),
        won=GAMES * wins,
        tied=np.zeros(len(wins)),
        lost=GAMES * (1 - wins),
        verdicts=GAMES * len(wins),
        judge=_letter_label(judge),
        dropped=dict(reasons),
    )


def _letter_label(judge: PairJudge) -> str:
    return f"{judge.name} by choice"
