"""A server that tells log-probabilities gives the numbers of the model that it serves, or is refused."""

import json
import math
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest

import preceptor
from chat_server import Told, refuse, reset, serving
from logprob_server import Spoil, log_probabilities
from preceptor.config.runtime import Endpoint, Runtime
from preceptor.config.student import Student
from preceptor.engines.base import Measured, TokenizedPair
from preceptor.engines.likelihoods import LIKELIHOOD_ENGINES
from preceptor.engines.loading import load_model, load_tokenizer
from preceptor.engines.models import locate
from preceptor.errors import ModelError, StudyError
from preceptor.scorers.likelihood import LikelihoodScorer, StudentModel
from preceptor.types import Instruction, NoteKind, Response

PAIRS = [
    TokenizedPair(tuple(range(5, 5 + n)), tuple(range(40, 40 + 3 * n, 2))) for n in range(1, 7)
]


class Served:
    """A tiny model, and a server of it."""

    def __init__(self, folder: Path, told: Told) -> None:
        self.folder, self.told = folder, told
        endpoint = Endpoint(url=told.url, timeout_s=20.0, patience_s=20.0)
        self.runtime = Runtime(device="cpu", endpoints={str(folder): endpoint})

    def measured(self, engine: str, **options: Any) -> dict[int, Measured]:
        student = Student(model=str(self.folder), engine=engine, dtype="float32", **options)
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


def shifted(by: float) -> Spoil:
    """Make logits of log-probabilities, as vLLM tells with `--logprobs-mode raw_logits`."""

    def spoil(choice: dict[str, Any]) -> None:
        for place in choice["prompt_logprobs"][1:]:
            for told in place.values():
                told["logprob"] += by
        if echoed := choice.get("logprobs"):
            own = echoed["token_logprobs"]
            echoed["token_logprobs"] = [None, *(value + by for value in own[1:])]
            echoed["top_logprobs"] = [
                place and {token: value + by for token, value in place.items()}
                for place in echoed["top_logprobs"]
            ]

    return spoil


def spelled_otherwise(choice: dict[str, Any]) -> None:
    choice["logprobs"]["tokens"] = ["x" for _ in choice["logprobs"]["tokens"]]


@pytest.mark.parametrize(
    ("engine", "spoil", "said"),
    [
        ("served", without("prompt_logprobs"), r"without the prompt_logprobs.*vLLM's server does"),
        ("served", other_ids, "other tokens than the student's own"),
        ("served", of_what_follows, "depends on what follows them"),
        ("served", shifted(-40.0), "not the logarithms of probabilities"),
        ("served", shifted(8.0), r"not the logarithms.*--logprobs-mode"),
        ("echo", shifted(-40.0), "not the logarithms of probabilities"),
        ("echo", shifted(8.0), "not the logarithms of probabilities"),
        (
            "echo",
            without("logprobs"),
            r"without the echo.*llama.cpp's and most hosted services do not",
        ),
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


@pytest.mark.parametrize(
    ("scale", "by", "fingerprint", "said"),
    [
        (1.0, 0.0, "vllm-b", None),
        (1.5, 0.0, "vllm-b", "tells other numbers of the same text than before"),
        (1.5, 0.0, "vllm-a", "tells other numbers of the same text than before"),
        (1.0, 8.0, "vllm-a", "not the logarithms of probabilities"),
        (1.0, -40.0, "vllm-a", "not the logarithms of probabilities"),
    ],
    ids=["as it was", "another model", "another model of its name", "logits", "negative logits"],
)
def test_a_server_that_is_started_again_in_between_is_tried_again(
    model_folder: Path, scale: float, by: float, fingerprint: str, said: str | None
):
    located = locate(str(model_folder))
    model, tokenizer = load_model(located, dtype="float32", device="cpu"), load_tokenizer(located)
    with served(model_folder) as one:
        student = Student(model=str(model_folder), dtype="float32")
        engine = LIKELIHOOD_ENGINES["served"].load(located, student, one.runtime)
        list(engine.measure(PAIRS[:2]))
        model.lm_head.weight.data *= scale
        one.told.otherwise = log_probabilities(
            model, tokenizer, shifted(by), fingerprint=fingerprint
        )
        one.told.steps = [reset] * 8  # the connections that it had
        found: list[Measured] = []
        if said is None:
            for batch in engine.measure(PAIRS):
                found += batch
            assert len(found) == len(PAIRS) and not any(each.note for each in found)
        else:
            with pytest.raises(ModelError, match=said):
                for batch in engine.measure(PAIRS):
                    found += batch
            assert not found


class TestContext:
    """A server takes as many tokens as it was started with; one of them is that which it answers."""

    PAIRS: ClassVar = [TokenizedPair((5, 6, 7), tuple(range(10, 10 + n))) for n in (9, 150, 20)]

    def measured(self, one: Served, engine: str, tokens: int, **options: Any) -> list[Measured]:
        one.told.models = [{"id": str(one.folder), "max_model_len": tokens}]
        student = Student(model=str(one.folder), engine=engine, dtype="float32", **options)
        loaded = LIKELIHOOD_ENGINES[engine].load(locate(student.model), student, one.runtime)
        found = [each for batch in loaded.measure(self.PAIRS) for each in batch]
        return sorted(found, key=lambda each: each.index)

    @pytest.mark.parametrize("engine", ["served", "echo"])
    def test_one_that_takes_less_than_the_student_reads_is_refused_before_it_is_asked(
        self, model_folder: Path, engine: str
    ):
        said = (
            r"takes 153 tokens.*1 of 3 responses.*--max-model-len 154 or more.*max_length = 152\)"
        )
        with served(model_folder) as one:
            with pytest.raises(ModelError, match=said):
                self.measured(one, engine, 153)
            assert len(one.told.requests) <= 3  # by which it is tried

    def test_one_with_room_gives_all_and_what_fills_the_students_context_has_a_note(
        self, model_folder: Path
    ):
        with served(model_folder) as one:
            found = self.measured(one, "served", 154)
            assert [each.note for each in found] == [""] * 3
            found = self.measured(one, "served", 153, max_length=153)
        assert [bool(each.note) for each in found] == [False, True, False]
        assert NoteKind.of(found[1].note) == NoteKind.NO_ROOM
        assert np.isnan(found[1].columns["nll"]).all()

    def test_where_it_does_not_say_the_note_of_a_refused_row_has_its_words(
        self, model_folder: Path
    ):
        asked = Instruction.from_text("2 + 2?")
        rows = [Response("a", asked, text) for text in ("Four.", "It is four. " * 40)]
        student = Student(model=str(model_folder), engine="served", chat_template="plain")
        with served(model_folder) as one:
            one.told.models = [{"id": "another", "max_model_len": 153}]
            scorer = LikelihoodScorer(StudentModel(student, one.runtime))
            notes = {each.key: each.note for batch in scorer.score(rows) for each in batch}
        assert not notes[rows[0].key]
        note = str(notes[rows[1].key])
        assert NoteKind.of(note) == NoteKind.REFUSED
        assert "max_tokens must be at least 1" in note


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
        with pytest.raises(
            ModelError,
            match=r"has not answered 5 requests in a row.* 5 answers of this run are done",
        ):
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
