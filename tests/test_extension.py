"""What another package adds is one class in one file, used through the public names alone."""

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

import preceptor
from extensions.reward_per_token import RewardPerToken
from plugin_package import EXTENSIONS, install


@pytest.fixture
def answers(tmp_path: Path) -> list[str]:
    """Files of two teachers: the second has the higher rewards, and five times the words."""
    paths = []
    for teacher, words, reward in (("brief", 2, 0.5), ("wordy", 10, 0.9)):
        path = tmp_path / f"{teacher}.jsonl"
        rows = [
            {"instruction": f"Name {n}.", "output": "word " * words, "reward": reward + n / 1000}
            for n in range(40)
        ]
        path.write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
        paths.append(str(path))
    return paths


Package = Callable[[str, dict[str, dict[str, str]]], None]


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Package:
    """Install a package with a file of `extensions`, which registers its classes."""
    site = tmp_path / "site"
    site.mkdir()
    monkeypatch.syspath_prepend(site)
    monkeypatch.chdir(tmp_path)

    def add(module: str, groups: dict[str, dict[str, str]]) -> None:
        shutil.copy(EXTENSIONS / f"{module}.py", site)
        install(site, f"preceptor-{module}", module, groups)

    return add


def rank(answers: list[str], tmp_path: Path, **options) -> preceptor.Ranking:
    store = str(tmp_path / "store")
    given = {"reward_column": "reward", "no_student": "student" not in options, **options}
    return preceptor.rank(answers, store=store, n_resamples=100, **given)


def test_an_object_of_ones_own_is_a_metric(answers: list[str], tmp_path: Path):
    ranking = rank(answers, tmp_path, metrics=["reward", RewardPerToken(scale=2.0)])
    assert ranking.by == "reward"
    assert list(ranking.metrics) == ["reward", "reward_per_token"]
    brief = ranking.teachers[1]
    reward, length = (brief.estimates[name].value for name in ("reward", "length"))
    assert brief.estimates["reward_per_token"].value == pytest.approx(2 * reward / length)
    assert ranking.settings["metrics"] == {"reward": {}, "reward_per_token": {"scale": 2.0}}


def test_a_metric_of_another_package_orders_by_its_name(
    answers: list[str], tmp_path: Path, package: Package
):
    package("reward_per_token", {"metrics": {"reward_per_token": "RewardPerToken"}})
    named = rank(answers, tmp_path, metrics=["reward_per_token"])
    assert [result.teacher for result in named.teachers] == ["brief", "wordy"]
    study = tmp_path / "study.toml"
    study.write_text(
        f"""
        metrics = ["reward", {{ kind = "reward_per_token", scale = 3 }}]
        by = "reward_per_token"
        no_student = true
        data.responses = {json.dumps(answers)}
        reward = {{ kind = "column", column = "reward" }}
        runtime.store = "{tmp_path / "store"}"
        """,
        encoding="utf-8",
    )
    (ranking,) = preceptor.run(study)
    value = ranking.teachers[0].estimates["reward_per_token"].value
    assert value == pytest.approx(3 * named.teachers[0].estimates["reward_per_token"].value)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (0.5, r"0\.5 is no metric: it has no kind\. A metric is an object with `kind`"),
        ("reward_per_tokn", "No metric is called 'reward_per_tokn'; known are car, reward"),
        (print, "is no metric: it has no kind"),
    ],
)
def test_what_is_no_metric_is_refused_with_what_one_needs(
    answers: list[str], tmp_path: Path, given: object, said: str
):
    with pytest.raises(preceptor.StudyError, match=said):
        rank(answers, tmp_path, metrics=[given])


def test_a_layout_of_another_package_is_recognised_and_has_a_name(tmp_path: Path, package: Package):
    package("chat_log", {"layouts": {"chat-log": "ChatLog"}})
    log = tmp_path / "log.jsonl"
    rows = [
        {"said": f"Name {n}.", "replied": "word " * words, "bot": bot}
        for n in range(40)
        for bot, words in (("brief", 2), ("wordy", 10))
    ]
    log.write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    for columns in (None, preceptor.ReadOptions(layout="chat-log")):
        given = {"no_student": True} | ({} if columns is None else {"columns": columns})
        ranking = preceptor.rank([log], store=str(tmp_path / "store"), n_resamples=100, **given)
        assert {result.teacher for result in ranking.teachers} == {"brief", "wordy"}
        assert "chat-log layout (said, replied, teacher from 'bot')" in str(ranking.settings)


def test_a_chart_of_another_package_is_drawn_and_stands_in_the_page(
    answers: list[str], tmp_path: Path, package: Package
):
    package("lengths", {"charts": {"lengths": "Lengths"}})
    ranking = rank(answers, tmp_path)
    spec = ranking.plot("lengths").to_dict()
    assert [row["teacher"] for row in spec["datasets"]["lengths"]] == list(ranking.order)
    page = ranking.to_html()
    assert "Mean length in tokens" in page
    assert "Longer is not better." in page


def test_a_likelihood_engine_of_another_package_measures_a_student(
    answers: list[str], tmp_path: Path, package: Package, model_folder: Path
):
    package("loss_only", {"likelihood_engines": {"loss-only": "LossOnly"}})
    student = preceptor.Student(model=str(model_folder), engine="loss-only")
    ranking = rank(answers, tmp_path, student=student)
    assert ranking.by == "car"
    for result in ranking:
        reward = result.estimates["reward"].value
        assert result.estimates["loss"].value == 1.0
        assert result.estimates["car"].value == pytest.approx(reward / (1 + 3 * 1.0))


def test_teachers_and_a_scorer_of_other_packages_are_asked_and_score(
    tmp_path: Path, package: Package
):
    package("parrot", {"teachers": {"parrot": "Parrot"}})
    package("no_shouting", {"scorers": {"no-shouting": "NoShouting"}})
    prompts = [{"instruction": f"Say word number {n}."} for n in range(40)]
    (tmp_path / "prompts.jsonl").write_text("\n".join(map(json.dumps, prompts)), encoding="utf-8")
    study = tmp_path / "study.toml"
    study.write_text(
        f"""
        reward = {{ kind = "no-shouting", limit = 0.4 }}
        no_student = true
        data.instructions = {json.dumps(str(tmp_path / "prompts.jsonl"))}
        teachers = [{{ model = "loud", engine = "parrot" }}, {{ model = "calm", engine = "parrot" }}]
        runtime.store = "{tmp_path / "store"}"
        """,
        encoding="utf-8",
    )
    (ranking,) = preceptor.run(study)
    assert ranking.order == ("calm", "loud")
    assert [result.estimates["reward"].value for result in ranking] == [1.0, 0.0]
    assert ranking.reward_source == "no-shouting limit=0.4"
    study.write_text(study.read_text().replace("no-shouting", "no-shoutng"))
    with pytest.raises(preceptor.StudyError, match="Did you mean 'no-shouting'"):
        preceptor.run(study)
    study.write_text(study.read_text().replace('"parrot"', '"parot"'))
    with pytest.raises(preceptor.StudyError, match="Did you mean 'parrot'"):
        preceptor.run(study)


def test_a_misspelt_option_of_a_scorer_of_another_package_is_refused(
    answers: list[str], tmp_path: Path, package: Package
):
    package("no_shouting", {"scorers": {"no-shouting": "NoShouting"}})
    study = tmp_path / "study.toml"
    study.write_text(
        f"""
        no_student = true
        data.responses = {json.dumps(answers)}
        reward = {{ kind = "no-shouting", limmit = 0.2 }}
        runtime.store = "{tmp_path / "store"}"
        """,
        encoding="utf-8",
    )
    with pytest.raises(preceptor.StudyError, match=r"argument 'limmit'. It takes limit\."):
        preceptor.run(study)


def test_the_lines_that_the_guide_counts_are_those_of_the_examples():
    guide = (EXTENSIONS.parents[1] / "docs/how-to/extend.md").read_text(encoding="utf-8")
    counted = re.findall(r"/tests/extensions/(\w+)\.py\) \| (\d+) \|", guide)
    files = {path.stem: path.read_text(encoding="utf-8") for path in EXTENSIONS.glob("*.py")}
    assert {name: int(lines) for name, lines in counted} == {
        name: len(text.splitlines()) for name, text in files.items()
    }
    for text in files.values():
        assert len(re.findall("^class ", text, re.M)) == 1
        assert not re.search(r"preceptor\.\w", text)
