"""What a plan says of asking teachers, checked by hand; and that it asks, stores and loads nothing."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from chat_server import serving
from preceptor.api import plan
from preceptor.config.runtime import Runtime
from preceptor.config.study import Study
from preceptor.pipeline.estimate import ASSUMED_TOKENS, GenerationEstimate
from preceptor.types import Generation
from small_study import preceptor
from small_teachers import (
    GRADED,
    asked_in,
    backend,
    drawn,
    fake,
    job,
    jobs,
    runtime_at,
    served,
    study_with,
    texts_in,
    write_questions,
)

pytestmark = pytest.mark.usefixtures("private_cache")

CHARACTERS = len("What is number 0 good for?")
"""Characters of each of up to ten instructions."""


@pytest.fixture
def store(tmp_path: Path) -> Path:
    return tmp_path / "store"


def ask_of(study: Study, runtime: Runtime, teacher: str = "served") -> GenerationEstimate:
    (found,) = [ask for ask in plan(study, runtime).generation if ask.teacher == teacher]
    return found


def fill(study: Study, runtime: Runtime, count: int, **numbers: Any) -> None:
    """Store `count` responses of the study's teacher that took these numbers."""
    one = job(study, runtime)
    asks = one.wanted()[:count]
    one.partition.append(
        [Generation(ask.instruction.id, ask.sample, "text", "stop", **numbers) for ask in asks]
    )


def priced(store: Path, **endpoint: Any) -> Runtime:
    """Return a machine whose endpoint nobody serves, with prices for a million tokens."""
    with serving() as told:
        return runtime_at(store, told, price_in=2.0, price_out=8.0, **endpoint)


def test_a_plan_asks_stores_and_scores_nothing(tmp_path: Path, store: Path):
    study = study_with(write_questions(tmp_path), served(), drawn(), reward=GRADED)
    with serving() as told:
        found = plan(study, runtime_at(store, told))
    assert told.requests == []
    assert not store.exists()
    assert [(ask.teacher, ask.stored, ask.missing) for ask in found.generation] == [
        ("served", 0, 6),
        ("one", 0, 18),
    ]
    assert found.data == ()
    assert found.later == ["any student, length", "any student, verifier"]


def test_where_nothing_is_stored_lengths_are_assumed_and_said_to_be(tmp_path: Path, store: Path):
    study = study_with(write_questions(tmp_path, 10), served(max_tokens=2048))
    ask = ask_of(study, priced(store))
    assert ASSUMED_TOKENS == 500
    assert (ask.missing, ask.tokens, ask.most_tokens) == (10, 10 * 500, 10 * 2048)
    assert ask.prompt_tokens == round(10 * CHARACTERS / 4)
    assert ask.basis == "length assumed: 500 tokens"
    assert ask.seconds is None
    # By hand: 65 prompt tokens at 2 and 5,000 tokens at 8 for a million.
    assert ask.prompt_tokens == 65
    assert ask.money == pytest.approx((65 * 2 + 5000 * 8) / 1e6)
    assert ask.most_money == pytest.approx((65 * 2 + 20480 * 8) / 1e6)


def test_the_limit_of_an_answer_bounds_what_is_assumed(tmp_path: Path, store: Path):
    ask = ask_of(study_with(write_questions(tmp_path), served(max_tokens=40)), priced(store))
    assert (ask.tokens, ask.most_tokens) == (240, 240)


def test_stored_responses_of_the_teacher_say_how_long_the_rest_will_be(tmp_path: Path, store: Path):
    study = study_with(write_questions(tmp_path, 10), served(max_tokens=2048))
    runtime = priced(store)
    fill(study, runtime, 5, tokens=100, prompt_tokens=30, seconds=0.5)
    ask = ask_of(study, runtime)
    assert (ask.stored, ask.missing) == (5, 5)
    # By hand: 5 of 100 tokens and 30 prompt tokens, at 100 tokens in half a second.
    assert (ask.tokens, ask.prompt_tokens) == (500, 150)
    assert ask.seconds == pytest.approx(500 / 200)
    assert ask.money == pytest.approx((150 * 2 + 500 * 8) / 1e6)
    assert ask.basis == ("length by 5 stored responses of this teacher; time by their speed")


def test_else_other_teachers_say_it_in_proportion_to_what_they_gave(tmp_path: Path, store: Path):
    questions = write_questions(tmp_path, 40)
    runtime = priced(store)
    fill(study_with(questions, fake("one")), runtime, 5, tokens=100)
    fill(study_with(questions, fake("two")), runtime, 15, tokens=20)
    fill(study_with(questions, fake("few")), runtime, 4, tokens=900)  # too few to tell
    ask = ask_of(study_with(questions, served(max_tokens=2048)), runtime)
    assert ask.tokens == 40 * (5 * 100 + 15 * 20) / 20
    assert ask.basis == "length by other teachers' stored responses"
    bounded = ask_of(study_with(questions, served(max_tokens=30)), runtime)
    assert bounded.tokens == 40 * 30


def test_four_responses_are_too_few_to_go_by(tmp_path: Path, store: Path):
    study = study_with(write_questions(tmp_path, 10), served(max_tokens=2048))
    fill(study, priced(store), 4, tokens=100)
    assert ask_of(study, priced(store)).basis == "length assumed: 500 tokens"


@pytest.mark.parametrize(
    ("samples", "at_once", "requests"), [(4, 4, 1), (5, 4, 2), (1, 4, 1), (5, 1, 5), (6, 3, 2)]
)
def test_samples_of_one_request_share_its_prompt(
    tmp_path: Path, store: Path, samples: int, at_once: int, requests: int
):
    table = served(temperature=0.8, samples=samples, samples_per_request=at_once, max_tokens=2048)
    study = study_with(write_questions(tmp_path, 10), table)
    assert ask_of(study, priced(store)).prompt_tokens == round(10 * requests * CHARACTERS / 4)
    more = served(temperature=0.8, samples=9, samples_per_request=at_once, max_tokens=2048)
    fill(
        study_with(write_questions(tmp_path, 10), more),
        priced(store),
        90,
        tokens=9,
        prompt_tokens=30,
    )
    further = served(**{**more, "samples": 9 + samples})
    expected = len({sample // at_once for sample in range(9, 9 + samples)})
    ask = ask_of(study_with(write_questions(tmp_path, 10), further), priced(store))
    assert ask.prompt_tokens == 30 * 10 * expected


def test_the_system_text_belongs_to_every_prompt(tmp_path: Path, store: Path):
    study = study_with(write_questions(tmp_path, 10), served(system="x" * 40))
    assert ask_of(study, priced(store)).prompt_tokens == round(10 * (CHARACTERS + 40) / 4)


def test_without_prices_there_is_no_money(tmp_path: Path, store: Path):
    study = study_with(write_questions(tmp_path), served(), drawn())
    with serving() as told:
        runtime = runtime_at(store, told, price_in=1.0)
    for teacher in ("served", "one"):
        ask = ask_of(study, runtime, teacher)
        assert (ask.money, ask.most_money) == (None, None)


def test_once_all_is_answered_the_steps_of_scoring_are_told(tmp_path: Path, store: Path):
    study = study_with(write_questions(tmp_path), drawn(), reward=GRADED)
    asked_in(study_with(write_questions(tmp_path), drawn()), runtime_at(store))
    found = plan(study, runtime_at(store))
    assert [(ask.stored, ask.missing, ask.tokens, ask.basis) for ask in found.generation] == [
        (18, 0, 0, "")
    ]
    assert found.later == ()
    assert [step.step for step in found.steps] == ["length", "verifier"]
    (data,) = found.data
    assert data.selection.table.teachers == ("one",)


def test_a_local_teacher_is_not_loaded_where_its_speed_is_known(
    tmp_path: Path, store: Path, model_folder: Path
):
    table = {
        "model": str(model_folder),
        "label": "tiny",
        "max_tokens": 50,
        "chat_template": "plain",
    }
    study = study_with(write_questions(tmp_path, 10), table)
    runtime = runtime_at(store)
    fill(study, runtime, 6, tokens=50, prompt_tokens=12, seconds=2.0)
    file = tmp_path / "study.toml"
    file.write_text(f"""
        data.instructions = ["{tmp_path / "questions.jsonl"}"]
        [[teachers]]
        model = "{model_folder}"
        label = "tiny"
        max_tokens = 50
        chat_template = "plain"
        [runtime]
        store = "{store}"
        device = "cpu"
    """)
    code = f"""
import json, sys
from preceptor.api import plan
from preceptor.config.study import StudyFile
file = StudyFile.read({str(file)!r})
(ask,) = plan(file.study, file.runtime).generation
print(json.dumps([ask.missing, ask.tokens, ask.seconds, "torch" in sys.modules]))
"""
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    # 4 responses of 50 tokens at 25 tokens a second.
    assert json.loads(said.stdout) == [4, 200, 8.0, False]


def test_a_local_teacher_of_unknown_speed_is_told_what_the_machine_cannot_beat(
    tmp_path: Path, store: Path, model_folder: Path
):
    table = {"model": str(model_folder), "label": "tiny", "max_tokens": 50}
    study = study_with(write_questions(tmp_path), table)
    ask = ask_of(study, runtime_at(store), "tiny")
    assert ask.basis == "length assumed: 50 tokens; time at the machine's limit, so at least"
    assert ask.seconds is not None and 0 < ask.seconds < 60
    assert "chat" not in vars(backend(study, runtime_at(store)))
    assert not store.exists()


def test_points_of_one_identity_are_each_told_with_all_they_lack(tmp_path: Path, store: Path):
    study = study_with(write_questions(tmp_path), fake(temperature=[0.0, 0.5]))
    assert [(ask.teacher, ask.missing) for ask in plan(study, runtime_at(store)).generation] == [
        ("one T=0", 6),
        ("one T=0.5", 6),
    ]
    assert len(jobs(study, runtime_at(store))) == 2


def test_the_command_prints_what_asking_would_take(tmp_path: Path, store: Path):
    file = tmp_path / "study.toml"
    file.write_text(f"""
        data.instructions = ["{write_questions(tmp_path, 10)}"]
        [[teachers]]
        model = "served"
        engine = "openai"
        max_tokens = 2048
        [runtime]
        store = "{store}"
        [runtime.endpoints.served]
        url = "http://127.0.0.1:9/v1"
        price_in = 200
        price_out = 800
    """)
    result = preceptor("plan", file)
    assert result.exit_code == 0, result.output
    words = " ".join(result.output.split())
    assert "served (greedy) 0 10 65 5,000 20,480 unknown 4.01 (at most 16.40)" in words
    assert "served: length assumed: 500 tokens." in words
    assert "Then, on the responses: any student, length." in words
    assert texts_in(store) == {}
