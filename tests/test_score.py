"""A step pays for what is missing, once, and whatever stops it, what was computed is stored."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest

from preceptor.data.gather import gather
from preceptor.data.responses import ResponseSource
from preceptor.data.selection import select
from preceptor.pipeline import score as steps
from preceptor.pipeline.score import Step, carry_out
from preceptor.pipeline.work import Amount, Silent
from preceptor.scorers import base
from preceptor.scorers.base import Scorer
from preceptor.store.identity import Identity
from preceptor.store.store import ScorePartition, Store
from preceptor.types import Response, Score
from small_study import rows_of, shards, write_rows


@dataclass
class LetterScorer(Scorer):
    """Counts letters, a few responses at a time; keeps what it was asked for; may be stopped."""

    batch: int = 3
    stop_after: int | None = None
    asked: list[Response] = field(default_factory=list)
    calls: int = 0
    name = "letters"
    measures = columns = ("letters",)

    def identity(self) -> Identity:
        return Identity.of({"scorer": "letters"})

    def score(self, responses: Sequence[Response]) -> Iterator[list[Score]]:
        self.calls += 1
        for start in range(0, len(responses), self.batch):
            if self.stop_after is not None and len(self.asked) >= self.stop_after:
                raise KeyboardInterrupt
            part = responses[start : start + self.batch]
            self.asked += part
            yield [score_of(response) for response in part]


def score_of(response: Response) -> Score:
    text = response.text or ""
    if "sea" in text:
        return Score(response.key, {}, "it speaks of the sea")
    return Score(response.key, {"letters": float(len(text))})


class Told(Silent):
    """A progress that keeps what it is told."""

    def __init__(self) -> None:
        self.stored = 0
        self.missing = self.done = Amount()

    def begin(self, step: str, stored: int, missing: Amount) -> None:
        self.stored, self.missing = stored, missing

    def advance(self, done: Amount) -> None:
        responses = self.done.responses + done.responses
        self.done = Amount(responses, self.done.characters + done.characters)


def step_of(folder: Path, scorer: LetterScorer, *, instructions: int = 10) -> Step:
    rows = (rows_of(0, instructions), rows_of(1, instructions), rows_of(0, instructions))
    names = ("alpha", "beta", "twin")
    files = [write_rows(folder / f"{n}.jsonl", r) for n, r in zip(names, rows, strict=True)]
    source = ResponseSource.open(files)
    choice = select(gather(source).table, None, seed=0, min_coverage=0.5)
    return Step(scorer.name, scorer, partition_of(folder), source, choice)


def partition_of(folder: Path) -> ScorePartition:
    return Store(folder / "store").scores(LetterScorer().identity())


def test_each_text_is_asked_for_once_and_its_numbers_come_back_in_the_rows_order(tmp_path: Path):
    scorer, told = LetterScorer(), Told()
    step = step_of(tmp_path, scorer)
    columns = carry_out(step, told)
    texts = {response.key: response.text or "" for response in step.source}
    assert len(scorer.asked) == len({response.key for response in scorer.asked}) == 20
    for key, letters, note in zip(
        step.selection.keys.tolist(), columns["letters"], columns["note"], strict=True
    ):
        if "sea" in texts[key]:
            assert np.isnan(letters) and note == "it speaks of the sea"
        else:
            assert letters == len(texts[key]) and note is None
    assert told.missing == told.done == Amount(20, sum(map(len, texts.values())))


class ForgetfulScorer(LetterScorer):
    """Gives no score to every third response, as a judge does that is too slow."""

    def score(self, responses: Sequence[Response]) -> Iterator[list[Score]]:
        for batch in super().score(responses):
            yield batch[1:]


def test_what_has_no_score_is_told_once_however_many_parts_there_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    monkeypatch.setattr(base, "PART_INSTRUCTIONS", 2)
    scorer = ForgetfulScorer()
    carry_out(step_of(tmp_path, scorer), Silent())
    (told,) = (one.getMessage() for one in caplog.records if "have no score" in one.getMessage())
    # Five parts of four distinct responses: batches of three and one, each without its first.
    assert (scorer.calls, "letters: 10 responses" in told) == (5, True)


def test_what_is_stored_is_not_asked_for_again_notes_neither(tmp_path: Path):
    first = carry_out(step_of(tmp_path, LetterScorer()), Silent())
    scorer, told = LetterScorer(), Told()
    second = carry_out(step_of(tmp_path, scorer), told)
    assert scorer.calls == 0
    assert (told.stored, told.missing) == (20, Amount())
    assert second["letters"].tolist() == pytest.approx(first["letters"].tolist(), nan_ok=True)


def test_an_interrupted_step_keeps_every_batch_that_was_finished(tmp_path: Path):
    with pytest.raises(KeyboardInterrupt):
        carry_out(step_of(tmp_path, LetterScorer(stop_after=9)), Silent())
    assert len(partition_of(tmp_path).keys()) == 9
    scorer, told = LetterScorer(), Told()
    carry_out(step_of(tmp_path, scorer), told)
    assert (told.stored, told.missing.responses, len(scorer.asked)) == (9, 11, 11)


def test_what_another_process_stores_meanwhile_is_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    class Meeting(LetterScorer):
        """Sees the whole rest stored by someone else while it scores its first part."""

        def score(self, responses: Sequence[Response]) -> Iterator[list[Score]]:
            if not self.asked:
                partition_of(tmp_path).append([score_of(response) for response in step.source])
            yield from super().score(responses)

    # Each instruction a part of its own: two that share one would be handed out beyond the size of a part.
    monkeypatch.setattr("preceptor.store.sharing._DIGITS", 32)
    scorer, told = Meeting(), Told()
    step = step_of(tmp_path, scorer, instructions=3 * base.PART_INSTRUCTIONS)
    carry_out(step, told)
    assert scorer.calls == 1
    assert len(scorer.asked) == 2 * base.PART_INSTRUCTIONS
    assert told.done.responses == told.missing.responses


def test_quick_scores_do_not_make_a_shard_for_every_part(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(base, "PART_INSTRUCTIONS", 2)
    monkeypatch.setattr("preceptor.store.writer._EVERY_S", 600.0)
    appended: list[int] = []
    append = ScorePartition.append

    def counting(partition: ScorePartition, rows: Sequence[Score]) -> None:
        appended.append(len(rows))
        append(partition, rows)

    monkeypatch.setattr(ScorePartition, "append", counting)
    carry_out(step_of(tmp_path, LetterScorer(), instructions=100), Silent())
    assert sum(appended) == 200
    assert len(appended) == 1  # of 50 parts
    assert len(shards(tmp_path)) == 1


def test_texts_that_do_not_fit_into_memory_are_read_in_several_passes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(steps, "TEXTS_IN_MEMORY", 200)
    scorer, told = LetterScorer(), Told()
    step = step_of(tmp_path, scorer)
    passes = list(step.texts(step.selection.distinct))
    assert len(passes) > 1
    keys = [response.key for part in passes for response in part]
    assert sorted(keys) == sorted(step.selection.distinct.tolist())
    for part in passes:
        assert sum(len(response.text or "") for response in part) <= 200
        # Whole instructions: both texts of each are in the same pass.
        assert len(part) == 2 * len({response.instruction.id for response in part})
    carry_out(step, told)
    assert told.done.responses == 20


def test_responses_that_vanished_from_the_data_are_told_and_do_not_hang(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    step = step_of(tmp_path, LetterScorer())
    write_rows(tmp_path / "beta.jsonl", rows_of(1, 10)[:3])
    columns = carry_out(step, Silent())
    assert "7 responses are no longer in the data" in caplog.text
    assert len(partition_of(tmp_path).keys()) == 13
    missing = [note is None for note in columns["note"]] & np.isnan(columns["letters"])
    assert missing.sum() == 7


def test_a_wanted_token_column_makes_rows_without_it_missing(tmp_path: Path):
    class Tokens(LetterScorer):
        token_column = "token_nll"

    columns = carry_out(step_of(tmp_path, LetterScorer()), Silent())
    again = step_of(tmp_path, Tokens())
    noted = {score_of(response).key for response in again.source if score_of(response).note}
    assert set(again.missing(columns).tolist()) == set(again.selection.distinct.tolist()) - noted


def test_a_column_added_to_a_scorer_is_computed_for_rows_stored_before(tmp_path: Path):
    class Words(LetterScorer):
        columns = ("letters", "words")

        def score(self, responses: Sequence[Response]) -> Iterator[list[Score]]:
            for scores in super().score(responses):
                yield [
                    one if one.note else Score(one.key, {"letters": 0.0, "words": 7.0})
                    for one in scores
                ]

    before = carry_out(step_of(tmp_path, LetterScorer()), Silent())
    scorer, told = Words(), Told()
    after = carry_out(step_of(tmp_path, scorer), told)
    assert told.missing.responses == len(scorer.asked) > 0
    assert not any("sea" in (response.text or "") for response in scorer.asked)
    scored = ~np.isnan(before["letters"])
    assert (after["words"][scored] == 7).all() and np.isnan(after["words"][~scored]).all()
    # What was stored first stays.
    assert after["letters"][scored].tolist() == before["letters"][scored].tolist()
    again = Words()
    carry_out(step_of(tmp_path, again), Silent())
    assert again.calls == 0
