"""Scripts get what the command line gives, from the same calls."""

from pathlib import Path
from typing import Any

import click
import pytest

import preceptor
from preceptor import api
from preceptor.config.data import ReadOptions
from preceptor.config.keywords import RANK
from preceptor.config.rewards import JudgeReward
from preceptor.config.runtime import Endpoint, Runtime
from preceptor.config.student import Student
from preceptor.errors import StoreError, StudyError
from preceptor.ranking.metrics import CompatibilityAdjustedReward
from small_study import ranked, write_rows, write_teachers

pytestmark = pytest.mark.usefixtures("private_cache", "one_thread")


def test_a_script_gets_the_ranking_that_the_command_prints(tmp_path: Path, model_folder: Path):
    files, store = write_teachers(tmp_path), tmp_path / "store"
    ranking = preceptor.rank(
        files, student=str(model_folder), reward_column="reward", store=str(store), device="cpu"
    )
    words = ("--student", model_folder, "--reward-column", "reward", "--store", store)
    (printed,) = ranked(*files, *words, "--device", "cpu")
    assert ranking.to_dict() == printed
    assert ranking.student == model_folder.name


def test_one_path_alone_is_enough(tmp_path: Path):
    rows = [
        {"instruction": f"{n}?", "generator": g, "output": g * n} for n in (1, 2, 3) for g in "ab"
    ]
    path = write_rows(tmp_path / "both.jsonl", rows)
    for given in (path, str(path), [path]):
        ranking = preceptor.rank(given, no_student=True, store=str(tmp_path / "store"))
        assert {result.teacher for result in ranking.teachers} == {"a", "b"}


def test_every_option_reaches_its_place_in_the_study():
    study, runtime = api.study_of(
        ["a.jsonl"],
        students=["a/b", "c/d"],
        reward_column="score",
        metrics=["car", "rsr", "car"],
        by="rsr",
        beta=2.0,
        limit=7,
        max_length=99,
        chat_template="plain",
        revision="main",
        dtype="float16",
        seed=5,
        n_resamples=11,
        reward_transform="sigmoid",
        min_coverage=0.25,
        conditioning="unconditional",
        reduction="sequence-sum",
        include_end_of_turn=True,
        turns="all",
        reasoning="apart",
        columns=ReadOptions(teacher_column="who"),
        store="there",
        device="cpu",
        max_batch_tokens=64,
        keep_tokens=True,
    )
    assert study.data.responses == ("a.jsonl",)
    assert study.data.limit == 7
    assert study.data.columns.teacher_column == "who"
    for student in study.students:
        assert (student.max_length, student.chat_template) == (99, "plain")
        assert (student.revision, student.dtype) == ("main", "float16")
    assert [metric.kind for metric in study.metrics] == ["car", "rsr"]
    assert study.metrics[0] == CompatibilityAdjustedReward(beta=2.0)
    assert (study.by, study.beta) == ("rsr", 2.0)
    assert study.reading.model_dump() == {
        "conditioning": "unconditional",
        "reduction": "sequence-sum",
        "include_end_of_turn": True,
        "turns": "all",
        "reasoning": "apart",
    }
    options = study.ranking
    assert (options.seed, options.n_resamples, options.transform) == (5, 11, "sigmoid")
    assert options.min_coverage == 0.25
    assert runtime == Runtime(device="cpu", max_batch_tokens=64, store="there", keep_tokens=True)


def test_the_options_of_a_script_are_those_of_the_command_line():
    from preceptor.cli.app import cli

    rank = cli.commands["rank"]
    made = rank.get_params(click.Context(rank))
    command = {parameter.name for parameter in made if parameter.expose_value} - {"help"}
    assert len(command) > 50
    outputs = {"json_path", "csv_path", "html_path", "log_to"}
    given = {"responses", "students", "reward_column", "reward_models"}
    keywords = {name for group in RANK.values() for name in group}
    assert command - outputs - given <= keywords


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"misspelt": 1}, "rank has no option 'misspelt'"),
        ({"max_lenght": 9}, "Did you mean 'max_length'?"),
        ({"limit": "many"}, "data.limit"),
        ({"device": 3}, "device: Input should be a valid string"),
        ({"rubric": "r.txt"}, "rubric is given without a judge"),
        ({"judge_url": "http://127.0.0.1:1"}, "judge_url is given without a judge"),
        ({"judge_scale": (1, 5)}, "judge_scale is given without a judge"),
        ({"trust_remote_code": True}, "trust_remote_code is given without a reward model"),
        ({"chat_template": "plain"}, "chat_template is given without a student"),
    ],
)
def test_an_option_that_is_unknown_wrong_or_unheeded_is_refused(options: dict[str, Any], said: str):
    with pytest.raises(StudyError) as caught:
        preceptor.rank("a.jsonl", **options)
    assert said in str(caught.value)


def test_the_fields_of_a_judge_and_its_endpoint_follow_judge_():
    study, runtime = api.study_of(
        "a.jsonl",
        judge="served",
        judge_url="http://127.0.0.1:1/v1",
        judge_price_in=2.0,
        judge_scale=(0, 5),
        judge_seed=7,
        dtype="float16",
    )
    (judge,) = study.reward
    assert judge == JudgeReward(model="served", scale=(0, 5), seed=7, dtype="float16")
    assert runtime.endpoint("served") == Endpoint(url="http://127.0.0.1:1/v1", price_in=2.0)


def test_a_student_may_be_given_as_its_table():
    student = Student(model="a/b", chat_template="plain", max_length=99)
    study, _ = api.study_of("a.jsonl", students=[student, "c/d"], revision="main")
    assert study.students == (student, Student(model="c/d", revision="main"))


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"temprature": 1.0}, "generate has no option 'temprature'. Did you mean 'temperature'?"),
        ({"concurrency": 3}, "concurrency is given without url"),
        ({"samples": 0}, "teachers.0.samples"),
    ],
)
def test_an_option_of_generate_that_nothing_heeds_is_refused(
    options: dict[str, Any], said: str, tmp_path: Path
):
    with pytest.raises(StudyError) as caught:
        api.generate("q.jsonl", teacher="one", output=tmp_path / "out.jsonl", **options)
    assert said in str(caught.value)


def test_wrong_options_are_all_named():
    with pytest.raises(StudyError) as caught:
        api.study_of(["a"], students=["a/b"], limit=0, dtype="float8", beta=-1.0)
    assert "3 wrong field(s)" in str(caught.value)
    with pytest.raises(StudyError, match="Did you mean 'length'"):
        api.study_of(["a"], metrics=["lenght"])


@pytest.mark.parametrize(
    ("responses", "options", "said"),
    [
        (5, {}, "5 is no path: expected a file"),
        (None, {}, "None is no path"),
        (["a", 5], {}, "is no path"),
        ("a", {"columns": "generator"}, "columns is 'generator': expected ReadOptions"),
        ("a", {"students": ["a/b"]}, "it takes one student, rank_all several"),
    ],
)
def test_values_of_another_kind_are_refused_in_words(
    responses: Any, options: dict[str, Any], said: str
):
    with pytest.raises(StudyError, match=said):
        preceptor.rank(responses, **options)


VERBS = {
    "init": {"write_start", "study_schema"},
    "rank": {"rank", "rank_all"},
    "demo": {"demo_files"},
    "run": {"run", "validate"},
    "plan": {"plan"},
    "report": {"study_report"},
    "tokens": {"tokens"},
    "list": {"read_catalogue"},
    "instructions": {"curate_instructions"},
    "generate": {"generate"},
    "export": {"export_dataset", "push"},
    "train": {"train"},
    "evaluate": {"evaluate"},
    "ability": {"measure_ability"},
    "agreement": {"measure_agreement"},
    "studies": {"findings", "outcome_findings"},
    "store": {"stored", "forget", "check_store", "prune_store"},
}
"""What a script calls for each command; a folder of the package keeps the plain name of some."""


def test_every_command_has_a_function_at_the_top():
    from preceptor.cli.app import cli

    assert VERBS.keys() == cli.commands.keys()
    for names in VERBS.values():
        assert names <= set(preceptor.__all__)
        assert all(callable(getattr(preceptor, name)) for name in names)


def test_a_store_is_looked_at_and_its_notes_are_forgotten(tmp_path: Path):
    path = write_rows(
        tmp_path / "both.jsonl",
        [{"instruction": f"{n}?", "generator": g, "output": g * n} for n in (1, 2) for g in "ab"],
    )
    store = str(tmp_path / "store")
    rule = {"kind": "contains", "answer": "a"}
    preceptor.rank(path, rule=rule, no_student=True, store=store)
    one, *_ = preceptor.stored(store)
    assert preceptor.stored(store, one.identity.digest[:8])[0].identity == one.identity
    assert preceptor.forget(one.identity.digest, store) == 0
    with pytest.raises(StoreError, match="0 identities"):
        preceptor.forget("nothing", store)
    checked = preceptor.check_store(store)
    assert [(found.shards, found.unfit) for found in checked.values()] == [(1, {})] * 3
    preceptor.prune_store(one.identity.digest, store)
    assert one.identity not in [left.identity for left in preceptor.stored(store)]
