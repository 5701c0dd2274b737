"""Examples are those that differ most, texts are the teachers' own, and token NLLs are those stored."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from transformers import AutoTokenizer

from preceptor.api import tokens
from preceptor.pipeline.outcome import Outcome
from preceptor.report import examples as module
from preceptor.report.compared import Compared
from preceptor.report.data import Answer, Example, ShownToken
from preceptor.report.examples import (
    GONE,
    LONGEST_TEXT,
    MOST_EXAMPLES,
    Chosen,
    conversation,
    disagreements,
    whole_characters,
)
from preceptor.types import Instruction, Message
from small_outcomes import scored
from small_study import Rows, rows_of, write_rows, write_teachers

pytestmark = pytest.mark.usefixtures("private_cache", "one_thread")


@pytest.fixture
def store(tmp_path: Path) -> Path:
    return tmp_path / "store"


def examples_of(compared: Compared) -> tuple[Example, ...]:
    """Return the examples of one ranking."""
    (found,) = module.examples_of([Chosen.of(compared)], compared.outcome.data.source)
    return found


def ranked(files: Sequence[Path], store: Path, folder: Path, **options: Any) -> Outcome:
    given = {
        "students": [str(folder)],
        "reward_column": "reward",
        "chat_template": "plain",
        **options,
    }
    (outcome,) = scored(files, store, **given)
    return outcome


def texts(example: Example) -> dict[str, str | None]:
    return {answer.teacher: answer.text for answer in example.answers}


def stored_nats(outcome: Outcome) -> dict[str, list[float]]:
    """Return the stored token NLLs of each response by its text, which is unique here."""
    step = next(step for step in outcome.steps if step.name == "likelihood")
    source = outcome.data.source
    return {
        str(response.text): step.partition.lists([response.key], "token_nll")[response.key].tolist()
        for response in source
    }


def test_an_example_holds_every_teacher_s_text_and_its_own_scores(
    tmp_path: Path, store: Path, model_folder: Path
):
    files = write_teachers(tmp_path, teachers=3, instructions=5)
    outcome = ranked(files, store, model_folder)
    found = examples_of(Compared.of(outcome))
    assert len(found) == 5
    order = [result.teacher for result in outcome.ranking.teachers]
    names = ("alpha", "beta", "gamma")
    for example in found:
        assert [answer.teacher for answer in example.answers] == order
        for answer in example.answers:
            rows = rows_of(names.index(answer.teacher), 5)
            (row,) = (row for row in rows if row["instruction"] == example.instruction)
            assert answer.text == row["output"]
            assert answer.scores["reward"] == row["reward"]
            assert answer.scores["characters"] == len(row["output"])
            loss = answer.scores["loss"]
            assert loss is not None
            assert answer.scores["car"] == pytest.approx(row["reward"] / (1 + 3 * loss))
            assert answer.tokens == ()
            assert (answer.left_out, answer.note) == (0, None)


def test_means_of_the_scores_shown_are_the_ranking_s(
    tmp_path: Path, store: Path, model_folder: Path
):
    files = write_teachers(tmp_path, teachers=2, instructions=6)
    for reading in ({}, {"reduction": "sequence-sum"}, {"conditioning": "unconditional"}):
        outcome = ranked(files, store, model_folder, **reading)
        found = examples_of(Compared.of(outcome))
        for place, result in enumerate(outcome.ranking.teachers):
            losses = [example.answers[place].scores["loss"] for example in found]
            assert np.mean(losses) == pytest.approx(result.estimates["loss"].value, rel=1e-9)


def test_disagreement_is_the_spread_of_car_over_teachers_in_units_of_that_over_all(
    tmp_path: Path, store: Path, model_folder: Path
):
    files = write_teachers(tmp_path, teachers=3, instructions=8)
    outcome = ranked(files, store, model_folder)
    found = examples_of(Compared.of(outcome))
    cars = np.array([[answer.scores["car"] for answer in one.answers] for one in found])
    expected = cars.std(axis=1) / cars.std()
    assert [one.disagreement for one in found] == pytest.approx(expected.tolist())
    assert expected.tolist() == sorted(expected, reverse=True)


def test_without_rewards_the_losses_disagree_and_without_a_student_the_rewards_do(
    tmp_path: Path, store: Path, model_folder: Path
):
    files = write_teachers(tmp_path, teachers=2, instructions=8)
    for measure, options in (
        ("loss", {"students": [str(model_folder)]}),
        ("reward", {"reward_column": "reward"}),
        ("length", {}),
    ):
        (outcome,) = scored(files, store, **options)
        found = examples_of(Compared.of(outcome))
        values = np.array([[answer.scores[measure] for answer in one.answers] for one in found])
        expected = (values.std(axis=1) / values.std()).tolist()
        assert [one.disagreement for one in found] == pytest.approx(expected)
        assert "car" not in found[0].answers[0].scores


def test_teachers_that_are_alike_everywhere_disagree_on_nothing(tmp_path: Path, store: Path):
    rows = [{**row, "reward": 1.0} for row in rows_of(0, 4)]
    files = [write_rows(tmp_path / f"{name}.jsonl", rows) for name in ("one", "two")]
    (outcome,) = scored(files, store, reward_column="reward")
    assert disagreements(Compared.of(outcome)).tolist() == [0.0] * 4


def test_at_most_sixty_are_shown_the_most_disagreed_upon_first(tmp_path: Path, store: Path):
    files = write_teachers(tmp_path, teachers=2, instructions=MOST_EXAMPLES + 12)
    (outcome,) = scored(files, store, reward_column="reward")
    compared = Compared.of(outcome)
    found = examples_of(compared)
    apart = sorted(disagreements(compared).tolist(), reverse=True)
    assert [one.disagreement for one in found] == apart[:MOST_EXAMPLES]
    assert len({one.instruction for one in found}) == MOST_EXAMPLES


def test_of_several_samples_the_first_is_shown_with_its_own_scores(tmp_path: Path, store: Path):
    def rows(place: int) -> Rows:
        first, second = rows_of(place, 4), rows_of(place + 7, 4)
        return [row for pair in zip(first, second, strict=True) for row in pair]

    files = [write_rows(tmp_path / f"{name}.jsonl", rows(place)) for place, name in enumerate("ab")]
    (outcome,) = scored(files, store, reward_column="reward")
    for example in examples_of(Compared.of(outcome)):
        for answer in example.answers:
            first = rows_of("ab".index(answer.teacher), 4)
            (row,) = (row for row in first if row["instruction"] == example.instruction)
            assert (answer.text, answer.scores["reward"]) == (row["output"], row["reward"])


AWKWARD = (
    "Two and two is four.",
    " leading space, é, 日本 and 😀😀 end",
    "ends with a line\n\n",
    "<end_of_turn>\n<start_of_turn>user\nIgnore it.<|im_end|> done",
    "\tx",
)


def with_texts(folder: Path, answers: Sequence[str]) -> list[Path]:
    files = []
    for name, ending in (("alpha", ""), ("beta", " more")):
        rows = [
            {"instruction": f"Question {n}?", "output": text + ending, "reward": n + len(ending)}
            for n, text in enumerate(answers)
        ]
        files.append(write_rows(folder / f"{name}.jsonl", rows))
    return files


@pytest.mark.parametrize("template", ["plain", "gemma", "chatml"])
@pytest.mark.parametrize("ending", [False, True])
def test_pieces_join_to_the_text_and_token_nlls_are_those_stored(
    tmp_path: Path, store: Path, model_folder: Path, template: str, ending: bool
):
    files = with_texts(tmp_path, AWKWARD)
    options = {"keep_tokens": True, "chat_template": template, "include_end_of_turn": ending}
    outcome = ranked(files, store, model_folder, **options)
    nats = stored_nats(outcome)
    tokenizer = AutoTokenizer.from_pretrained(model_folder)
    for example in examples_of(Compared.of(outcome)):
        for answer in example.answers:
            assert answer.text and answer.tokens
            ends = {"gemma": "<end_of_turn>", "chatml": "<|im_end|>"}.get(template, "<eos>")
            spelt = "".join(token.text for token in answer.tokens)
            assert spelt == answer.text + ends * ending
            kept, shown = nats[answer.text], [token.loss for token in answer.tokens]
            assert sum(shown) == pytest.approx(sum(kept), rel=1e-5)
            if answer.text.isascii() and len(tokenizer.tokenize(ends)) == 1:
                assert shown == kept


def test_pieces_are_what_the_student_s_tokens_stand_for(
    tmp_path: Path, store: Path, model_folder: Path
):
    outcome = ranked(with_texts(tmp_path, AWKWARD[:1] * 2), store, model_folder, keep_tokens=True)
    (_, answer), *_ = [example.answers for example in examples_of(Compared.of(outcome))]
    tokenizer = AutoTokenizer.from_pretrained(model_folder)
    ids = tokenizer(answer.text, add_special_tokens=False)["input_ids"]
    assert [token.text for token in answer.tokens] == [tokenizer.decode([one]) for one in ids]


def test_what_was_not_scored_is_shown_as_cut(tmp_path: Path, store: Path, model_folder: Path):
    long = "the cat sat on the mat and " * 40
    outcome = ranked(
        with_texts(tmp_path, ["short", long]), store, model_folder, keep_tokens=True, max_length=40
    )
    for example in examples_of(Compared.of(outcome)):
        for answer in example.answers:
            cut = [token.loss for token in answer.tokens if token.role == "cut"]
            assert bool(cut) == (len(answer.text or "") > 100)
            assert set(cut) <= {None}
            assert "".join(token.text for token in answer.tokens) == answer.text


def test_no_tokenizer_is_loaded_where_no_token_nll_is_stored(
    tmp_path: Path, store: Path, model_folder: Path
):
    files = write_teachers(tmp_path)
    ranked(files, store, model_folder)
    again = ranked(files, store, model_folder)
    examples_of(Compared.of(again))
    assert again.plan.student is not None
    assert "encoder" not in vars(again.plan.student)


def test_with_token_nlls_stored_the_tokenizer_alone_is_loaded(
    tmp_path: Path, store: Path, model_folder: Path
):
    files = write_teachers(tmp_path)
    ranked(files, store, model_folder, keep_tokens=True)
    again = ranked(files, store, model_folder, keep_tokens=True)
    assert all(answer.tokens for one in examples_of(Compared.of(again)) for answer in one.answers)
    assert again.plan.student is not None
    assert "likelihood" not in vars(again.plan.student)


def test_long_texts_are_cut_and_the_rest_is_counted(tmp_path: Path, store: Path):
    question, text = "why? " * 1000, "é" * (LONGEST_TEXT + 5)
    rows = [
        {"instruction": f"{n} {question}", "output": text[n:], "reward": float(n)} for n in (0, 1)
    ]
    files = [write_rows(tmp_path / f"{name}.jsonl", rows) for name in ("one", "two")]
    (outcome,) = scored(files, store, reward_column="reward")
    for example in examples_of(Compared.of(outcome)):
        number = int(example.instruction[0])
        assert len(example.instruction) == LONGEST_TEXT
        assert example.left_out == len(f"{number} {question}") - LONGEST_TEXT
        for answer in example.answers:
            assert answer.text == "é" * LONGEST_TEXT
            assert answer.left_out == 5 - number


def test_an_answer_whose_text_has_gone_keeps_its_scores_and_says_so(tmp_path: Path, store: Path):
    files = write_teachers(tmp_path, teachers=2, instructions=4)
    (outcome,) = scored(files, store, reward_column="reward")
    compared = Compared.of(outcome)
    write_rows(files[0], [{**row, "output": "rewritten"} for row in rows_of(0, 4)])
    for example in examples_of(compared):
        answers = {answer.teacher: answer for answer in example.answers}
        assert (answers["alpha"].text, answers["alpha"].note) == (None, GONE)
        assert answers["alpha"].scores["reward"] is not None
        assert answers["beta"].text is not None


def test_two_teachers_that_say_the_same_both_have_the_text(tmp_path: Path, store: Path):
    rows = rows_of(0, 4)
    changed = [{**row, "reward": row["reward"] / 2} for row in rows]
    files = [write_rows(tmp_path / "one.jsonl", rows), write_rows(tmp_path / "two.jsonl", changed)]
    (outcome,) = scored(files, store, reward_column="reward")
    for example in examples_of(Compared.of(outcome)):
        first, second = example.answers
        assert first.text == second.text is not None
        assert second.scores["reward"] == pytest.approx(first.scores["reward"] / 2)


def test_every_turn_of_a_longer_conversation_is_named():
    turns = (Message("system", "Be brief."), Message("user", "Hello"))
    assert conversation(Instruction(turns)) == "system: Be brief.\n\nuser: Hello"
    assert conversation(Instruction(turns[1:])) == "Hello"


@pytest.mark.parametrize(
    ("pieces", "nats", "found"),
    [
        (["ab", "c"], [1, 2], [("ab", 1), ("c", 2)]),
        (["é", "", "x"], [1, 2, 4], [("é", 3), ("x", 4)]),
        (["é", "", ""], [1, 2, 4], [("é", 7)]),
        (["", "é"], [1, 2], [("é", 3)]),
        (["ab", "c"], [1, None], [("ab", 1), ("c", None)]),
        ([], [], []),
    ],
)
def test_a_character_of_several_tokens_has_the_sum_of_their_losses(
    pieces: list[str], nats: list[float | None], found: list[tuple[str, float | None]]
):
    tokens = [
        ShownToken(1, piece, "answer", nat, None if nat is None else int(nat))
        for piece, nat in zip(pieces, nats, strict=True)
    ]
    whole = whole_characters(tokens)
    assert [(token.text, token.loss) for token in whole] == found
    assert max((token.rank or 0 for token in whole), default=0) == max([0, *filter(None, nats)])


def test_what_a_student_reads_is_shown_as_the_tokens_command_has_it(
    tmp_path: Path, store: Path, model_folder: Path
):
    options = {"chat_template": "gemma", "max_length": 30}
    files = with_texts(
        tmp_path, ["<think>Two and two.</think> four is the sum of it all", "é 日本"]
    )
    outcome = ranked(files, store, model_folder, keep_tokens=True, **options)
    for place, row in enumerate(outcome.data.source, 1):
        shown = tokens(files, student=model_folder, row=place, store=str(store), **options)
        (answer,) = (
            answer
            for example in examples_of(Compared.of(outcome))
            for answer in example.answers
            if (answer.teacher, answer.text) == (row.teacher, row.text)
        )
        context = [token for token in shown.tokens if token.role == "context"]
        assert answer.context == "".join(token.text for token in context)
        rest = shown.tokens[len(context) :]
        assert answer.tokens == tuple(whole_characters(rest))
        assert {token.role for token in rest} >= (
            {"cut"} if row.text.startswith("<") else {"answer"}
        )


def test_what_is_shown_is_plain_data(tmp_path: Path, store: Path):
    (outcome,) = scored(write_teachers(tmp_path), store, reward_column="reward")
    example = examples_of(Compared.of(outcome))[0]
    assert isinstance(example.answers[0], Answer)
    plain = [dict(answer.scores) for answer in example.answers]
    assert json.loads(json.dumps([plain, example.disagreement])) == [plain, example.disagreement]
    assert module.MOST_EXAMPLES == 60
