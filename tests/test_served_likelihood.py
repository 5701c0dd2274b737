"""A server that tells log-probabilities gives the numbers of the model that it serves, or is refused."""

import json
import math
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import preceptor
from chat_server import Told, refuse, serving
from logprob_server import Spoil, log_probabilities
from preceptor.config.runtime import Endpoint, Runtime
from preceptor.config.student import Student
from preceptor.engines.base import Measured, TokenizedPair
from preceptor.engines.likelihoods import LIKELIHOOD_ENGINES
from preceptor.engines.loading import load_model, load_tokenizer
from preceptor.engines.models import locate
from preceptor.engines.templates import FAMILY_TEMPLATES
from preceptor.errors import ModelError, StudyError
from preceptor.types import Instruction, Response

PAIRS = [
    TokenizedPair(tuple(range(5, 5 + n)), tuple(range(40, 40 + 3 * n, 2))) for n in range(1, 7)
]


RESPONSES = [
    Response("a", Instruction.from_text("What is two plus two?"), text)
    for text in ("Four.", "The cat sat on the mat. " * 3, "Two plus two is four.")
]


class Served:
    """A tiny model, and a server of it."""

    def __init__(self, folder: Path, told: Told) -> None:
        self.folder, self.told = folder, told
        endpoint = Endpoint(url=told.url, timeout_s=20.0, patience_s=20.0)
        self.runtime = Runtime(device="cpu", endpoints={str(folder): endpoint})

    def measured(self, engine: str) -> dict[int, Measured]:
        student = Student(model=str(self.folder), engine=engine, dtype="float32")
        loaded = LIKELIHOOD_ENGINES[engine].load(locate(student.model), student, self.runtime)
        return {one.index: one for batch in loaded.measure(PAIRS) for one in batch}


@contextmanager
def served(folder: Path, spoil: Spoil = lambda choice: None) -> Iterator[Served]:
    located = locate(str(folder))
    model = load_model(located, dtype="float32", device="cpu")
    with serving(otherwise=log_probabilities(model, load_tokenizer(located), spoil)) as told:
        yield Served(folder, told)


@pytest.mark.parametrize("engine", ["served", "echo"])
def test_a_server_gives_the_numbers_of_the_model_that_it_serves(model_folder: Path, engine: str):
    with served(model_folder) as one:
        there, here = one.measured(engine), one.measured("transformers")
    assert there.keys() == here.keys() == set(range(len(PAIRS)))
    for index, found in there.items():
        assert set(found.columns) == set(LIKELIHOOD_ENGINES[engine].measures)
        for name, column in found.columns.items():
            assert np.allclose(column, here[index].columns[name], atol=1e-4), name


def without(name: str) -> Spoil:
    return lambda choice: choice.pop(name)


def other_ids(choice: dict[str, Any]) -> None:
    choice["prompt_logprobs"] = [
        one and {str(int(token) + 1): told for token, told in one.items()}
        for one in choice["prompt_logprobs"]
    ]


def of_what_follows(choice: dict[str, Any]) -> None:
    choice["prompt_logprobs"][1:] = [
        {token: {**told, "logprob": -float(place)} for token, told in one.items()}
        for place, one in zip(
            np.random.default_rng(len(str(choice))).permutation(99) + 1,
            choice["prompt_logprobs"][1:],
            strict=False,
        )
    ]


def spelled_otherwise(choice: dict[str, Any]) -> None:
    choice["logprobs"]["tokens"] = ["x" for _ in choice["logprobs"]["tokens"]]


@pytest.mark.parametrize(
    ("engine", "spoil", "said"),
    [
        ("served", without("prompt_logprobs"), "tells no prompt_logprobs"),
        ("served", other_ids, "other tokens than the student's own"),
        ("served", of_what_follows, "depends on what follows them"),
        ("echo", without("logprobs"), "spells the student's tokens as ''"),
        ("echo", spelled_otherwise, "another tokenizer"),
    ],
)
def test_a_server_with_other_tokens_or_other_numbers_is_refused_at_once(
    model_folder: Path, engine: str, spoil: Spoil, said: str
):
    with served(model_folder, spoil) as one, pytest.raises(ModelError, match=said):
        one.measured(engine)
    assert len(one.told.requests) <= 3


def test_a_server_that_refuses_says_why_and_one_that_nobody_named_is_asked_for(model_folder: Path):
    student = Student(model=str(model_folder), engine="served")
    engine, located = LIKELIHOOD_ENGINES["served"], locate(str(model_folder))
    with pytest.raises(StudyError, match="Nothing says where"):
        engine.load(located, student, Runtime())
    with (
        serving(otherwise=refuse(404, "no such model")) as told,
        pytest.raises(ModelError, match=r"does not tell.*no such model"),
    ):
        engine.load(located, student, Served(model_folder, told).runtime)


@pytest.mark.parametrize("bad", [0.5, "-1", True, None, math.nan, -math.inf, -9999.0], ids=str)
def test_one_bad_number_costs_its_row_alone_and_is_never_a_zero(model_folder: Path, bad: object):
    def spoil(choice: dict[str, Any]) -> None:
        entries = choice["prompt_logprobs"]
        if len(entries) == len(PAIRS[2].prompt) + len(PAIRS[2].response):
            next(iter(entries[-1].values()))["logprob"] = bad

    with served(model_folder, spoil) as one:
        found = one.measured("served")
    assert found.keys() == set(range(len(PAIRS)))
    usable = {i for i, each in found.items() if np.isfinite(each.columns["nll"]).all()}
    assert usable == set(found) - {2}


def test_an_odd_answer_leaves_its_row_for_later_and_a_server_that_goes_ends_the_run(
    model_folder: Path,
):
    odd = refuse(401, "expired")
    with served(model_folder) as one:
        student = Student(model=str(model_folder), dtype="float32")
        engine = LIKELIHOOD_ENGINES["served"].load(locate(student.model), student, one.runtime)
        well, asked = one.told.otherwise, len((*PAIRS[2].prompt, *PAIRS[2].response))
        one.told.otherwise = lambda handler, given: (
            odd if len(given["prompt"]) == asked else well
        )(handler, given)
        found = [measured.index for batch in engine.measure(PAIRS) for measured in batch]
        assert sorted(found) == [0, 1, 3, 4, 5]
        one.told.otherwise = odd
        with pytest.raises(ModelError, match="has not answered 5 requests in a row"):
            list(engine.measure(PAIRS))


@pytest.fixture
def answers(tmp_path: Path) -> list[str]:
    paths = []
    for teacher, word, reward in (
        ("cats", "The cat sat. ", 0.5),
        ("dogs", "A dog lay there. ", 0.9),
    ):
        rows = [
            {"instruction": f"Say {n}.", "output": word * (1 + n % 3), "reward": reward + n / 1000}
            for n in range(12)
        ]
        path = tmp_path / f"{teacher}.jsonl"
        path.write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
        paths.append(str(path))
    return paths


def test_a_ranking_by_a_server_is_that_of_the_model_and_shares_no_score_with_it(
    model_folder: Path, answers: list[str], tmp_path: Path
):
    with served(model_folder) as one:
        found = {}
        for engine in ("transformers", "served"):
            before = len(one.told.requests)
            found[engine] = preceptor.rank(
                answers,
                student=Student(model=str(model_folder), engine=engine, dtype="float32"),
                store=str(tmp_path / "store"),
                device="cpu",
                endpoints=one.runtime.endpoints,
                reward_column="reward",
                metrics=["car", "loss", "rsr"],
                n_resamples=100,
            )
        assert len(one.told.requests) - before == 3 + 24  # nothing of what the other engine stored
    here, there = found["transformers"], found["served"]
    assert list(here.order) == list(there.order)
    for one_teacher, other in zip(here, there, strict=True):
        for name in ("car", "loss", "rsr"):
            value = other.estimates[name].value
            assert one_teacher.estimates[name].value == pytest.approx(value, abs=1e-4)
    assert there.settings["student"]["engine"] == "served"


def test_a_metric_that_needs_more_than_the_engine_gives_is_refused_when_planned(
    model_folder: Path, answers: list[str], tmp_path: Path
):
    student = Student(model=str(model_folder), engine="echo")
    with pytest.raises(StudyError, match=r"'token_rank'.*engine 'echo'.*does not give"):
        preceptor.rank(
            answers,
            student=student,
            store=str(tmp_path / "store"),
            reward_column="reward",
            metrics=["car", "rsr"],
        )


class TestRewards:
    """A reward model behind `/classify` or `/pooling`, each answering as vLLM documents it."""

    @staticmethod
    def server(
        folder: Path,
        *,
        squash: bool = False,
        bad: object = None,
        pools: bool = False,
        told_as: Any = lambda value: [value],
    ) -> Any:
        import torch
        from transformers import AutoModelForSequenceClassification

        model = AutoModelForSequenceClassification.from_pretrained(folder)

        def step(handler: Any, asked: dict[str, Any]) -> None:
            if pools and handler.path == "/classify":
                refuse(404, "Not Found")(handler, asked)
                return
            with torch.no_grad():
                logit = model(input_ids=torch.tensor([asked["input"]])).logits[0][0]
            value = logit.sigmoid() if squash or asked["use_activation"] else logit
            told = told_as(float(value) if bad is None or len(asked["input"]) != bad else "much")
            found = {"probs": told, "num_classes": len(told)}
            if handler.path == "/pooling":
                found = {"object": "pooling", "data": told}
            body = {"id": "pool-1", "object": "list", "data": [{"index": 0, **found}]}
            handler.send(200, json.dumps(body).encode(), {})

        return step

    @staticmethod
    def scorer(folder: Path, told: Told, engine: str) -> Any:
        from preceptor.config.rewards import ModelReward
        from preceptor.scorers.reward_model import RewardModel

        runtime = Runtime(device="cpu", endpoints={str(folder): Endpoint(url=told.url)})
        return RewardModel(ModelReward(model=str(folder), engine=engine), runtime)

    @pytest.fixture
    def folder(self, tmp_path: Path, make_model: Any, make_tokenizer: Any) -> Path:
        make_model("qwen3", labels=1).save_pretrained(tmp_path / "reward")
        tokens = {"bos_token": "<bos>", "eos_token": "<eos>", "pad_token": "<pad>"}
        template = FAMILY_TEMPLATES["chatml"]
        made = make_tokenizer(chat_template=template, **tokens)
        made.save_pretrained(tmp_path / "reward")
        return tmp_path / "reward"

    def test_rewards_by_a_server_are_the_models_own_under_another_identity(self, folder: Path):
        with serving(otherwise=self.server(folder)) as told:
            scorers = [self.scorer(folder, told, engine) for engine in ("served", "transformers")]
            found = []
            for scorer in scorers:
                rows = [one for batch in scorer.score(RESPONSES) for one in batch]
                found.append({one.key: one.values["score"] for one in rows})
        assert set(told.paths) == {"/classify"}
        assert found[0] == pytest.approx(found[1], abs=1e-4)
        assert scorers[0].identity() != scorers[1].identity()

    def test_a_server_that_only_pools_gives_the_same_rewards(self, folder: Path):
        found = []
        for pools in (True, False):
            with serving(otherwise=self.server(folder, pools=pools)) as told:
                scorer = self.scorer(folder, told, "served")
                rows = [one for batch in scorer.score(RESPONSES) for one in batch]
            found.append({one.key: one.values["score"] for one in rows})
            assert told.paths[-1] == ("/pooling" if pools else "/classify")
        assert len(found[0]) == len(RESPONSES)
        assert found[0] == found[1]

    @pytest.mark.parametrize(
        ("told_as", "saw"),
        [
            (lambda value: [value, -value], r"2 numbers \(a vector, or several labels\)"),
            (lambda value: [[value]] * 7, r"7 lists of numbers \(one for each token\)"),
            (lambda value: "AACAPw==", "no list of numbers"),
        ],
    )
    @pytest.mark.parametrize("pools", [True, False])
    def test_more_than_one_number_is_no_reward(
        self, folder: Path, told_as: Any, saw: str, pools: bool
    ):
        with (
            serving(otherwise=self.server(folder, pools=pools, told_as=told_as)) as told,
            pytest.raises(ModelError, match=f"{'pooling' if pools else 'classify'}: saw {saw}"),
        ):
            list(self.scorer(folder, told, "served").score(RESPONSES))

    def test_a_server_that_does_neither_is_told_of_both(self, folder: Path):
        with (
            serving(otherwise=refuse(404, "Not Found")) as told,
            pytest.raises(ModelError, match=r"by /classify: .*404.*; by /pooling: .*404"),
        ):
            list(self.scorer(folder, told, "served").score(RESPONSES))

    def test_one_bad_reward_costs_its_row_alone(self, folder: Path):
        with serving(otherwise=self.server(folder)) as told:
            one = self.scorer(folder, told, "served")
            encoded = one._encoded(RESPONSES[1])
        bad = len(encoded.prompt) + len(encoded.response)
        with serving(otherwise=self.server(folder, bad=bad)) as told:
            scored = [s for b in self.scorer(folder, told, "served").score(RESPONSES) for s in b]
        assert [bool(one.note) for one in scored].count(True) == 1
        assert len(scored) == len(RESPONSES)

    def test_a_server_that_squashes_scores_is_refused(self, folder: Path):
        with (
            serving(otherwise=self.server(folder, squash=True)) as told,
            pytest.raises(ModelError, match="squashes scores"),
        ):
            list(self.scorer(folder, told, "served").score(RESPONSES))
