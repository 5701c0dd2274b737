"""Reasoning traces: where they end, and that whoever judges an answer reads what comes after."""

import json
from pathlib import Path

import numpy as np
import pytest

from preceptor.benchmarks.comparisons import comparisons
from preceptor.benchmarks.questions import Answers, QuestionSet
from preceptor.config.runtime import Runtime
from preceptor.data.gather import gather
from preceptor.data.responses import ResponseSource
from preceptor.engines.reasoning import answered, is_unfinished, without_reasoning
from preceptor.pipeline.load import all_of
from preceptor.pipeline.score import carry_out, step_of
from preceptor.pipeline.work import Silent
from preceptor.scorers.length import LengthScorer
from preceptor.scorers.text_checks import TextChecks
from preceptor.store.store import Store
from preceptor.types import Instruction, Response

CHANNELS = "<|channel|>analysis<|message|>Hm.<|end|><|start|>assistant"
FINAL = "<|channel|>final<|message|>Blue."


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        (f"{CHANNELS}{FINAL}<|return|>", "Blue."),
        (f"<|start|>assistant{CHANNELS}{FINAL}<|end|>", "Blue."),
        (f"{CHANNELS}<|channel|>analysis<|message|>More.<|end|><|start|>assistant{FINAL}", "Blue."),
        (f"{CHANNELS}<|channel|>commentary<|message|>I look.<|end|>{FINAL}", "I look.\n\nBlue."),
        ("analysisWe see.assistantfinalBlue.", "Blue."),
        (f"{CHANNELS}", None),
        ("<think>a</think><think>b</think>Blue.", "Blue."),
        ("[THINK]a[/THINK]\nBlue.", "Blue."),
        ("It thinks.\n</think>\nBlue.", "Blue."),
        ("<think>It thinks", None),
        ("analysis of this shows </think> in text", "analysis of this shows </think> in text"),
        ("Blue.", "Blue."),
        ("", ""),
    ],
)
def test_an_answer_begins_where_the_trace_ends(text: str, answer: str | None):
    assert without_reasoning(text) == (answer or "")
    assert is_unfinished(text) == (answer is None)


@pytest.mark.parametrize(
    "text", [f"Hm.<|end|><|start|>assistant{FINAL}<|return|>", "Hm.</think>Blue."]
)
def test_a_trace_that_the_template_opens_is_cut_too(text: str):
    assert without_reasoning(text, opened=True) == "Blue."


def test_what_is_judged_of_a_response_is_its_answer_and_its_calls():
    plain = Response("a", Instruction.from_text("Colour?"), "Blue.")
    assert answered(plain) is plain
    traced = Response("a", plain.instruction, "<think>Hm.</think>\n\nBlue.")
    assert answered(traced) == plain
    called = Response("a", plain.instruction, "<think>Hm.</think>\n\nBlue.", tool_calls="[1]")
    assert answered(called).text == "Blue.\n\n[1]"


@pytest.mark.parametrize("scorer", [LengthScorer(), TextChecks()], ids=lambda one: one.name)
def test_scores_of_answers_are_the_same_with_and_without_a_trace_and_stored_once(
    tmp_path: Path, scorer: LengthScorer | TextChecks
):
    rows = [
        {"prompt": f"Give {n}.", "completion": f"{before}{n}", "model": name}
        for name, before in (("direct", ""), ("traced", "<think>Perhaps another.</think>\n\n"))
        for n in range(4)
    ]
    rows += [{"prompt": "Give 0.", "completion": "<think>Perhaps", "model": "open"}]
    rows += [{"prompt": "Give 1.", "completion": "<think>Perhaps</think>", "model": "open"}]
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    source = ResponseSource.open([path])
    table = gather(source).table
    assert table.dropped["open"] == {"unfinished reasoning": 1, "only reasoning": 1, "missing": 2}
    runtime = Runtime(store=str(tmp_path / "store"))
    step = step_of(scorer, runtime, source, all_of(table, np.arange(len(table.keys))))
    stored = carry_out(step, Silent())
    for name in scorer.columns:
        direct, traced = (stored[name][table.teacher == place] for place in (0, 1))
        assert direct.tolist() == traced.tolist()
    (partition,) = Store(tmp_path / "store").partitions()
    assert len(partition.keys()) == 4


def test_judges_of_two_answers_read_them_without_their_traces():
    baseline = Answers("b", "base", {"q": "<think>Hm.</think>Red."})
    asked = QuestionSet.of({"q": "Colour?"}, baseline)
    (found,) = comparisons([Answers("b", "m", {"q": "<think>Hm.</think>Blue."})], asked)
    assert (found.answer, found.baseline) == ("Blue.", "Red.")
