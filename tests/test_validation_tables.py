"""The tables `[train]` and `[evaluate]` are refused where they could not prove anything."""

import pytest

from preceptor.config.base import checked
from preceptor.config.finetune import ChatJudge, Evaluate, RewardJudge, Train
from preceptor.config.recipe import Recipe
from preceptor.config.reward_models import PRESETS as REWARD_MODELS
from preceptor.config.study import Study
from preceptor.errors import StudyError

JUDGE = {"kind": "chat", "model": "judge"}
EVALUATE = {"questions": "questions.jsonl", "judge": JUDGE}
PRESET = next(iter(REWARD_MODELS))
STUDY = {
    "data": {"responses": ["a.jsonl"]},
    "students": [{"model": "student", "chat_template": "gemma"}],
    "train": {},
    "evaluate": EVALUATE,
}


def test_what_is_not_given_is_the_papers_recipe_and_the_students_template():
    study = checked(Study, STUDY, where="here")
    assert study.train is not None
    (evaluate,) = study.evaluate
    recipe = study.train.recipe(study.students[0].chat_template)
    assert recipe == Recipe(chat_template="gemma")
    assert type(recipe) is Recipe  # so that what is drawn enters the identity as rows alone
    assert evaluate.temperature == 0
    assert evaluate.held_against == "student"


def test_a_template_of_the_recipe_goes_before_the_students():
    assert Train(chat_template="chatml").recipe("gemma").chat_template == "chatml"


def test_a_benchmark_is_held_against_its_own_baseline_by_default():
    table = checked(Evaluate, {"benchmarks": ["alpaca_eval"], "judge": JUDGE}, where="here")
    assert table.held_against == "benchmark"


def test_presets_of_judges_are_resolved_only_where_they_are_run_here():
    assert ChatJudge(model="qwen3-4b").located == "Qwen/Qwen3-4B-Instruct-2507"
    assert ChatJudge(model="qwen3-4b", engine="openai").located == "qwen3-4b"
    assert RewardJudge(model=PRESET).model == REWARD_MODELS[PRESET].model


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"evaluate": None}, "[train] is given without [evaluate]"),
        ({"train": None}, "[evaluate] is given without [train]"),
        ({"students": []}, "without [[students]]"),
        ({"train": {"teachers": ["one"]}}, "an order needs two teachers or more"),
        ({"train": {"teachers": ["one", "one"]}}, "a teacher is named twice"),
        ({"train": {"row": 3}}, "unknown field. Did you mean 'rows'?"),
        (
            {"train": {"limit": 3}},
            "train.limit: unknown field here: it belongs in [data], or in [evaluate].",
        ),
        (
            {"beta": 3, "seed": 1},
            "seed: unknown field here: it belongs in [teachers], or in [best_of_n], or in ",
        ),
        ({"evaluate": {"judge": JUDGE}}, "give either benchmarks or questions"),
        (
            {"evaluate": {**EVALUATE, "benchmarks": ["arena_hard"]}},
            "give either benchmarks or questions",
        ),
        ({"evaluate": {**EVALUATE, "baseline": "benchmark"}}, "questions of your own have none"),
        (
            {
                "evaluate": {
                    "benchmarks": ["alpaca_eval", "arena_hard"],
                    "baseline": "student",
                    "judge": JUDGE,
                }
            },
            "against their own baselines",
        ),
        (
            {
                "evaluate": {
                    "benchmarks": ["alpaca_eval", "arena_hard"],
                    "limit": 50,
                    "judge": JUDGE,
                }
            },
            "AP over parts of the benchmarks is withheld",
        ),
        (
            {"evaluate": {**EVALUATE, "judge": {**JUDGE, "logprobs": False}}},
            "logprobs = false is for",
        ),
        (
            {
                "reward": {"kind": "model", "model": PRESET},
                "evaluate": {
                    **EVALUATE,
                    "judge": {"kind": "reward", "model": REWARD_MODELS[PRESET].model},
                },
            },
            "made the rewards of the prediction",
        ),
        (
            {
                "reward": [{"kind": "model", "model": PRESET}, {"kind": "column", "column": "x"}],
                "best_of_n": [{"kind": "best", "of": "a"}],
            },
            "is another teacher under each reward",
        ),
    ],
)
def test_what_could_prove_nothing_is_refused_when_the_file_is_read(change, said):
    with pytest.raises(StudyError) as refused:
        checked(Study, STUDY | change, where="here")
    assert said in str(refused.value)
