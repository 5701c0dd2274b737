"""Brier, LARK, bands of ranks, SCAS, ASLEC-drop: the pass gives what short computations of their own give.

Each reference follows the published formula over a plain forward pass of transformers.
"""

import random
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from preceptor.config.metrics import metric_named
from preceptor.config.runtime import Runtime
from preceptor.config.student import Reading, Student
from preceptor.config.study import Study
from preceptor.engines.base import Extra, Measured, TokenizedPair
from preceptor.engines.models import LocatedModel
from preceptor.engines.packed.likelihood import TransformersLikelihood
from preceptor.errors import ModelError, StudyError
from preceptor.pipeline.plan import for_student
from preceptor.ranking.later_metrics import LATER_METRICS, StudentCentricAnswer, lark_score
from preceptor.ranking.metrics import METRICS
from preceptor.scorers.gradient import GradientScorer
from preceptor.scorers.likelihood import LikelihoodScorer, StudentModel
from preceptor.scorers.token_measures import LATER, first_tokens, scas_of
from preceptor.types import Instruction, Response
from small_pairs import random_ids

pytestmark = pytest.mark.usefixtures("one_thread")

SPECIAL = frozenset({7, 8})
EXTRA = Extra(frozenset({"brier_50", "similarity"}), SPECIAL)


def some_pairs() -> list[TokenizedPair]:
    """Twenty pairs of which some share a prompt that is resumed, with special tokens among their ids."""
    source = random.Random(5)
    prompts = [(1, 7, *random_ids(source, length), 8) for length in (4, 30, 12)]
    lengths = [1, 9, 33, 2, 18, 40, 7, 25, 3, 12]
    pairs = [TokenizedPair(prompts[0], random_ids(source, n)) for n in lengths]
    pairs += [TokenizedPair(prompts[1 + n % 2], random_ids(source, n)) for n in lengths]
    return pairs


def reference(model: Any, pair: TokenizedPair) -> dict[str, float]:
    ids, start = torch.tensor([pair.prompt + pair.response]), len(pair.prompt)
    seen: list[torch.Tensor] = []
    layer = model.base_model.layers[-1].mlp.up_proj
    hook = layer.register_forward_hook(lambda _m, _i, output: seen.append(output[0].detach()))
    with torch.no_grad():
        logs = model(input_ids=ids, use_cache=False).logits[0, :-1].double().log_softmax(-1)
    hook.remove()
    nll = -logs.gather(1, ids[0, 1:, None])[:, 0]
    own, answer = logs[start - 1 :], ids[0, start:]
    target = (-nll[start - 1 :]).exp()
    best, places = own.topk(50)
    shares = best.softmax(-1)
    inside = (shares * (places == answer[:, None])).sum(-1)
    units = torch.nn.functional.normalize(seen[0].double(), dim=-1)
    plain = torch.tensor([token not in SPECIAL for token in ids[0].tolist()])
    a, q = units[start:][plain[start:]], units[:start][plain[:start]]
    losses = torch.cat((torch.zeros(1), nll))
    m_a = losses[start:][plain[start:]].mean()
    m_q = losses[1:start][plain[1:start]].mean()
    return {
        "brier": float((1 - 2 * target + own.exp().square().sum(-1)).mean()),
        "brier_50": float((1 - 2 * inside + shares.square().sum(-1)).mean()),
        "above_10": float(((own > -nll[start - 1 :, None]).sum(-1) >= 10).double().mean()),
        "scas_answer": float(m_a**2 * (a @ a.T).mean()),
        "scas_question": float(m_a * m_q * (a @ q.T).mean()),
    }


@pytest.mark.parametrize("name", ["llama", "gemma2"])
@pytest.mark.parametrize(("packed", "budget"), [(True, 60), (True, 5000), (False, 60)])
def test_measures_of_the_pass_equal_a_plain_forward_pass(
    name: str, packed: bool, budget: int, make_model: Callable[[str], Any]
) -> None:
    pairs = some_pairs()
    engine = TransformersLikelihood(
        make_model(name), Runtime(max_batch_tokens=budget), packed=packed
    )
    assert engine.packed == packed
    plain = {one.index: one for batch in engine.measure(pairs) for one in batch}
    found = {one.index: one for batch in engine.measure(pairs, EXTRA) for one in batch}
    model = make_model(name)
    model.set_attn_implementation("eager")
    for index, pair in enumerate(pairs):
        expected, one = reference(model, pair), found[index]
        assert set(plain[index].columns) == {"nll", "rank", "brier"} and not plain[index].values
        special = np.array([token in SPECIAL for token in pair.response])
        measured = {
            "brier": one.columns["brier"].mean(),
            "brier_50": one.columns["brier_50"].mean(),
            "above_10": (one.columns["rank"] > 10).mean(),
            **scas_of(one, special),
        }
        for key, value in measured.items():
            # Losses of these models are about 10 nats, so that SCAS is about 100.
            scale = max(1.0, abs(expected[key]))
            assert value == pytest.approx(expected[key], abs=1e-4 * scale), (key, index)
        assert len(one.columns["nll"]) == len(pair.response)


def test_a_model_without_the_layer_that_scas_compares_is_refused(
    make_model: Callable[[str], Any],
) -> None:
    engine = TransformersLikelihood(make_model("gpt2"))
    with pytest.raises(ModelError, match=r"GPT2.* has no layer 'mlp.up_proj'"):
        list(engine.measure(some_pairs(), EXTRA))


def test_such_a_model_is_refused_before_anything_is_loaded(
    make_model: Callable[[str], Any], model_folder: Path, tmp_path: Path
) -> None:
    shutil.copytree(model_folder, tmp_path / "other")
    make_model("gpt2").save_pretrained(tmp_path / "other")
    student, other = (
        StudentModel(Student(model=str(folder), chat_template="plain"))
        for folder in (model_folder, tmp_path / "other")
    )
    LikelihoodScorer(student, wanted=["scas_answer"]).identity()
    LikelihoodScorer(other, wanted=["brier"]).identity()
    with pytest.raises(ModelError, match=r"no layer .mlp\.up_proj"):
        LikelihoodScorer(other, wanted=["scas_answer"]).identity()


@pytest.mark.parametrize(("name", "refused"), [("gpt2", True), ("llama", False)])
def test_so_is_one_whose_weights_are_still_on_the_hub(
    name: str, refused: bool, make_model: Callable[[str], Any], model_folder: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "snapshot"
    shutil.copytree(model_folder, folder)
    make_model(name).save_pretrained(folder)
    for file in folder.glob("*.safetensors*"):
        file.unlink()
    student = StudentModel(Student(model="owner/name", chat_template="plain"))
    student.located = LocatedModel("owner/name", folder, "owner/name", "main", {"hub_id": "x"})
    if refused:
        with pytest.raises(ModelError, match=r"'owner/name' has no layer .mlp\.up_proj"):
            student.require_up_projection()
    else:
        student.require_up_projection()


STUDY = {"data": {"responses": ["answers.jsonl"]}, "students": [{"model": "base"}]}
TEXT = "First, add. Then stop!  Is it 3.5?\n\n  Yes.\nDone"


@pytest.mark.parametrize(
    ("steps", "begin"),
    [("line", ["First", "Yes", "Done"]), ("sentence", ["First", "Then", "Is", "Yes", "Done"])],
)
def test_steps_begin_where_lines_and_sentences_do(steps: str, begin: list[str]) -> None:
    pieces = re.findall(r"\s?\w+|\W", TEXT)
    nll = np.arange(1, len(pieces) + 1, dtype=np.float32)
    places = [next(n for n, p in enumerate(pieces) if p.strip() == word) for word in begin]
    found = first_tokens(nll, pieces, steps)
    assert found == {f"begins_{steps}": len(begin), f"begins_{steps}_nll": nll[places].sum()}
    # What was cut off at the maximum length begins nothing.
    assert first_tokens(nll[:2], pieces, steps)[f"begins_{steps}"] == 1


def test_measures_are_formed_of_what_is_stored(model_folder: Path) -> None:
    student = StudentModel(Student(model=str(model_folder)), Runtime(device="cpu"))
    scorer = LikelihoodScorer(student, wanted=LATER)
    texts = ["Four.", "It is four. I am sure!\nYes"]
    responses = [Response("a", Instruction.from_text("What is 2 + 2?"), text) for text in texts]
    scores = [one for batch in scorer.score(responses) for one in batch]
    columns = {
        name: np.array([one.values[name] for one in scores], dtype=np.float64)
        for name in scorer.columns
    }
    found = scorer.derive(columns)
    assert set(LATER) <= set(found)
    bands = ("rank_1", "rank_2_10", "rank_11_100", "rank_over_100")
    assert np.sum([found[name] for name in bands], axis=0) == pytest.approx([1, 1])
    assert found["lark_rho"] == pytest.approx(found["brier_50"] / found["loss"])
    rest = found["tokens"] - columns["begins_sentence"]
    assert found["loss_sentence"] * rest + columns["begins_sentence_nll"] == pytest.approx(
        columns["nll"]
    )


def test_an_answer_of_special_tokens_alone_has_no_similarity_and_is_not_the_best() -> None:
    measured = Measured(
        0,
        {"nll": np.ones(2, np.float32)},
        {"answer_cosine": 0.0, "question_cosine": 0.0, "question_nll": 1.0},
    )
    assert all(np.isnan(value) for value in scas_of(measured, np.array([True, True])).values())
    assert scas_of(measured, np.array([True, False]))["scas_answer"] == 0


CALL = '[{"arguments":{"city":"Rome"},"name":"weather"}]'


def test_first_tokens_are_those_of_what_was_read(model_folder: Path) -> None:
    reading = Reading(reasoning="cut")
    student = StudentModel(Student(model=str(model_folder)), Runtime(device="cpu"), reading=reading)
    scorer = LikelihoodScorer(student, wanted=("loss_sentence",))
    asked = Instruction.from_text("What is 2 + 2?")
    answer = "It is four. I am sure!"
    given = [
        Response("direct", asked, answer),
        Response("traced", asked, f"<think>\nLet me see.\n</think>\n\n{answer}"),
        Response("call", asked, "", tool_calls=CALL),
    ]
    scores = {one.key: one.values for batch in scorer.score(given) for one in batch}
    direct, traced, call = (scores[one.key] for one in given)
    assert direct["begins_sentence"] == 2
    assert traced == pytest.approx(direct)
    assert call["begins_sentence"] >= 1


def test_rows_stored_before_serve_old_metrics_and_not_new_ones(model_folder: Path) -> None:
    student = StudentModel(Student(model=str(model_folder)), Runtime(device="cpu"))
    old, new = LikelihoodScorer(student), LikelihoodScorer(student, wanted=["brier", "rank_1"])
    assert old.identity() == new.identity()
    assert old.required == ("tokens", "nll", "rank", "truncated")
    assert new.required == (*old.required, "brier", "rank_1")


def test_larks_score_is_that_of_its_formula() -> None:
    rng = np.random.default_rng(0)
    loss, brier = rng.uniform(0.5, 2, (4, 6)), rng.uniform(0.2, 1, (4, 6))
    found = lark_score(loss, brier)
    for column in range(6):
        one, rho = loss[:, column], brier[:, column] / loss[:, column]
        expected = one / one.sum() * (2 * rho - (rho * one).sum() / one.sum())
        assert found[:, column] == pytest.approx(expected, rel=1e-12)
    loss[2, 3] = np.nan
    assert np.isnan(lark_score(loss, brier)[:, 3]).all()


def test_later_metrics_declare_their_directions_and_are_formed_only_when_asked_for() -> None:
    directions = {metric.kind: metric.higher_is_better for metric in LATER_METRICS}
    assert directions == {
        "brier": False, "rank_1": True, "lark_rho": True, "lark": True, "scas": False, "aslec_drop": True,
        "g_norm": False, "grace": False,
    }  # fmt: skip
    assert StudentCentricAnswer(weight=0.25)(np.array([4.0]), np.array([8.0])) == [5.0]
    asked = Study.model_validate({**STUDY, "metrics": [{"kind": kind} for kind in directions]})
    (student,) = asked.students
    planned = for_student(asked, Runtime(), student, reward=None)
    (_, scorer, gradients) = planned.scorers
    assert isinstance(gradients, GradientScorer)
    assert isinstance(scorer, LikelihoodScorer)
    assert set(scorer.wanted) == set(LATER) - {"loss_line"}
    usual = for_student(Study.model_validate(STUDY), Runtime(), student, reward=None)
    assert not set(usual.kinds) & set(directions) and set(directions) <= set(METRICS)
    with pytest.raises(StudyError, match="steps"):
        metric_named("aslec_drop", steps="word")
