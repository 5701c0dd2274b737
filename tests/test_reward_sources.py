"""Every source of rewards ranks teachers from the command line, is paid once, and tells no secret."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file, save_file

import chat_server as chat
from preceptor.api import rank
from preceptor.config.study import StudyFile
from preceptor.errors import StudyError
from preceptor.store.store import Store
from small_study import by_teacher, preceptor, ranked, rows_of, write_rows, write_teachers

pytestmark = pytest.mark.usefixtures("one_thread")

KEY = "sk-a-secret-that-nobody-may-see"


def by_length(handler: chat.Handler, asked: dict[str, Any]) -> None:
    """Answer with a number that depends on the prompt alone."""
    chat.answer(str(1 + len(json.dumps(asked["messages"])) % 9))(handler, asked)


def test_a_served_judge_ranks_and_is_asked_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, model_folder: Path
) -> None:
    monkeypatch.setenv("JUDGE_KEY", KEY)
    files, store = write_teachers(tmp_path / "data"), tmp_path / "store"
    with chat.serving(otherwise=by_length) as told:
        options = ["--judge", "some-judge", "--judge-url", told.url, "--judge-key-env", "JUDGE_KEY"]
        (first,) = ranked(*files, *options, "--student", model_folder, "--store", store)
        asked = len(told.requests)
        (second,) = ranked(*files, *options, "--store", store)
        assert len(told.requests) == asked == 12
    assert first["by"] == "car" and second["by"] == "reward"
    for teacher, record in by_teacher(first).items():
        assert 1 <= record["reward"] == by_teacher(second)[teacher]["reward"] <= 9
    for path in store.rglob("*"):
        assert path.is_dir() or KEY.encode() not in path.read_bytes()
    assert KEY not in json.dumps([first, second])


def test_the_rubric_of_a_file_reaches_the_judge(tmp_path: Path) -> None:
    rubric = tmp_path / "rubric.txt"
    rubric.write_text("Look at nothing but the rhymes.")
    files = write_teachers(tmp_path / "data")
    with chat.serving(otherwise=by_length) as told:
        options = ["--judge", "some-judge", "--judge-url", told.url, "--rubric", rubric]
        ranked(*files, *options, "--store", tmp_path / "store")
        assert all("nothing but the rhymes" in json.dumps(one) for one in told.requests)
    missing = preceptor("rank", *files, *options[:-1], tmp_path / "none.txt")
    assert missing.exit_code == 1 and "Cannot read the rubric" in missing.output


def test_a_judge_without_a_url_is_run_here(
    tmp_path: Path, model_folder: Path, tokenizer: Any
) -> None:
    judge = tmp_path / "judge"
    shutil.copytree(model_folder, judge)
    config = json.loads((judge / "config.json").read_text())
    (judge / "config.json").write_text(json.dumps(config | {"max_position_embeddings": 4096}))
    # A model of random weights gives digits little; this one cares for nothing else.
    weights = load_file(judge / "model.safetensors")
    digits = tokenizer.convert_tokens_to_ids(list("123456789"))
    weights["lm_head.weight"][digits] *= 10
    save_file(weights, judge / "model.safetensors", metadata={"format": "pt"})
    files, store = write_teachers(tmp_path / "data"), tmp_path / "store"
    (found,) = ranked(*files, "--judge", judge, "--store", store)
    assert all(1 <= record["reward"] <= 10 for record in found["teachers"])
    (partition,) = [
        s for s in Store(str(store)).partitions() if s.identity.spec["scorer"] == "judge"
    ]
    assert partition.identity.spec["engine"] == "transformers" and len(partition.keys()) == 12


def test_one_rule_checks_every_response(tmp_path: Path) -> None:
    files = write_teachers(tmp_path / "data")
    rule = json.dumps({"kind": "contains", "answer": "sea"})
    (found,) = ranked(*files, "--rule", rule, "--store", tmp_path / "store")
    for path, name in zip(files, ("alpha", "beta"), strict=True):
        texts = [json.loads(line)["output"] for line in path.read_text().splitlines()]
        share = sum("sea" in text.replace(".", " ").split() for text in texts) / len(texts)
        assert by_teacher(found)[name]["reward"] == pytest.approx(share)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--rule", "{"], "The rule is not JSON"),
        (["--rule", "[1]"], "expected a JSON object"),
        (["--rule", '{"kind": "contians", "answer": "a"}'], "Did you mean 'contains'"),
        (["--judge-url", "http://127.0.0.1:1/v1"], "name the model with judge (--judge)"),
        (["--reward-model", "owner/not/a/model"], "No model at"),
    ],
)
def test_a_source_that_cannot_be_used_is_refused_in_words(
    tmp_path: Path, options: list[str], said: str
) -> None:
    result = preceptor("rank", *write_teachers(tmp_path), *options, "--store", tmp_path / "store")
    assert result.exit_code == 1 and said in result.output


def test_a_study_needs_to_say_where_its_judge_is_served(tmp_path: Path) -> None:
    file = tmp_path / "study.toml"
    write_teachers(tmp_path)
    tables = (
        f'no_student = true\n[data]\nresponses = ["{tmp_path}/*.jsonl"]\n'
        '[[reward]]\nkind = "judge"\nmodel = "x"\n'
    )
    file.write_text(tables)
    result = preceptor("run", file)
    assert result.exit_code == 1 and "Nothing says where 'x' is served" in result.output
    file.write_text(tables + '[runtime.endpoints.x]\nurl = "http://127.0.0.1:1/v1"\n')
    assert StudyFile.read(file).runtime.endpoint("x").concurrency == 8
    with pytest.raises(StudyError, match="known are x"):
        StudyFile.read(file).runtime.endpoint("y")


def test_sources_of_every_kind_stand_in_one_study(tmp_path: Path) -> None:
    files = write_teachers(tmp_path / "data")
    rule = json.dumps({"kind": "contains", "answer": "sea"})
    with chat.serving(otherwise=by_length) as told:
        options = ["--judge", "some-judge", "--judge-url", told.url, "--rule", rule]
        found = ranked(*files, *options, "--reward-column", "reward", "--store", tmp_path / "store")
    assert [one["settings"]["reward"][:6] for one in found] == ["column", "rule {", "judge "]


def test_a_rule_goes_before_the_references_of_the_data(tmp_path: Path) -> None:
    rows = [{**row, "reference": {"kind": "contains", "answer": "sea"}} for row in rows_of(0)]
    files = [write_rows(tmp_path / f"{name}.jsonl", rows) for name in ("alpha", "beta")]
    rule = json.dumps({"kind": "contains", "answer": "cat"})
    (found,) = ranked(*files, "--rule", rule, "--store", tmp_path / "store")
    share = sum("cat" in row["output"].replace(".", " ").split() for row in rows) / len(rows)
    assert [record["reward"] for record in found["teachers"]] == pytest.approx([share, share])


def test_every_source_is_looked_at_before_the_first_is_computed(
    tmp_path: Path, model_folder: Path
) -> None:
    files, store = write_teachers(tmp_path / "data"), tmp_path / "store"
    options = ["--judge", model_folder, "--reward-model", "./nope", "--store", store]
    result = preceptor("rank", *files, *options)
    assert result.exit_code == 1 and "No model at './nope'" in result.output
    assert not any(len(partition.keys()) for partition in Store(str(store)).partitions())


def test_what_was_ranked_before_a_failure_is_still_printed(tmp_path: Path) -> None:
    files = write_teachers(tmp_path / "data")
    with chat.serving(otherwise=chat.refuse(401, "who are you?")) as told:
        options = ["--judge", "some-judge", "--judge-url", told.url, "--reward-column", "reward"]
        result = preceptor("rank", *files, *options, "--store", tmp_path / "store")
    assert result.exit_code == 1
    assert "on 6 of 6 prompts" in " ".join(result.output.split())
    assert "cannot be asked" in result.output


def test_one_ranking_is_not_asked_of_two_sources(tmp_path: Path) -> None:
    files = write_teachers(tmp_path)
    with pytest.raises(StudyError, match="reward_column and rule are given"):
        rank(files, reward_column="reward", rule={"kind": "contains", "answer": "sea"})
    with pytest.raises(StudyError, match="rubric is given without a judge"):
        rank(files, rubric="none.txt")


def test_sources_of_one_name_are_told_apart(tmp_path: Path) -> None:
    files = write_teachers(tmp_path / "data")
    file = tmp_path / "study.toml"
    tables = f"no_student = true\n[data]\nresponses = {json.dumps([str(f) for f in files])}\n"
    rule = '[[reward]]\nkind = "rule"\nrule = {{kind = "contains", answer = ["sea", "{0}"]}}\n'
    long = "a very long word that nobody would ever write into an answer of theirs " * 2
    file.write_text(tables + rule.format(long + "one") + rule.format(long + "two"))
    result = preceptor("run", file, "--json", "-")
    assert result.exit_code == 0, result.output
    named = [one["settings"]["reward"] for one in json.loads(result.stdout)]
    assert named[0].endswith("(1)") and named[1].endswith("(2)")
    file.write_text(tables + rule.format("one") * 2)
    assert "a reward is named twice" in preceptor("run", file).output


def test_the_result_says_what_made_each_number(tmp_path: Path) -> None:
    files = write_teachers(tmp_path / "data")
    with chat.serving(otherwise=by_length) as told:
        options = ["--judge", "some-judge", "--judge-url", told.url]
        (found,) = ranked(*files, *options, "--store", tmp_path / "store")
    made = found["settings"]["scorers"]["judge"]
    assert made["spec"]["model"] == "some-judge" and "rubric" in made["spec"]
    assert (tmp_path / "store" / "scores" / made["identity"]).is_dir()


def test_expectations_are_never_compared_with_numbers_drawn(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    likely = chat.ranked(("7", {"7": -0.7, "3": -0.7}))
    first = [chat.answer("7", logprobs=likely)] * 4
    refusal = chat.refuse(400, "logprobs are not supported")
    files = write_teachers(tmp_path / "data")
    with chat.serving(*first, refusal) as told:
        options = ["--judge", "j", "--judge-url", told.url, "--judge-concurrency", 1]
        (found,) = ranked(*files, *options, "--store", tmp_path / "store")
        ranked(*files, *options, "--store", tmp_path / "store")
    assert [record["reward"] for record in found["teachers"]] == [7.0, 7.0]
    assert caplog.text.count("came without log-probabilities") == 1


def test_places_under_several_sources_stand_side_by_side(tmp_path: Path) -> None:
    files = write_teachers(tmp_path / "data")
    rule = json.dumps({"kind": "contains", "answer": "sea"})
    options = ["--rule", rule, "--reward-column", "reward", "--store", tmp_path / "store"]
    shown = preceptor("rank", *files, *options).output.partition("places for any student")[2]
    both = ranked(*files, *options)
    for name in ("alpha", "beta"):
        line = next(line for line in shown.splitlines() if line.startswith(name))
        assert line.split()[1:] == [str(by_teacher(one)[name]["rank"]) for one in both]


def test_the_page_names_the_source_of_each_ranking_as_text(tmp_path: Path) -> None:
    files = write_teachers(tmp_path / "data")
    rule = json.dumps({"kind": "contains", "answer": "<b>sea</b>"})
    options = ["--rule", rule, "--reward-column", "reward", "--store", tmp_path / "store"]
    assert preceptor("rank", *files, *options, "--html", tmp_path / "page.html").exit_code == 0
    page = (tmp_path / "page.html").read_text()
    assert "Rewards: column &#39;reward&#39;." in page
    assert "Rewards: rule {" in page and "&lt;b&gt;sea" in page and "<b>sea" not in page
