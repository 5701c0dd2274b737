"""Bad input through the command line: the message says what was seen and what to do, and nothing is lost."""

import math
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from preceptor import api
from preceptor.cli.app import cli
from preceptor.errors import StudyError
from small_study import by_teacher, preceptor, ranked, rows_of, write_rows, write_teachers

pytestmark = pytest.mark.usefixtures("private_cache", "one_thread")


@pytest.fixture(autouse=True)
def inside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working directory, which also receives the default store."""
    folder = tmp_path / "inside"
    folder.mkdir()
    monkeypatch.chdir(folder)
    return folder


def refused(result: Result, *parts: str) -> None:
    """Check that the command ended with an error that says all of this, and no traceback."""
    said = " ".join(result.stderr.split())
    assert result.exit_code == 1, result.output
    assert "Error: " in result.stderr
    assert "Traceback" not in result.output
    for part in parts:
        assert part in said, said


def with_rows(place: int, **change: Any) -> list[dict[str, Any]]:
    rows = rows_of(1)
    rows[place] |= change
    return rows


def test_a_missing_file_is_named_with_the_nearest(inside: Path):
    write_teachers(inside)
    refused(
        preceptor("rank", "alpa.jsonl", "beta.jsonl"), "alpa.jsonl", "Did you mean 'alpha.jsonl'?"
    )


def test_a_malformed_line_is_named_and_the_rest_ranks(inside: Path):
    alpha, beta = write_teachers(inside)
    lines = alpha.read_text().splitlines()
    lines[2] = '{"instruction": "What is'
    alpha.write_text("\n".join(lines))
    (ranking,) = ranked(alpha, beta, "--reward-column", "reward")
    assert ranking["settings"]["skipped_rows"] == {str(alpha): 1}
    assert any("alpha.jsonl, line 3: not valid JSON" in one["text"] for one in ranking["warnings"])
    assert {record["n"] for record in ranking["teachers"]} == {5}
    assert by_teacher(ranking)["alpha"]["dropped"] == {"missing": 1}


def test_teachers_without_common_instructions_are_counted(inside: Path):
    alpha = write_rows(inside / "alpha.jsonl", rows_of(0))
    others = [{**row, "instruction": row["instruction"] + " Now?"} for row in rows_of(1)]
    beta = write_rows(inside / "beta.jsonl", others)
    refused(
        preceptor("rank", alpha, beta),
        "Only 0 of 12 instructions were answered by all 2 teachers",
        "alpha: 6 of 12 instructions, 6 missing",
        "Instructions are matched by their text",
    )


def test_an_unknown_reward_column_is_told_with_the_nearest(inside: Path):
    result = preceptor("rank", *write_teachers(inside), "--reward-column", "rewrad")
    refused(result, "No file has a column 'rewrad'", "Did you mean 'reward'?")


def files_below(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


def test_a_teacher_named_like_a_path_writes_nothing_outside_the_store(
    tmp_path: Path, inside: Path, model_folder: Path
):
    climbing = "../../climbed"
    rows = [{**row, "generator": climbing} for row in rows_of(0)]
    rows += [{**row, "generator": "/tmp/../climbed\x00"} for row in rows_of(1)]
    write_rows(inside / "both.jsonl", rows)
    before = files_below(tmp_path)
    (ranking,) = ranked("both.jsonl", "--student", model_folder, "--reward-column", "reward")
    assert climbing in by_teacher(ranking)
    new = files_below(tmp_path) - before
    assert new
    # `cache` is the user's cache, of digests of models.
    assert all(name.startswith(("inside/.preceptor/scores/", "cache/")) for name in new)
    assert not any("climbed" in name for name in new)


def test_markup_and_escapes_in_names_are_printed_inert(inside: Path):
    names = ("[bold red]alpha[/bold red]", "\x1b[31mbeta\x1b[0m\x07", "<script>gamma</script>")
    rows = [{**r, "generator": name} for place, name in enumerate(names) for r in rows_of(place)]
    write_rows(inside / "all.jsonl", rows)
    result = preceptor("rank", "all.jsonl", "--reward-column", "reward", "--html", "page.html")
    assert result.exit_code == 0, result.output
    assert "[bold red]alpha[/bold red]" in result.stdout
    assert "\\x1b[31mbeta\\x1b[0m\\x07" in result.stdout
    assert "\x1b" not in result.output
    assert "\x07" not in result.output
    assert "<script>gamma" not in Path("page.html").read_text()


@pytest.mark.parametrize(
    ("output", "reason"), [(None, "no output"), ("", "empty output"), (" \n\t ", "empty output")]
)
def test_absent_outputs_are_counted_and_never_zero(inside: Path, output: str | None, reason: str):
    write_rows(inside / "alpha.jsonl", rows_of(0))
    rows = with_rows(2, output=output)
    write_rows(inside / "beta.jsonl", rows)
    (ranking,) = ranked("alpha.jsonl", "beta.jsonl", "--reward-column", "reward")
    beta = by_teacher(ranking)["beta"]
    assert beta["dropped"] == {reason: 1}
    assert beta["n"] == 5
    kept = [row["reward"] for place, row in enumerate(rows) if place != 2]
    assert beta["reward"] == pytest.approx(math.fsum(kept) / 5)


def test_a_response_of_200000_characters_ranks_and_its_cut_is_told(
    inside: Path, model_folder: Path
):
    write_rows(inside / "alpha.jsonl", rows_of(0))
    write_rows(inside / "beta.jsonl", with_rows(3, output="The sea is wide. " * 11_765))
    (ranking,) = ranked("alpha.jsonl", "beta.jsonl", "--student", model_folder)
    assert {record["n"] for record in ranking["teachers"]} == {6}
    assert by_teacher(ranking)["beta"]["truncated"] == 1
    assert by_teacher(ranking)["alpha"]["truncated"] == 0
    assert any(
        "cut at the maximum length" in one["text"] and "'beta' 1" in one["text"]
        for one in ranking["warnings"]
    )


@pytest.fixture
def broken_student(inside: Path, make_model: Callable[[str], Any], tokenizer: Any) -> Path:
    """A model with one weight that is NaN."""
    model = make_model("llama")
    model.model.norm.weight.data[3] = math.nan
    model.save_pretrained(inside / "broken")
    tokenizer.save_pretrained(inside / "broken")
    return inside / "broken"


def test_a_student_that_gives_nan_is_refused_by_name_and_reason(inside: Path, broken_student: Path):
    arguments = ("rank", *write_teachers(inside), "--student", broken_student)
    result = preceptor(*arguments, "--reward-column", "reward")
    refused(result, "Not one response of 'alpha', 'beta'", "non-finite likelihood (12)")
    again = preceptor(*arguments, "--metric", "reward", "--reward-column", "reward")
    assert again.exit_code == 0, again.output


def test_negative_rewards_warn_by_name(inside: Path, model_folder: Path):
    write_rows(inside / "alpha.jsonl", rows_of(0))
    lower = [{**row, "reward": -row["reward"]} for row in rows_of(1)]
    write_rows(inside / "beta.jsonl", lower)
    result = preceptor(
        "rank", "alpha.jsonl", "beta.jsonl", "--student", model_folder, "--reward-column", "reward"
    )
    said = " ".join(result.stdout.split())
    assert result.exit_code == 0
    assert "CAR REWARDS INCOMPATIBILITY" in said
    assert "0 or less for 'beta'" in said
    assert "first by reward" in said or "leads so far by reward" in said


def test_a_store_that_is_a_file_is_refused_and_left_alone(inside: Path):
    (inside / "store").write_text("mine")
    result = preceptor("rank", *write_teachers(inside), "--store", "store")
    refused(result, "is a file", "choose another place with --store")
    assert (inside / "store").read_text() == "mine"


@pytest.mark.skipif(os.name != "posix", reason="needs /dev/null")
def test_a_store_that_cannot_be_written_is_refused(inside: Path):
    if os.geteuid() == 0:
        # Permissions do not bind root; a folder below a file cannot be made by anyone.
        store = "/dev/null/store"
    else:
        (inside / "store").mkdir(mode=0o555)
        store = "store"
    result = preceptor("rank", *write_teachers(inside), "--store", store)
    refused(result, store, "choose another place with --store")


def test_every_wrong_field_of_a_study_is_named(inside: Path):
    text = '[data]\nresponses = ["a.jsonl"]\nlimti = 3\n[runtime]\nstore = "s"\n[[students]]\n'
    (inside / "study.toml").write_text(text)
    refused(preceptor("plan", "study.toml"), "data.limti", "students.0.model", "2 wrong field(s)")
    (inside / "study.toml").write_text('[data]\nresponses = ["a"]\n[runtime]\ndevcie = "cpu"\n')
    refused(preceptor("plan", "study.toml"), "[runtime]", "devcie")


def test_a_limit_above_what_is_common_takes_all(inside: Path):
    (ranking,) = ranked(*write_teachers(inside), "--reward-column", "reward", "--limit", "100")
    assert {record["n"] for record in ranking["teachers"]} == {6}


def test_outputs_that_cannot_be_written_are_told_before_the_work(inside: Path):
    result = preceptor(
        "rank", *write_teachers(inside), "--reward-column", "reward", "--json", "no/such/file.json"
    )
    assert result.exit_code == 1
    assert "Cannot write 'no/such/file.json': No such file or directory." in result.stderr
    assert "There is no folder 'no/such': make it first" in result.stderr
    assert result.stdout == "" and not (inside / ".preceptor").exists()


@pytest.mark.parametrize(
    "words",
    [
        ("agreement", "a.json", "--observed", "xu2024", "--csv"),
        ("demo", "--html"),
        ("evaluate", "a.json", "--json"),
        ("init", "--schema"),
        ("report", "study.toml", "--markdown"),
        ("run", "study.toml", "--json"),
        ("studies", "list", "--json"),
    ],
)
def test_every_command_looks_for_the_folder_of_its_output_first(inside: Path, words: list[str]):
    result = preceptor(*words, "no/such/file")
    assert result.exit_code == 1 and result.stdout == ""
    assert "There is no folder 'no/such': make it first" in result.stderr


def test_files_that_cannot_be_opened_are_told_with_the_remedy(inside: Path):
    (inside / "outcomes.csv").write_text("teacher,student,AP\n")
    nearest = preceptor("studies", "show", "outcome.csv")
    assert "Check the name. Did you mean 'outcomes.csv'?" in nearest.stderr
    assert "There is no folder 'no'" in preceptor("studies", "show", "no/a.csv").stderr
    assert "Make its folder first" in preceptor("init", "no/study.toml").stderr
    assert "It holds nothing" in preceptor("store", "show", "abc").stderr


@pytest.mark.parametrize(
    ("reward", "where"),
    [
        ('reward = {kind = "colum", column = "r"}', "reward.kind: no source"),
        ('[[reward]]\nkind = "column"\n[[reward]]\nkind = "x"', "reward.1.kind: no source"),
        ('[[reward]]\nkind = "column"', "reward.0.column: Field required"),
        ('reward = {kind = "judge", model = "j", scale = [3, 1]}', "reward.scale: a judge's scale"),
    ],
)
def test_a_wrong_field_is_named_as_it_was_written(inside: Path, reward: str, where: str):
    table = reward if reward.startswith("[[") else ""
    top = "" if table else f"{reward}\n"
    (inside / "study.toml").write_text(f'{top}[data]\nresponses = "a.jsonl"\n{table}\n')
    said = preceptor("plan", "study.toml").stderr
    assert f"  {where}" in said, said


def test_a_ranking_for_no_base_model_must_be_asked_for_and_a_reward_in_the_data_is_named(
    tmp_path: Path,
):
    files, store = write_teachers(tmp_path / "data"), str(tmp_path / "store")
    said = CliRunner().invoke(cli, ["rank", *map(str, files), "--store", store])
    assert said.exit_code == 1
    assert "No base model is named" in said.output and "--no-student" in said.output
    assert (
        "Columns that look like rewards: 'reward'. To use one: --reward-column reward."
        in said.output
    )
    with pytest.raises(StudyError, match="No base model is named"):
        api.rank(files, store=store)
    study = tmp_path / "study.toml"
    study.write_text(f'data.responses = "{tmp_path}/data"\nruntime.store = "{store}"\n')
    for command in ("run", "plan"):
        assert "No base model is named" in preceptor(command, study).output
    assert (
        "leave one of them out"
        in preceptor("rank", *files, "--student", "a", "--no-student").output
    )
    assert not Path(store).exists()
