"""Scores are the definitions applied to the right tokens, and trouble with a row is a note on that row.

The reference follows metrics: s_t = -log p(y_t | x, y_<t) under the student, from the saved model's own
forward pass over one response at a time.
"""

import json
import math
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM

from preceptor.config.runtime import Runtime
from preceptor.config.student import Reading, Student
from preceptor.engines.loading import load_tokenizer
from preceptor.engines.models import locate
from preceptor.scorers.likelihood import (
    Conditioning,
    LikelihoodScorer,
    StudentModel,
    instruction_following_difficulty,
)
from preceptor.types import Instruction, Response, Score

pytestmark = pytest.mark.usefixtures("one_thread", "private_cache")

QUESTION = Instruction.from_text("What is two plus two?")
POEM = Instruction.from_text("Write a poem about the sea.")
RESPONSES = [
    Response("one", QUESTION, "Two plus two is four."),
    Response("two", QUESTION, "four"),
    Response("one", POEM, "The sea is wide;\nthe sea is deep.\n\nHello there! 🐈"),
    Response("two", POEM, "<end_of_turn> def add(one, two):\n    return one + two\n"),
]


def student_of(
    folder: Path, *, reading: Mapping[str, Any] | None = None, **options: Any
) -> StudentModel:
    student = Student(model=str(folder), **{"chat_template": "gemma", **options})
    return StudentModel(student, reading=Reading.model_validate(reading or {}))


def score(scorer: LikelihoodScorer, responses: Sequence[Response]) -> list[Score]:
    """Return the scores in the order of the responses, whose keys must differ."""
    found = [one for batch in scorer.score(responses) for one in batch]
    by_key = {one.key: one for one in found}
    assert len(by_key) == len(found) == len(responses)
    return [by_key[response.key] for response in responses]


def reference(folder: Path, prompt: tuple[int, ...], response: tuple[int, ...]) -> list[float]:
    """Return s_t of each response token."""
    model = AutoModelForCausalLM.from_pretrained(folder, attn_implementation="eager").eval()
    with torch.no_grad():
        logits = model(torch.tensor([prompt + response])).logits[0, len(prompt) - 1 : -1]
    targets = torch.tensor(response)
    nll: list[float] = torch.nn.functional.cross_entropy(logits, targets, reduction="none").tolist()
    return nll


def test_the_conditional_loss_is_over_the_response_after_the_rendered_prompt(
    model_folder: Path,
) -> None:
    scores = score(LikelihoodScorer(student_of(model_folder)), RESPONSES)
    tokenizer = load_tokenizer(locate(str(model_folder)))
    for response, found in zip(RESPONSES[:3], scores, strict=False):
        turn = f"<bos><start_of_turn>user\n{response.instruction.text}<end_of_turn>\n"
        prompt = tokenizer(turn + "<start_of_turn>model\n", add_special_tokens=False)["input_ids"]
        text = tokenizer(response.text, add_special_tokens=False)["input_ids"]
        expected = reference(model_folder, tuple(prompt), tuple(text))
        assert found.values["tokens"] == len(text)
        assert found.values["nll"] == pytest.approx(sum(expected), abs=1e-4 * len(text))
        assert found.note is None


def test_both_passes_cover_the_same_response_tokens(model_folder: Path) -> None:
    student = student_of(model_folder)
    with_instruction = LikelihoodScorer(student)
    without = LikelihoodScorer(student, "unconditional")
    for response in RESPONSES:
        encoded = with_instruction.encoded(response)
        assert not isinstance(encoded, str)
        assert with_instruction.pair(encoded).response == without.pair(encoded).response
    for one, other in zip(
        score(with_instruction, RESPONSES), score(without, RESPONSES), strict=True
    ):
        assert one.values["tokens"] == other.values["tokens"]
        assert one.values["nll"] != pytest.approx(other.values["nll"], rel=1e-3)


def test_the_unconditional_loss_is_after_nothing_but_the_beginning_token(
    model_folder: Path,
) -> None:
    student = student_of(model_folder)
    (found,) = score(LikelihoodScorer(student, "unconditional"), RESPONSES[:1])
    tokenizer = load_tokenizer(locate(str(model_folder)))
    text = tuple(tokenizer(RESPONSES[0].text, add_special_tokens=False)["input_ids"])
    expected = reference(model_folder, (tokenizer.bos_token_id,), text)
    assert found.values["nll"] == pytest.approx(sum(expected), abs=1e-3)


def test_every_declared_column_is_stored_and_every_declared_measure_derived(
    model_folder: Path,
) -> None:
    student = student_of(model_folder)
    for conditioning in ("conditional", "unconditional"):
        scorer = LikelihoodScorer(student, conditioning)
        scores = score(scorer, RESPONSES)
        assert all(set(one.values) >= set(scorer.columns) for one in scores)
        columns = {
            name: np.array([one.values[name] for one in scores], dtype=np.float64)
            for name in scorer.columns
        }
        derived = scorer.derive(columns)
        assert set(scorer.measures) <= set(derived)
        assert all(np.isfinite(column).all() for column in derived.values())


def test_measures_are_means_over_the_tokens(model_folder: Path) -> None:
    columns = {
        "tokens": np.array([4.0, 2.0]),
        "nll": np.array([8.0, 2000.0]),
        "rank": np.array([40.0, 200.0]),
        "truncated": np.array([0.0, 1.0]),
    }
    derived = LikelihoodScorer(student_of(model_folder)).derive(columns)
    assert derived["loss"].tolist() == [2.0, 1000.0]
    assert derived["perplexity"][0] == pytest.approx(math.exp(2.0))
    assert math.isnan(derived["perplexity"][1]), "an overflow is no data, not infinity"
    assert derived["token_rank"].tolist() == [10.0, 100.0]
    without = LikelihoodScorer(student_of(model_folder), "unconditional").derive(columns)
    assert without["loss_unconditional"].tolist() == [2.0, 1000.0]


def test_ifd_is_the_ratio_of_the_perplexities() -> None:
    ifd = instruction_following_difficulty(np.array([2.0, 1.0, np.nan]), np.array([3.0, 1.0, 1.0]))
    assert ifd[:2] == pytest.approx([math.exp(2.0) / math.exp(3.0), 1.0])
    assert math.isnan(ifd[2])


def test_the_same_text_after_another_prompt_has_another_key_and_number(model_folder: Path) -> None:
    twins = [RESPONSES[0], replace(RESPONSES[0], instruction=POEM)]
    one, other = score(LikelihoodScorer(student_of(model_folder)), twins)
    assert one.values["tokens"] == other.values["tokens"]
    assert one.values["nll"] != other.values["nll"]


def test_single_tokens_are_kept_on_request(model_folder: Path) -> None:
    options = Student(model=str(model_folder), chat_template="gemma")
    scores = score(LikelihoodScorer(StudentModel(options, Runtime(keep_tokens=True))), RESPONSES)
    for one in scores:
        nll, ranks = one.values["token_nll"], one.values["token_rank"]
        assert isinstance(nll, Sequence)
        assert isinstance(ranks, Sequence)
        assert len(nll) == len(ranks) == one.values["tokens"]
        assert sum(nll) == pytest.approx(one.values["nll"])
        assert sum(ranks) == one.values["rank"]


def test_a_response_that_leaves_nothing_to_measure_gets_a_note(model_folder: Path) -> None:
    missing = Response("one", QUESTION, None)
    empty = Response("one", POEM, "")
    scores = score(LikelihoodScorer(student_of(model_folder)), [missing, RESPONSES[0], empty])
    assert [one.note for one in scores] == ["no response tokens", None, "no response tokens"]
    assert scores[0].values == scores[2].values == {}


def test_truncation_is_counted_and_a_prompt_that_leaves_no_room_is_noted(
    model_folder: Path,
) -> None:
    student = student_of(model_folder)
    prompt = len(student.encoder.encode(QUESTION.messages, "").prompt)
    for room, note, tokens in ((3, None, 3), (0, "no room for the response", None)):
        scorer = LikelihoodScorer(student_of(model_folder, max_length=prompt + room))
        (found,) = score(scorer, RESPONSES[:1])
        assert found.note == note
        assert found.values.get("tokens") == tokens
        assert found.values.get("truncated") == (1.0 if tokens else None)


def test_the_models_context_bounds_the_length(model_folder: Path) -> None:
    assert student_of(model_folder).max_length == 512
    assert student_of(model_folder, max_length=100).max_length == 100


@pytest.mark.parametrize(("positions", "bound"), [(20_000, 20_000), (None, 4096)])
def test_the_maximum_length_is_the_models_context_unless_told(
    positions: int | None, bound: int, model_folder: Path, tmp_path: Path
) -> None:
    folder = shutil.copytree(model_folder, tmp_path / "model")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(
        json.dumps({**config, "max_position_embeddings": positions})
    )
    assert student_of(folder).max_length == bound
    assert student_of(folder, max_length=30_000).max_length == min(positions or 30_000, 30_000)


def test_a_conversation_that_the_template_refuses_is_a_note_on_its_row(
    model_folder: Path, tmp_path: Path
) -> None:
    template = tmp_path / "strict.jinja"
    template.write_text(
        "{% if 'poem' in messages[0].content %}{{ raise_exception('no poems') }}{% endif %}"
        "{{ messages[0].content }}:"
    )
    scorer = LikelihoodScorer(student_of(model_folder, chat_template=str(template)))
    scores = score(scorer, RESPONSES)
    assert [one.note is None for one in scores] == [True, True, False, False]
    assert "no poems" in str(scores[2].note)


def test_rows_that_a_broken_weight_touches_are_noted_and_others_are_not(
    model_folder: Path, tmp_path: Path
) -> None:
    folder = shutil.copytree(model_folder, tmp_path / "broken")
    tokenizer = load_tokenizer(locate(str(folder)))
    model = AutoModelForCausalLM.from_pretrained(folder)
    (dollar,) = tokenizer("$", add_special_tokens=False)["input_ids"]
    model.get_input_embeddings().weight.data[dollar] = torch.nan
    model.save_pretrained(folder)
    touched = replace(RESPONSES[1], text="four$ and more")
    scores = score(LikelihoodScorer(student_of(folder)), [*RESPONSES, touched])
    assert [one.note for one in scores] == [None] * len(RESPONSES) + ["non-finite likelihood"]
    assert scores[-1].values == {}
    intact = score(LikelihoodScorer(student_of(model_folder)), RESPONSES)
    for one, other in zip(scores, intact, strict=False):
        assert one.values["nll"] == pytest.approx(other.values["nll"], rel=1e-5)


def test_a_response_that_does_not_fit_in_memory_is_left_for_another_run(model_folder: Path) -> None:
    student = student_of(model_folder)
    long = replace(RESPONSES[0], text="Two plus two is four. " * 20)

    def refuse(_module: Any, _args: object, options: dict[str, Any]) -> None:
        if options["input_ids"].shape[1] > 100:
            raise torch.OutOfMemoryError("CUDA out of memory.")

    engine: Any = student.likelihood
    engine.model.base_model.register_forward_pre_hook(refuse, with_kwargs=True)
    found = [s for batch in LikelihoodScorer(student).score([*RESPONSES, long]) for s in batch]
    assert {one.key for one in found} == {response.key for response in RESPONSES}
    assert not any(one.note for one in found)


def identity_of(folder: Path, conditioning: Conditioning = "conditional", **options: Any) -> str:
    return LikelihoodScorer(student_of(folder, **options), conditioning).identity().digest


def test_whatever_can_change_a_number_changes_the_identity(
    model_folder: Path, tmp_path: Path
) -> None:
    other = shutil.copytree(model_folder, tmp_path / "other")
    weights = bytearray((other / "model.safetensors").read_bytes())
    weights[-1] ^= 1
    (other / "model.safetensors").write_bytes(weights)
    identities = [
        identity_of(model_folder),
        identity_of(model_folder, "unconditional"),
        identity_of(model_folder, chat_template="chatml"),
        identity_of(model_folder, max_length=100),
        identity_of(model_folder, dtype="bfloat16"),
        identity_of(model_folder, reading={"include_end_of_turn": True}),
        identity_of(other),
    ]
    assert len(set(identities)) == len(identities)


def test_where_and_in_what_batches_it_runs_stays_out_of_the_identity(
    model_folder: Path, tmp_path: Path
) -> None:
    moved = shutil.copytree(model_folder, tmp_path / "moved")
    student = Student(model=str(moved), chat_template="gemma", dtype="float32")
    runtime = Runtime(device="cuda", max_batch_tokens=7, keep_tokens=True)
    assert LikelihoodScorer(StudentModel(student, runtime)).identity().digest == identity_of(
        model_folder
    )


def test_an_identity_is_known_without_loading_a_model_library(model_folder: Path) -> None:
    code = (
        "import sys; from preceptor.scorers.likelihood import *; "
        "from preceptor.config.study import Student; "
        f"print(LikelihoodScorer(StudentModel(Student(model={str(model_folder)!r}, "
        "chat_template='gemma'))).identity().digest); "
        "assert not {'torch', 'transformers'} & set(sys.modules)"
    )
    paths = [path for path in sys.path if path]
    command = [sys.executable, "-c", f"import sys; sys.path[:0] = {paths!r}; {code}"]
    printed = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert printed.strip() == identity_of(model_folder)


def test_the_end_of_the_turn_is_measured_only_when_asked_for(
    model_folder: Path, make_tokenizer: Callable[..., Any]
) -> None:
    (plain,) = score(LikelihoodScorer(student_of(model_folder)), RESPONSES[:1])
    ended_student = student_of(model_folder, reading={"include_end_of_turn": True})
    (ended,) = score(LikelihoodScorer(ended_student), RESPONSES[:1])
    assert ended.values["tokens"] == plain.values["tokens"] + 1  # type: ignore[operator]
    assert ended.values["nll"] > plain.values["nll"]  # type: ignore[operator]
