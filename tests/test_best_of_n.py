"""Best, worst and random of N: chosen as by hand, at no new generation and no second score."""

import json
import logging
from pathlib import Path
from typing import Any

import pytest

from chat_server import Handler, Told, serving
from preceptor.config.base import checked
from preceptor.config.runtime import Runtime
from preceptor.config.study import Study
from preceptor.errors import StudyError
from preceptor.pipeline.load import LoadedData
from preceptor.pipeline.pipeline import Pipeline
from preceptor.pipeline.race import race
from preceptor.ranking.result import Ranking
from small_study import write_rows
from small_teachers import (
    GRADED,
    Asked,
    drawn,
    generations,
    graded,
    runtime_at,
    study_with,
    texts_in,
    write_questions,
)

pytestmark = pytest.mark.usefixtures("private_cache")

# By instruction, the rewards of alpha's samples in order; None is no reward.
REWARDS: tuple[tuple[float | None, ...], ...] = (
    (0.2, 0.9, 0.5),
    (0.7, 0.1, 0.8),
    (0.4, 0.4, 0.1),  # a tie at the top
    (0.6, 0.3, 0.3),  # a tie at the bottom
)


def write_alpha(folder: Path, rewards: Any = REWARDS) -> Path:
    """Write the file of alpha, whose texts name instruction and sample."""
    rows = [
        {"instruction": f"Question {place}?", "output": f"text {place} {sample}", "reward": value}
        for place, values in enumerate(rewards)
        for sample, value in enumerate(values)
    ]
    return write_rows(folder / "alpha.jsonl", rows)


def column_study(file: Path, *derived: dict[str, Any], **tables: Any) -> Study:
    reward = {"kind": "column", "column": "reward"}
    given = {"data": {"responses": str(file)}, "reward": reward, "best_of_n": derived, **tables}
    given["no_student"] = "students" not in tables
    return checked(Study, given, where="here")


def opened(study: Study, store: Path) -> LoadedData:
    (found,) = Pipeline(study, Runtime(store=str(store), device="cpu")).load()
    return found


def texts_of(found: LoadedData, teacher: str) -> list[str]:
    """Return the texts of a teacher's rows, whatever their order."""
    texts = {response.key: response.text or "" for response in found.source}
    table = found.selection.table
    rows = table.teacher == table.teachers.index(teacher)
    return sorted(texts[key] for key in table.keys[rows].tolist())


@pytest.mark.parametrize(
    ("derived", "samples"),
    [
        # Of equal rewards the earlier sample: 0 of the third best and 1 of the fourth worst.
        ({"kind": "best"}, (1, 2, 0, 0)),
        ({"kind": "worst"}, (0, 1, 2, 1)),
        ({"kind": "best", "n": 2}, (1, 0, 0, 0)),
        ({"kind": "worst", "n": 2}, (0, 1, 0, 1)),
    ],
)
def test_the_sample_chosen_is_the_one_chosen_by_hand(
    tmp_path: Path, derived: dict[str, Any], samples: tuple[int, ...]
):
    study = column_study(write_alpha(tmp_path), {"of": "alpha", "label": "chosen", **derived})
    found = opened(study, tmp_path / "store")
    assert texts_of(found, "chosen") == [f"text {place} {s}" for place, s in enumerate(samples)]


def test_the_mean_reward_of_a_derived_teacher_is_that_of_the_chosen_samples(tmp_path: Path):
    derived = [{"kind": kind, "of": "alpha", "label": kind} for kind in ("best", "worst")]
    study = column_study(write_alpha(tmp_path), *derived)
    (ranking,) = Pipeline(study, Runtime(store=str(tmp_path / "store"), device="cpu")).rankings()
    found = {record["teacher"]: record["reward"] for record in ranking.to_records()}
    assert found["best"] == pytest.approx((0.9 + 0.8 + 0.4 + 0.6) / 4)
    assert found["worst"] == pytest.approx((0.2 + 0.1 + 0.1 + 0.3) / 4)
    # A best-of-N teacher has one response each; alpha is compared by the mean of all its samples.
    means = [sum(rewards) / len(rewards) for rewards in REWARDS]
    assert found["alpha"] == pytest.approx(sum(means) / len(means))


def test_random_chooses_among_the_first_n_and_the_seed_says_which(tmp_path: Path):
    rewards = [(0.1, 0.2, 0.3, 0.4)] * 60
    derived = [
        {"kind": "random", "of": "alpha", "n": n, "seed": seed, "label": f"{n} {seed}"}
        for n, seed in ((2, 0), (4, 0), (4, 1))
    ]
    found = opened(column_study(write_alpha(tmp_path, rewards), *derived), tmp_path / "store")
    by_label = {
        label: [int(text.split()[2]) for text in texts_of(found, label)]
        for label in ("2 0", "4 0", "4 1")
    }
    # Of 60 draws among 4, each sample is missed by chance once in 30 million (0.75 ** 60).
    assert set(by_label["2 0"]) == {0, 1}
    assert set(by_label["4 0"]) == set(by_label["4 1"]) == {0, 1, 2, 3}
    assert by_label["4 0"] != by_label["4 1"]
    again = opened(column_study(write_alpha(tmp_path, rewards), *derived), tmp_path / "store")
    assert texts_of(again, "4 0") == texts_of(found, "4 0")


def test_instructions_with_fewer_samples_with_a_reward_are_left_out_and_counted(tmp_path: Path):
    rewards = [*REWARDS, (0.5, None, 0.9), (None, None, None)]
    derived = {"kind": "best", "of": "alpha", "n": 3, "label": "chosen"}
    found = opened(column_study(write_alpha(tmp_path, rewards), derived), tmp_path / "store")
    assert len(texts_of(found, "chosen")) == 4
    dropped = found.selection.table.dropped
    assert dropped["chosen"] == {"fewer than 3 samples with a reward": 1, "missing": 1}
    assert dropped["alpha"] == {"null reward": 4}
    assert len(found.selection.taken) == 4


def test_all_samples_choose_where_no_n_is_given_though_some_have_no_reward(tmp_path: Path):
    rewards = [*REWARDS, (0.5, None, 0.9)]
    derived = {"kind": "best", "of": "alpha", "label": "chosen"}
    found = opened(column_study(write_alpha(tmp_path, rewards), derived), tmp_path / "store")
    assert texts_of(found, "chosen")[-1] == "text 4 2"


def test_a_sample_that_a_rule_cannot_score_is_never_the_worst(tmp_path: Path):
    rows = [
        {"instruction": f"Question {place}?", "output": text}
        for place in range(4)
        for text in ("It is step one.", " ", "It is nothing.")
    ]
    file = write_rows(tmp_path / "alpha.jsonl", rows)
    rule = {"kind": "rule", "rule": {"kind": "contains", "answer": "step"}}
    derived = {"kind": "worst", "of": "alpha", "label": "chosen"}
    found = opened(column_study(file, derived, reward=rule), tmp_path / "store")
    assert texts_of(found, "chosen") == ["It is nothing."] * 4


def test_a_teacher_nobody_knows_is_refused_with_the_nearest_name(tmp_path: Path):
    study = column_study(write_alpha(tmp_path), {"kind": "best", "of": "alhpa"})
    said = (
        r"chooses among samples of 'alhpa', which is no teacher here. Known: 'alpha'. "
        r"Did you mean 'alpha'\?"
    )
    with pytest.raises(StudyError, match=said):
        opened(study, tmp_path / "store")


def test_a_teacher_of_one_sample_is_refused(tmp_path: Path):
    study = column_study(write_alpha(tmp_path, [(0.1,), (0.2,)]), {"kind": "random", "of": "alpha"})
    with pytest.raises(StudyError, match=r"samples of 'alpha', which gave one response to each"):
        opened(study, tmp_path / "store")


def test_a_name_that_a_teacher_of_the_files_has_is_refused(tmp_path: Path):
    derived = {"kind": "best", "of": "alpha", "label": "alpha"}
    with pytest.raises(StudyError, match="named 'alpha' like another: rename it"):
        opened(column_study(write_alpha(tmp_path), derived), tmp_path / "store")


def test_without_any_reward_only_random_can_be_derived(tmp_path: Path):
    random = {"kind": "random", "of": "alpha", "label": "any"}
    alone = column_study(write_alpha(tmp_path), random, reward=[])
    assert len(texts_of(opened(alone, tmp_path / "store"), "any")) == 4
    best = column_study(write_alpha(tmp_path), {"kind": "best", "of": "alpha"}, reward=[])
    with pytest.raises(StudyError, match="'alpha best-of-all' needs a reward to choose by"):
        opened(best, tmp_path / "store")


def test_another_reward_than_the_one_that_ranks_can_choose(tmp_path: Path):
    rows = [
        {"instruction": f"Question {n}?", "output": f"text {n} {s}", "reward": s, "other": -s}
        for n in range(3)
        for s in range(3)
    ]
    file = write_rows(tmp_path / "alpha.jsonl", rows)
    other = {"kind": "column", "column": "other"}
    study = column_study(file, {"kind": "best", "of": "alpha", "label": "chosen", "reward": other})
    found = opened(study, tmp_path / "store")
    assert texts_of(found, "chosen") == [f"text {n} 0" for n in range(3)]
    assert not [told for told in found.warnings if told.code == "chosen-by-own-reward"]


def test_choosing_by_the_reward_that_ranks_is_warned_of_but_for_random(tmp_path: Path):
    same = {"kind": "column", "column": "reward"}
    derived = [
        {"kind": "best", "of": "alpha", "label": "by default"},
        {"kind": "worst", "of": "alpha", "label": "by name", "reward": same},
        {"kind": "random", "of": "alpha", "label": "any"},
    ]
    study = column_study(write_alpha(tmp_path), *derived)
    (ranking,) = Pipeline(study, Runtime(store=str(tmp_path / "store"), device="cpu")).rankings()
    warned = [told for told in ranking.warnings if told.code == "chosen-by-own-reward"]
    assert [told.text.split("'")[1] for told in warned] == ["by default", "by name"]


BEST = {"kind": "best", "of": "one", "label": "best"}


def by_words(handler: Handler, asked: dict[str, Any]) -> None:
    """Judge a response by its number of words: 1 for each six, 10 at most."""
    prompt = asked["messages"][0]["content"]
    text = prompt.split(" response to be judged\n")[1].split("\n\n===")[0]
    message = {"role": "assistant", "content": str(1 + min(len(text.split()) // 6, 9))}
    usage = {"prompt_tokens": 11, "completion_tokens": 1}
    body = {"choices": [{"message": message, "finish_reason": "stop"}], "usage": usage}
    handler.send(200, json.dumps(body).encode(), {})


def judged(
    tmp_path: Path,
    told: Told,
    prompts: int = 6,
    derived: tuple[dict[str, Any], ...] = (BEST, {"kind": "worst", "of": "one", "label": "worst"}),
    **more: Any,
) -> tuple[Study, Runtime]:
    """Return a study in which a judge chooses, and ranks."""
    judge = {"kind": "judge", "model": "served", "logprobs": False}
    questions = write_questions(tmp_path, prompts)
    study = study_with(questions, drawn(), reward=judge, best_of_n=derived, **more)
    return study, runtime_at(tmp_path / "store", told)


def test_a_judge_scores_each_text_once_though_it_chooses_and_ranks(tmp_path: Path):
    with serving(otherwise=by_words) as told:
        study, runtime = judged(tmp_path, told)
        (ranking,) = Pipeline(study, runtime).rankings()
        texts = set(texts_in(tmp_path / "store").values())
        assert len(told.requests) == len(texts) == 18
        (again,) = Pipeline(study, runtime).rankings()
        assert len(told.requests) == 18
    assert again.to_records() == ranking.to_records()
    found = {record["teacher"]: record["reward"] for record in ranking.to_records()}
    scores: dict[bytes, list[int]] = {}
    for _, one in generations(tmp_path / "store"):
        score = 1 + min(len((one.text or "").split()) // 6, 9)
        scores.setdefault(one.instruction, []).append(score)
    assert found["best"] == pytest.approx(sum(max(s) for s in scores.values()) / 6)
    assert found["worst"] == pytest.approx(sum(min(s) for s in scores.values()) / 6)


def test_a_race_counts_the_judging_that_only_chooses(tmp_path: Path):
    with serving(otherwise=by_words) as told:
        options = {"start": 20, "confidence": 0.9}
        derived = (BEST, {**BEST, "n": 2, "label": "of two"})
        study, runtime = judged(tmp_path, told, 60, derived, by="reward", race=options)
        (found,) = race(Pipeline(study, runtime))
    assert found["one"].rows < found.leader.rows
    assert found.spent.judge_tokens == (11 + 1) * len(told.requests)


def test_a_plan_pays_for_no_reward_to_choose_by(tmp_path: Path):
    from preceptor.api import plan

    with serving(otherwise=by_words) as told:
        study, runtime = judged(tmp_path, told)
        Pipeline(study_with(write_questions(tmp_path), drawn()), runtime).rankings()
        assert told.requests == []
        (data,) = plan(study, runtime).data
        assert told.requests == []
    assert "'best' will be chosen when 18 more rewards are there." in [
        one.text for one in data.warnings
    ]


def table_3(tmp_path: Path) -> Ranking:
    """Return the ranking of the paper's table 3 on made-up texts: T = 0.8, N = 5, and greedy.

    Xu et al. 2025, table 3 and finding 5. A rule on the letter e chooses, another ranks.
    """
    letters = [{"name": "letter_count", "letter": "e", "at_least": n} for n in range(4, 60, 4)]
    rule = {"kind": "constraints", "constraints": letters, "partial": True}
    chooses = {"reward": {"kind": "rule", "rule": rule}}
    derived = [
        {"kind": "best", "of": "sampled", "n": 5, **chooses},
        {"kind": "worst", "of": "sampled", "n": 5, **chooses},
        {"kind": "random", "of": "sampled", "n": 5},
    ]
    sampled = drawn(label="sampled", temperature=0.8, samples=5)
    greedy = {"model": "one", "engine": "fake", "label": "greedy"}
    questions = write_questions(tmp_path, 12)
    study = study_with(questions, sampled, greedy, reward=GRADED, best_of_n=derived)
    told = Asked()
    (ranking,) = Pipeline(study, runtime_at(tmp_path / "store"), told).rankings()
    assert told.missing == {"sampled": 60, "greedy": 12}
    return ranking


def test_the_set_up_of_table_3_is_one_study(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    with caplog.at_level(logging.WARNING):
        ranking = table_3(tmp_path)
    found = {record["teacher"]: record for record in ranking.to_records()}
    names = {"sampled", "greedy", "sampled best-of-5", "sampled worst-of-5", "sampled random-of-5"}
    assert found.keys() == names
    assert {record["n"] for record in found.values()} == {12}
    assert not [told for told in ranking.warnings if told.code == "chosen-by-own-reward"]
    # By hand: the sample with the most letters e, to a step of four, and of equal ones the first.
    samples: dict[bytes, dict[int, str]] = {}
    for _, one in generations(tmp_path / "store"):
        samples.setdefault(one.instruction, {})
    digests = {ranking.settings["teachers"]["sampled"]["identity"]}  # type: ignore[index]
    for digest, one in generations(tmp_path / "store"):
        if digest in digests:
            samples[one.instruction][one.sample] = one.text or ""

    def letters(text: str) -> int:
        return min(text.lower().count("e") // 4, 14)

    best = [max(range(5), key=lambda n: (letters(of[n]), -n)) for of in samples.values()]
    rewards = [graded(of[n]) for of, n in zip(samples.values(), best, strict=True)]
    assert found["sampled best-of-5"]["reward"] == pytest.approx(sum(rewards) / 12)
    worst = [min(range(5), key=lambda n: (letters(of[n]), n)) for of in samples.values()]
    rewards = [graded(of[n]) for of, n in zip(samples.values(), worst, strict=True)]
    assert found["sampled worst-of-5"]["reward"] == pytest.approx(sum(rewards) / 12)
