"""Whole runs over a tiny real model: numbers equal those formed by hand, and nothing is paid for twice."""

import json
import math
import random
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from preceptor import api
from preceptor.pipeline.pipeline import Pipeline
from preceptor.pipeline.work import Amount
from preceptor.ranking.result import Ranking
from small_study import (
    by_teacher,
    partition_sizes,
    ranked,
    rows_of,
    shards,
    write_rows,
    write_teachers,
)

pytestmark = pytest.mark.usefixtures("private_cache", "one_thread")


class Sums(NamedTuple):
    """Negative log-likelihoods of one response in nats, summed, and its tokens."""

    after_instruction: float
    alone: float
    tokens: int


class Told:
    """A progress that keeps what it is told."""

    def __init__(self) -> None:
        self.steps: list[tuple[str, int, int]] = []
        self.done = 0

    def begin(self, step: str, stored: int, missing: Amount) -> None:
        self.steps.append((step, stored, missing.responses))

    def advance(self, done: Amount) -> None:
        self.done += done.responses

    def end(self) -> None:
        pass


def sums_by_hand(folder: Path, row: dict[str, Any], *, ending: Sequence[int] = ()) -> Sums:
    """Sum -log p over the response's tokens, told from the prompt's by where they stand in the text."""
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForCausalLM.from_pretrained(folder, attn_implementation="eager").eval()
    prompt = row["instruction"] + "\n\n"  # the template `plain`
    text = prompt + row["output"]
    encoded = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
    within = [start < len(prompt) for start, _ in encoded["offset_mapping"]]
    before = [id_ for id_, inside in zip(encoded["input_ids"], within, strict=True) if inside]
    after = [id_ for id_, inside in zip(encoded["input_ids"], within, strict=True) if not inside]
    after += ending

    def nll(context: list[int]) -> float:
        ids = [tokenizer.bos_token_id, *context]
        with torch.no_grad():
            logits = model(torch.tensor([ids + after])).logits[0, len(ids) - 1 : -1]
        chosen = logits.double().log_softmax(-1).gather(1, torch.tensor(after)[:, None])
        return float(-chosen.sum())

    return Sums(nll(before), nll([]), len(after))


def mean(values: Sequence[float]) -> float:
    return math.fsum(values) / len(values)


@pytest.fixture(scope="module")
def by_hand(model_folder: Path) -> dict[str, list[Sums]]:
    names = ("alpha", "beta")
    return {
        name: [sums_by_hand(model_folder, row) for row in rows_of(place)]
        for place, name in enumerate(names)
    }


@pytest.fixture
def files(tmp_path: Path) -> list[Path]:
    return write_teachers(tmp_path / "data")


@pytest.fixture
def store(tmp_path: Path) -> Path:
    return tmp_path / "store"


def options(store: Path, folder: Path) -> tuple[object, ...]:
    return ("--student", folder, "--chat-template", "plain", "--store", store, "--device", "cpu")


def test_car_is_mean_reward_over_one_plus_beta_times_mean_loss(
    files: list[Path], store: Path, model_folder: Path, by_hand: dict[str, list[Sums]]
):
    # Xu et al. 2025, eq. 3, with the token mean of each response averaged over responses.
    (ranking,) = ranked(*files, *options(store, model_folder), "--reward-column", "reward")
    found = by_teacher(ranking)
    for place, (name, sums) in enumerate(by_hand.items()):
        reward = mean([row["reward"] for row in rows_of(place)])
        loss = mean([s.after_instruction / s.tokens for s in sums])
        assert found[name]["reward"] == pytest.approx(reward, abs=1e-12)
        assert found[name]["loss"] == pytest.approx(loss, abs=1e-5)
        assert found[name]["car"] == pytest.approx(reward / (1 + 3 * loss), abs=1e-6)
        perplexity = mean([math.exp(s.after_instruction / s.tokens) for s in sums])
        assert found[name]["perplexity"] == pytest.approx(perplexity, rel=1e-5)
    best = max(found, key=lambda name: found[name]["car"])
    assert ranking["teachers"][0]["teacher"] == best


def test_ifd_pays_for_the_pass_without_instruction_only_when_asked_for(
    files: list[Path], store: Path, model_folder: Path, by_hand: dict[str, list[Sums]]
):
    given = (*files, *options(store, model_folder))
    ranked(*given)
    signs = {"text checks": 12, "first words": 12}
    assert partition_sizes(store) == {"length": 12, "conditional": 12, **signs}
    (ranking,) = ranked(*given, "--metric", "ifd")
    assert partition_sizes(store) == {
        "length": 12, "conditional": 12, "unconditional": 12, **signs,
    }  # fmt: skip
    for name, sums in by_hand.items():
        # Li et al. 2024: the perplexity with the instruction over that without it.
        ratios = [math.exp((s.after_instruction - s.alone) / s.tokens) for s in sums]
        assert by_teacher(ranking)[name]["ifd"] == pytest.approx(mean(ratios), rel=1e-5)


@pytest.mark.parametrize(
    ("reading", "value"),
    [
        ({"reduction": "sequence-sum"}, lambda sums: mean([s.after_instruction for s in sums])),
        (
            {"reduction": "corpus-token-mean"},
            lambda sums: sum(s.after_instruction for s in sums) / sum(s.tokens for s in sums),
        ),
        (
            {"conditioning": "unconditional"},
            lambda sums: mean([s.alone / s.tokens for s in sums]),
        ),
        (
            {"conditioning": "unconditional", "reduction": "sequence-sum"},
            lambda sums: mean([s.alone for s in sums]),
        ),
        (
            {"conditioning": "unconditional", "reduction": "corpus-token-mean"},
            lambda sums: sum(s.alone for s in sums) / sum(s.tokens for s in sums),
        ),
    ],
)
def test_every_reading_of_the_loss_equals_its_definition(
    files: list[Path],
    store: Path,
    model_folder: Path,
    by_hand: dict[str, list[Sums]],
    reading: dict[str, str],
    value: Any,
):
    words = [word for name, chosen in reading.items() for word in (f"--{name}", chosen)]
    given = (*files, *options(store, model_folder), "--reward-column", "reward", *words)
    (ranking,) = ranked(*given)
    for name, sums in by_hand.items():
        record = by_teacher(ranking)[name]
        assert record["loss"] == pytest.approx(value(sums), rel=1e-5)
        assert record["car"] == pytest.approx(record["reward"] / (1 + 3 * record["loss"]))
        # arXiv 2502.04194 and 2601.14249 know one loss: per token, after the instruction.
        plain = mean([s.after_instruction / s.tokens for s in sums])
        assert record["likelihood"] == pytest.approx(-plain, rel=1e-5)
        assert record["rsr"] == pytest.approx(record["token_rank"] / plain, rel=1e-5)
    told = ranking["settings"]["reading"]
    assert {name: told[name] for name in reading} == reading


def test_the_end_of_turn_counts_as_a_token_where_it_is_included(
    files: list[Path], store: Path, model_folder: Path
):
    given = (*files, *options(store, model_folder), "--include-end-of-turn")
    (ranking,) = ranked(*given)
    ending = [AutoTokenizer.from_pretrained(model_folder).eos_token_id]
    sums = [sums_by_hand(model_folder, row, ending=ending) for row in rows_of(0)]
    expected = mean([s.after_instruction / s.tokens for s in sums])
    assert by_teacher(ranking)["alpha"]["loss"] == pytest.approx(expected, rel=1e-5)


def test_a_larger_limit_only_adds_instructions_whatever_the_order_of_files(tmp_path: Path):
    files = write_teachers(tmp_path, instructions=20)

    def taken(limit: int, seed: int, given: Sequence[Path]) -> set[bytes]:
        study, runtime = api.study_of(given, no_student=True, limit=limit, seed=seed)
        choice = Pipeline(study, runtime).load()[0].selection
        return {bytes(one) for one in choice.table.instructions[choice.taken].tolist()}

    four = taken(4, 0, files)
    assert len(four) == 4
    assert four < taken(8, 0, files)
    assert four == taken(4, 0, files[::-1])
    lines = files[0].read_text().splitlines()
    random.Random(1).shuffle(lines)
    files[0].write_text("\n".join(lines))
    assert four == taken(4, 0, files)
    assert four != taken(4, 1, files)


def ranking_of(files: Sequence[Path], store: Path, folder: Path, told: Told) -> Ranking:
    return api.rank(
        files,
        student=str(folder),
        reward_column="reward",
        store=str(store),
        device="cpu",
        progress=told,
    )


def test_a_second_run_computes_nothing_and_says_the_same(
    files: list[Path], store: Path, model_folder: Path
):
    first, second = Told(), Told()
    ranking = ranking_of(files, store, model_folder, first)
    before = shards(store)
    assert ranking_of(files, store, model_folder, second).to_dict() == ranking.to_dict()
    assert first.steps == [("length", 0, 12), ("likelihood", 0, 12)]
    assert first.done == 24
    assert second.steps == [("length", 12, 0), ("likelihood", 12, 0)]
    assert second.done == 0
    assert shards(store) == before


def test_a_second_run_imports_no_model_library(files: list[Path], store: Path, model_folder: Path):
    ranking_of(files, store, model_folder, Told())
    words = ["rank", *files, "--student", model_folder, "--reward-column", "reward"]
    words += ["--store", store, "--json", "-"]
    script = (
        "import sys\nfrom preceptor.cli.app import cli\n"
        f"cli({[str(word) for word in words]!r}, standalone_mode=False)\n"
        "assert 'preceptor.pipeline.pipeline' in sys.modules\n"
        "sys.exit(','.join({'torch', 'transformers'} & set(sys.modules)) or 0)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)[0]["teachers"]


def test_only_what_is_new_is_paid_for(tmp_path: Path, store: Path, model_folder: Path):
    both = write_teachers(tmp_path / "first")
    ranking_of(both, store, model_folder, Told())

    renamed = [both[0].rename(tmp_path / "omega.jsonl"), both[1].rename(tmp_path / "psi.jsonl")]
    told = Told()
    labels = ranking_of(renamed, store, model_folder, told).teachers
    assert {result.teacher for result in labels} == {"omega", "psi"}
    assert told.steps[1] == ("likelihood", 12, 0)

    third = write_rows(tmp_path / "third.jsonl", rows_of(2))
    told = Told()
    ranking_of([*renamed, third], store, model_folder, told)
    assert told.steps[1] == ("likelihood", 12, 6)

    more = [{**row, "instruction": row["instruction"] + " And why?"} for row in rows_of(3)]
    for file in (*renamed, third):
        with file.open("a") as lines:
            lines.writelines(json.dumps(row) + "\n" for row in more)
    told = Told()
    ranking_of([*renamed, third], store, model_folder, told)
    # The three teachers answer the new instructions with the same texts.
    assert told.steps[1] == ("likelihood", 18, 6)


def test_samples_of_one_instruction_are_averaged_before_instructions_are(
    tmp_path: Path, store: Path, model_folder: Path
):
    first, second = rows_of(0), rows_of(4)
    for row in second:
        row["reward"] += 1
    alpha = write_rows(tmp_path / "alpha.jsonl", [*first, *second])
    beta = write_rows(tmp_path / "beta.jsonl", [*rows_of(1), *rows_of(5)])
    told = Told()
    ranking = ranking_of([alpha, beta], store, model_folder, told)
    (result,) = (result for result in ranking.teachers if result.teacher == "alpha")
    assert told.steps[1] == ("likelihood", 0, 24)
    assert result.n == 6
    expected = mean([row["reward"] for row in (*first, *second)])
    assert result.estimates["reward"].value == pytest.approx(expected)


def test_two_students_share_lengths_and_get_a_ranking_each(
    tmp_path: Path,
    files: list[Path],
    store: Path,
    model_folder: Path,
    make_model: Any,
    tokenizer: Any,
):
    other = tmp_path / "tiny-qwen"
    make_model("qwen3").save_pretrained(other)
    tokenizer.save_pretrained(other)
    told = Told()
    rankings = api.rank_all(
        files,
        students=[str(model_folder), str(other)],
        reward_column="reward",
        store=str(store),
        device="cpu",
        progress=told,
    )
    assert [ranking.student for ranking in rankings] == ["tiny-llama", "tiny-qwen"]
    assert told.steps == [
        ("length", 0, 12),
        ("likelihood", 0, 12),
        ("length", 12, 0),
        ("likelihood", 0, 12),
    ]
    losses = [ranking.teachers[0].estimates["loss"].value for ranking in rankings]
    assert losses[0] != losses[1]
