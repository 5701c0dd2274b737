"""`preceptor export`, end to end: what is written, and how wrong inputs are answered."""

import json
from pathlib import Path
from typing import Any

import pytest
from transformers import AutoTokenizer

from preceptor.engines.cl100k import count_tokens
from preceptor.errors import StudyError
from preceptor.pipeline.amounts import equal_tokens
from small_study import preceptor, rows_of, write_rows, write_teachers
from small_teachers import THRESHOLDS, generations, graded, texts_in, write_questions

pytestmark = pytest.mark.usefixtures("private_cache", "one_thread")


@pytest.fixture
def files(tmp_path: Path) -> list[Path]:
    return write_teachers(tmp_path / "data", 2, 6)


def study_file(tmp_path: Path, *tables: str, reward: str = "reward") -> Path:
    """Write a study of the files of alpha and beta, with further tables."""
    file = tmp_path / "study.toml"
    named = f'reward = {{ kind = "column", column = "{reward}" }}' if reward else ""
    file.write_text(
        f"""
        {named}
        no_student = {str(not any("[[students]]" in one for one in tables)).lower()}
        data.responses = ["{tmp_path}/data/*.jsonl"]
        """
        + "\n".join(tables)
        + f"""
        [runtime]
        store = "{tmp_path / "store"}"
        device = "cpu"
        """
    )
    return file


def asking_file(tmp_path: Path, *tables: str) -> Path:
    """Write a study that asks a fake teacher for samples; the number of words is the reward."""
    limits = ", ".join(f'{{ name = "words", at_least = {number} }}' for number in THRESHOLDS)
    file = tmp_path / "study.toml"
    file.write_text(
        f"""
        no_student = true
        data.instructions = ["{write_questions(tmp_path)}"]
        [[reward]]
        kind = "rule"
        rule = {{ kind = "constraints", partial = true, constraints = [{limits}] }}
        [[teachers]]
        model = "one"
        engine = "fake"
        temperature = 0.8
        samples = 3
        """
        + "\n".join(tables)
        + f"""
        [runtime]
        store = "{tmp_path / "store"}"
        device = "cpu"
        """
    )
    return file


def student(folder: Path, label: str = "") -> str:
    return f'\n[[students]]\nmodel = "{folder}"\nchat_template = "plain"\n{label}'


def exported(file: Path, folder: Path, *options: object) -> list[dict[str, Any]]:
    """Run the command and return the rows that it wrote, by their instructions."""
    result = preceptor("export", file, "--output", folder, *options)
    assert result.exit_code == 0, result.output
    rows = [json.loads(line) for line in (folder / "train.jsonl").read_text().splitlines()]
    said = f"{len(rows):,} {'row' if len(rows) == 1 else 'rows'} in {folder / 'train.jsonl'}"
    assert said in " ".join(result.output.split())
    return sorted(rows, key=lambda row: json.dumps(row.get("prompt", row.get("messages"))))


def refused(file: Path, folder: Path, *options: object) -> str:
    result = preceptor("export", file, "--output", folder, *options)
    assert result.exit_code != 0
    assert "Traceback" not in result.output
    return " ".join(result.output.split())


def test_the_best_teachers_responses_are_written_as_they_stand(tmp_path: Path, files: list[Path]):
    rows = exported(study_file(tmp_path), tmp_path / "out")
    means = [sum(row["reward"] for row in rows_of(n)) / 6 for n in (0, 1)]
    best = means.index(max(means))
    assert [
        (
            row["messages"][0]["content"],
            row["messages"][1]["content"],
            row["reward"],
            row["teacher"],
        )
        for row in rows
    ] == [
        (row["instruction"], row["output"], row["reward"], ("alpha", "beta")[best])
        for row in rows_of(best)
    ]
    card = (tmp_path / "out" / "README.md").read_text()
    assert "All responses of the teacher that comes first." in card


def test_a_named_teachers_responses_are_written_whoever_is_best(tmp_path: Path, files: list[Path]):
    for place, teacher in enumerate(("alpha", "beta")):
        rows = exported(study_file(tmp_path), tmp_path / teacher, "--teacher", teacher)
        assert [row["messages"][1]["content"] for row in rows] == [
            row["output"] for row in rows_of(place)
        ]
        assert {row["teacher"] for row in rows} == {teacher}


@pytest.mark.parametrize("pairs", [(), ("--pairs",)])
def test_what_overlaps_with_evaluation_questions_is_left_out_and_counted(
    tmp_path: Path, files: list[Path], pairs: tuple[str, ...]
):
    asked = rows_of(0)[0]["instruction"]
    exam = write_rows(tmp_path / "exam.jsonl", [{"instruction": asked.upper()}])
    chosen = pairs or ("--teacher", "beta")
    rows = exported(study_file(tmp_path), tmp_path / "out", *chosen, "--exclude", exam)
    assert len(rows) == 5
    assert asked not in json.dumps(rows)
    assert "1 (in evaluation questions)" in (tmp_path / "out" / "README.md").read_text()


def test_each_by_reward_and_pairs_are_those_picked_by_hand(tmp_path: Path, files: list[Path]):
    alpha, beta = rows_of(0), rows_of(1)
    rows = exported(study_file(tmp_path), tmp_path / "each", "--each", "reward")
    for row, one, two in zip(rows, alpha, beta, strict=True):
        better = max(one, two, key=lambda given: given["reward"])
        assert row["messages"][1]["content"] == better["output"]
        assert row["reward"] == better["reward"]
    apart = [abs(one["reward"] - two["reward"]) for one, two in zip(alpha, beta, strict=True)]
    margin = sorted(apart)[3]
    pairs = exported(study_file(tmp_path), tmp_path / "pairs", "--pairs", "--margin", margin)
    kept = [n for n, gap in enumerate(apart) if gap > margin]
    assert len(kept) == 2
    for row, place in zip(pairs, kept, strict=True):
        order = sorted((alpha[place], beta[place]), key=lambda given: -given["reward"])
        assert row["chosen"][0]["content"] == order[0]["output"]
        assert row["rejected"][0]["content"] == order[1]["output"]
        assert row["chosen_reward"] - row["rejected_reward"] == pytest.approx(apart[place])


def test_asked_and_derived_teachers_are_exported_with_how_they_sampled(tmp_path: Path):
    derived = '\n[[best_of_n]]\nkind = "best"\nof = "one"\nlabel = "chosen"\n'
    rows = exported(asking_file(tmp_path, derived), tmp_path / "out", "--teacher", "chosen")
    samples: dict[bytes, list[str]] = {}
    for _, one in sorted(generations(tmp_path / "store"), key=lambda given: given[1].sample):
        samples.setdefault(one.instruction, []).append(one.text or "")
    best = {max(texts, key=graded) for texts in samples.values()}
    assert {row["messages"][1]["content"] for row in rows} == best
    assert [row["reward"] for row in rows] == [
        pytest.approx(graded(row["messages"][1]["content"])) for row in rows
    ]
    every = exported(
        asking_file(tmp_path, derived), tmp_path / "all", "--teacher", "one", "--every-sample"
    )
    assert sorted(row["messages"][1]["content"] for row in every) == sorted(
        str(text) for text in texts_in(tmp_path / "store").values()
    )
    assert "temperature 0.8, 3 samples, seed 0" in (tmp_path / "all" / "README.md").read_text()
    shown = preceptor(
        "export", asking_file(tmp_path), "--output", tmp_path / "first", "--teacher", "one"
    )
    rows = len((tmp_path / "first" / "train.jsonl").read_text().splitlines())
    assert rows == len(every) // 3
    assert f"left out: {2 * rows} (further samples of an instruction" in shown.stdout
    assert (
        f"the first alone: {2 * rows} are left out"
        in (tmp_path / "first" / "README.md").read_text()
    )


def test_a_reward_of_zero_stands_in_the_card_as_what_was_measured(
    tmp_path: Path, files: list[Path]
):
    for file in files:
        rows = [json.loads(line) | {"reward": 0} for line in file.read_text().splitlines()]
        file.write_text("\n".join(map(json.dumps, rows)))
    exported(study_file(tmp_path), tmp_path / "out")
    table = (tmp_path / "out" / "README.md").read_text().partition("## Ranking")[2].splitlines()
    heading = next(line for line in table if line.startswith("| teacher"))
    assert "| reward |" in heading
    assert "| loss |" not in heading  # no student: nothing is known of it


def test_the_card_of_a_derived_teacher_names_the_model_that_wrote_its_texts(tmp_path: Path):
    derived = '\n[[best_of_n]]\nkind = "random"\nof = "one"\nlabel = "chosen"\n'
    exported(asking_file(tmp_path, derived), tmp_path / "out", "--teacher", "chosen")
    card = (tmp_path / "out" / "README.md").read_text()
    assert "temperature 0.8, 3 samples, seed 0" in card


def test_several_students_or_rewards_need_naming(
    tmp_path: Path, files: list[Path], model_folder: Path, make_model: Any, tokenizer: Any
):
    other = tmp_path / "other-llama"
    make_model("llama").save_pretrained(other)
    tokenizer.save_pretrained(other)
    two = study_file(tmp_path, student(model_folder), student(other))
    said = refused(two, tmp_path / "out", "--each", "car")
    assert "The study has the students tiny-llama, other-llama: say for which to choose." in said
    said = refused(two, tmp_path / "out", "--each", "car", "--student", "tiny-lama")
    assert "Known: tiny-llama, other-llama. Did you mean 'tiny-llama'?" in said
    assert len(exported(two, tmp_path / "out", "--each", "car", "--student", "other-llama")) == 6

    rule = '[[reward]]\nkind = "rule"\nrule = { kind = "contains", answer = "sea" }\n'
    column = '[[reward]]\nkind = "column"\ncolumn = "reward"\n'
    both = study_file(tmp_path, column, rule, reward="")
    said = refused(both, tmp_path / "second", "--each", "reward")
    assert "The study has the rewards column 'reward'; rule {" in said
    said = refused(both, tmp_path / "second", "--each", "reward", "--reward", "column 'rewards'")
    assert "Did you mean 'column 'reward''?" in said
    rows = exported(both, tmp_path / "second", "--each", "reward", "--reward", "column 'reward'")
    assert len(rows) == 6


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (
            ("--teacher", "alhpa"),
            "No teacher 'alhpa'. Known: 'alpha', 'beta'. Did you mean 'alpha'?",
        ),
        (("--teacher", "alpha", "--each", "reward"), "choose one of the two"),
        (("--teacher", "alpha", "--pairs"), "choose one of the two"),
        (("--margin", "0.5"), "margin is given without pairs"),
        (("--equal", "tokens", "--pairs"), "is for the data set of one teacher"),
        (("--each", "car"), "without a student: name one"),
        (("--student", "nobody"), "No student 'nobody' in the study. Known: none."),
        (("--reward", "column"), "No reward 'column' in the study. Known: column 'reward'."),
        (("--each", "best"), "'best' is not one of"),
        (("--layout", "chat"), "'chat' is not one of"),
        (("--public",), "--public is given without --push-to-hub"),
    ],
)
def test_wrong_options_are_answered_in_words_and_leave_nothing(
    tmp_path: Path, files: list[Path], options: tuple[str, ...], said: str
):
    assert said in refused(study_file(tmp_path), tmp_path / "out", *options)
    assert not (tmp_path / "out").exists()


def test_a_study_without_a_reward_cannot_pick(tmp_path: Path, files: list[Path]):
    file = study_file(tmp_path, reward="")
    assert "give the study a [reward]" in refused(file, tmp_path / "out", "--each", "reward")
    said = " ".join(refused(file, tmp_path / "out").split())
    assert "No teacher is chosen, because none is recommended." in said
    assert "--teacher. The cheapest way to a reward (a column of the data): preceptor rank" in said
    assert "--reward-column reward" in said
    assert len(exported(file, tmp_path / "out", "--teacher", "alpha")) == 6


def test_a_folder_that_holds_something_is_replaced_only_when_asked_to(
    tmp_path: Path, files: list[Path]
):
    file, folder = study_file(tmp_path), tmp_path / "out"
    exported(file, folder, "--teacher", "alpha")
    before = (folder / "train.jsonl").read_bytes()
    assert "expected an empty folder" in refused(file, folder, "--teacher", "beta")
    assert (folder / "train.jsonl").read_bytes() == before
    exported(file, folder, "--teacher", "beta", "--overwrite")
    assert (folder / "train.jsonl").read_bytes() != before


def test_parquet_and_other_layouts_hold_the_same(tmp_path: Path, files: list[Path]):
    import pyarrow.parquet as pq

    file = study_file(tmp_path)
    result = preceptor(
        "export", file, "--output", tmp_path / "out", "--teacher", "alpha",
        "--format", "parquet", "--layout", "alpaca",
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    rows = pq.read_table(tmp_path / "out" / "train.parquet").to_pylist()
    found = {row["instruction"]: row["output"] for row in rows}
    assert found == {row["instruction"]: row["output"] for row in rows_of(0)}


@pytest.mark.parametrize("named", [False, True])
def test_equal_amounts_of_tokens_end_every_teachers_data_where_the_tersest_has_no_more(
    tmp_path: Path, model_folder: Path, named: bool
):
    terse, long = rows_of(0, 12), rows_of(1, 14)
    for row in long:
        row["output"] += " so wide is the sea" * 9
    for name, rows in (("alpha", terse), ("beta", long)):
        write_rows(tmp_path / "data" / f"{name}.jsonl", rows)
    exam = write_rows(tmp_path / "exam.jsonl", [{"instruction": terse[3]["instruction"]}])
    study = study_file(tmp_path, *([student(model_folder, 'label = "small"')] if named else []))
    options = ("--equal", "tokens", "--exclude", exam)
    found = {
        name: exported(study, tmp_path / name, "--teacher", name, *options)
        for name in ("alpha", "beta")
    }
    asked = {name: {row["messages"][0]["content"] for row in rows} for name, rows in found.items()}
    assert asked["beta"] < asked["alpha"] == {row["instruction"] for row in terse[:3] + terse[4:]}
    tokenize = AutoTokenizer.from_pretrained(model_folder).tokenize
    count = (lambda text: len(tokenize(text))) if named else count_tokens
    total = {
        name: sum(count(row["messages"][1]["content"]) for row in rows)
        for name, rows in found.items()
    }
    longest = max(count(row["output"]) for row in long)
    assert total["alpha"] - longest < total["beta"] <= total["alpha"]
    card = (tmp_path / "beta" / "README.md").read_text()
    assert f"by {'the tokenizer of small' if named else 'cl100k_base'}: the first" in card
    said = preceptor(
        *("export", study, "--output", tmp_path / "beta", "--teacher", "beta", "--overwrite"),
        *options,
    ).stdout
    assert f"(teachers give {total['alpha']} tokens to train on at most, this one " in said
    assert "left out: 2 (not every teacher answered the instruction)" in said


def test_a_teacher_without_a_token_to_train_on_is_named_where_amounts_are_to_be_equal():
    with pytest.raises(StudyError, match="beta: no response has a token"):
        equal_tokens({"alpha": [3, 4], "beta": [0, 0]})
