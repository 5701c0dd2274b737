"""How far a ranking is to be trusted: its kind of data, the metric's record, known teachers, `combined`."""

from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
from scipy import stats

from preceptor.agreement.correlation import leave_one_out_prior
from preceptor.api import rank as rank_files
from preceptor.config.base import checked
from preceptor.config.runtime import Runtime
from preceptor.config.study import Study
from preceptor.data.selection import Selection
from preceptor.data.table import ResponseTable, Signs
from preceptor.pipeline.load import LoadedData
from preceptor.pipeline.trust import kind_of, with_trust
from preceptor.ranking.options import RankingOptions
from preceptor.ranking.rank import Measurements, rank
from preceptor.ranking.result import Ranking
from preceptor.ranking.verdict import Claim
from preceptor.studies.own import OwnStudies
from preceptor.studies.prior import combined, gains, held_out, known_teachers, weight
from preceptor.studies.record import comparison_of, line_of
from preceptor.studies.study import shipped, study
from small_study import preceptor, write_rows

NAMES = ("Gemma-2-9b-it", "Llama-3.1-8B-Instruct", "Qwen2.5-72B-Instruct", "unheard-of")


def table(signs: Signs, *, references: float = 0.0) -> ResponseTable:
    """Return a table of 100 responses of which this share has a reference."""
    none = np.zeros(0, np.int32)
    nothing = np.zeros(0, np.dtype((np.void, 16)))
    flags = none.astype(bool)
    keys = np.zeros((100, 16), np.uint8)
    checked = keys.copy()
    checked[: round(100 * references)] = 1
    keys, checked = (one.view(nothing.dtype)[:, 0] for one in (keys, checked))
    return ResponseTable(
        *(("a",), nothing, none, none, none, keys, {}, flags, {}),
        checked_keys=checked if references else None,
        signs=signs,
    )


NOBODY = np.zeros(0, np.intp)
LOADED = LoadedData(cast(Any, None), Selection(table(Signs()), NOBODY, NOBODY, 0), None, "", {}, ())


@pytest.mark.parametrize(
    ("asked", "signs", "references", "kind"),
    [
        ("auto", Signs(100, 0, 0, 50_000), 0, "chat"),
        ("auto", Signs(100, 50, 0, 50_000), 0, "reasoning"),
        ("auto", Signs(100, 0, 0, 50_000), 0.5, "reasoning"),
        ("auto", Signs(100, 0, 0, 50_000), 0.01, "chat"),
        ("auto", Signs(100, 0, 0, 900_000), 0, "chat"),
        ("auto", Signs(100, 0, 0, 49_900), 1, "chat"),
        ("auto", Signs(100, 99, 10, 50_000), 1, "agent"),
        ("agent", Signs(100, 99, 0, 50_000), 1, "agent"),
        ("auto", Signs(), 0, "chat"),
    ],
)
def test_the_kind_follows_tools_traces_and_length_in_this_order(
    asked: str, signs: Signs, references: float, kind: str
):
    found = kind_of(asked, table(signs, references=references))
    assert found.kind == kind and found.why


def test_traces_and_tools_are_counted_when_data_are_read(tmp_path: Path):
    rows = [
        {
            "instruction": f"Question {n}?",
            "output": f"<think>\nhm {n}\n</think>\n\n{n}.",
            "reward": n,
        }
        for n in range(6)
    ]
    for name in ("a", "b"):
        write_rows(tmp_path / f"{name}.jsonl", rows)
    found = rank_of(tmp_path)
    assert found.trust is not None and found.trust.kind == "reasoning"
    assert "100% of the responses show a trace" in found.trust.why
    asked = rank_of(tmp_path, kind="chat").trust
    assert asked is not None and asked.why == "as asked for"


def test_a_tools_turn_before_the_answer_makes_a_conversation_an_agents(tmp_path: Path):
    def turns(n: int) -> list[dict[str, Any]]:
        call = {"type": "function", "function": {"name": "look", "arguments": "{}"}}
        return [
            {"role": "user", "content": f"Question {n}?"},
            {"role": "assistant", "content": "", "tool_calls": [call]},
            {"role": "tool", "content": str(n)},
            {"role": "assistant", "content": f"{n}."},
        ]

    rows = [{"messages": turns(n), "reward": n} for n in range(6)]
    for name in ("a", "b"):
        write_rows(tmp_path / f"{name}.jsonl", rows)
    trust = rank_of(tmp_path).trust
    assert trust is not None and trust.kind == "agent"


def rank_of(folder: Path, **more: Any) -> Ranking:
    found = rank_files(
        str(folder / "*.jsonl"),
        no_student=True,
        reward_column="reward",
        store=str(folder / "store"),
        **more,
    )
    assert isinstance(found, Ranking)
    return found


def ranking(kind: str, *, by: str | None = None, **values: list[float]) -> Ranking:
    """Return a ranking of 60 instructions whose measures vary little around these means."""
    noise = np.random.default_rng(0).normal(scale=0.01, size=60)
    shown = {name: np.array(means)[:, None] + noise for name, means in values.items()}
    teachers = NAMES[: len(next(iter(values.values())))]
    options = RankingOptions(n_resamples=200, kind=kind)
    return rank(Measurements(teachers, 60, shown), student="S", by=by, options=options)


def trusted(one: Ranking, kind: str, store: Path) -> Ranking:
    study_of = checked(
        Study, {"data": {"responses": ["a"]}, "ranking": {"kind": kind}}, where="test"
    )
    found = with_trust(one, (), LOADED, study_of, Runtime(store=str(store)))
    assert Ranking.from_json(found.to_json()) == found
    return found


MEASURED = {"reward": [1.0, 0.9, 0.8], "loss": [1.0, 1.5, 2.0], "token_rank": [9.0, 3.0, 8.0]}


def test_what_orders_by_default_depends_on_the_kind():
    assert [ranking(kind, **MEASURED).by for kind in ("chat", "reasoning", "agent", "auto")] == [
        "car",
        "rsr",
        "car",
        "car",
    ]
    # 3 / 1.5 is the lowest ratio.
    one = ranking("reasoning", **MEASURED)
    assert one.best.teacher == NAMES[1]
    assert one.verdict().claim is Claim.LEADS_SO_FAR
    assert [reason.code for reason in one.verdict().reasons] == ["one-study"]
    unrewarded = ranking("reasoning", loss=MEASURED["loss"], token_rank=MEASURED["token_rank"])
    assert unrewarded.by == "rsr" and unrewarded.verdict().claim is Claim.NO_RECOMMENDATION


def test_every_verdict_carries_one_line_of_the_record(tmp_path: Path):
    shown = trusted(ranking("chat", **MEASURED), "chat", tmp_path)
    assert shown.verdict().record == (
        "CAR in open chat: rho 0.89 [0.68, 0.96] over 19 teachers, one study, in which it was chosen; its "
        "reward alone 0.87; a teacher's record with other students 0.92."
    )
    assert shown.to_dict()["verdict"]["record"] in " ".join(str(shown).split())
    assert (
        "rho 0.59 [0.14, 0.84] over 19 teachers, one study; but -0.05 over 9 teachers"
        in line_of("length", "chat")
    )
    agent = trusted(ranking("agent", **MEASURED), "agent", tmp_path).verdict().record
    assert agent.startswith("CAR on agent data: no published outcome shows what it is worth;")


def test_metrics_with_a_good_record_that_disagree_come_first_and_name_nobody(tmp_path: Path):
    # CAR: 1 / 4 against 1.2 / 7. The reward alone says the other.
    apart = ranking("chat", reward=[1.0, 1.2], loss=[1.0, 2.0])
    verdict = trusted(apart, "chat", tmp_path).verdict()
    assert verdict.text.startswith(
        f"Metrics with a good record disagree on who is first: {NAMES[0]} by car, {NAMES[1]} by reward."
    )
    assert verdict.claim is Claim.LEADS_SO_FAR
    assert "metrics-disagree" in [reason.code for reason in verdict.reasons]
    # On reasoning the reward has no good record, so that nothing stands against the one that orders.
    other = ranking("reasoning", by="car", reward=[1.0, 1.2], loss=[1.0, 2.0])
    assert not trusted(other, "reasoning", tmp_path).verdict().text.startswith("Metrics")


def test_known_teachers_stand_beside_the_metric_without_the_student_itself(tmp_path: Path):
    known = known_teachers(NAMES, "google/gemma-2-2b", "chat", shipped())
    ap = study("xu2024").outcomes
    expected = [
        stats.zscore(list(row.values()))[list(row).index("Gemma-2-9b-it")]
        for student, row in ap.items()
        if student != "Gemma 2-2B"
    ]
    assert known["Gemma-2-9b-it"] == pytest.approx(np.mean(expected))
    assert "unheard-of" not in known and known["Llama-3.1-8B-Instruct"] < 0
    assert known_teachers(NAMES, "s", "agent", shipped()) == {}
    found = trusted(ranking("chat", **MEASURED), "chat", tmp_path)
    assert found.trust is not None and set(found.trust.combined) == set(NAMES[:3])
    assert "Combined with the metric (exploratory):" in str(found)


def test_own_outcomes_make_teachers_known_and_a_damaged_one_costs_nothing(tmp_path: Path):
    path = tmp_path / "mine.csv"
    path.write_text("teacher,student,score\nunheard-of,t,3\nother,t,1\n")
    own = OwnStudies(str(tmp_path))
    own.add("mine", str(path), kind="agent")
    own.add("broken", str(path), kind="agent")
    (tmp_path / "studies" / "broken.json").write_text("{")
    values = {name: [*means, 1.0] for name, means in MEASURED.items()}
    found = trusted(ranking("agent", **values), "agent", tmp_path)
    assert found.trust is not None and found.trust.known == {"unheard-of": pytest.approx(1.0)}
    assert found.trust.combined == ()


def test_the_weight_is_a_precision_and_what_is_unknown_takes_the_mean():
    assert weight(0.5) == pytest.approx(0.25 / 0.75) and weight(-0.5) == -weight(0.5)
    metric, prior = np.array([1.0, 2.0, 3.0]), np.array([2.0, np.nan, 1.0])
    expected = weight(0.6) * stats.zscore(metric) + weight(0.8) * np.array([1.0, 0.0, -1.0])
    assert combined(metric, prior, (0.6, 0.8)) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("name", "column", "means"),
    [
        ("rsr2026", "rsr", (0.847, 0.890, 0.915)),
        ("xu2024", "information (smollm2)", (0.823, 0.842, 0.803)),
    ],
)
def test_both_together_beat_either_in_one_study_of_two(
    name: str, column: str, means: tuple[float, float, float]
):
    comparison = comparison_of(study(name))
    found = held_out(comparison, column)
    assert np.mean([one.rhos for one in found], axis=0) == pytest.approx(means, abs=5e-4)
    over_metric, over_prior = gains(comparison, column, draws=500)
    assert over_metric.value == pytest.approx(means[2] - means[0], abs=1e-3)
    # Whatever the mean says, nothing is told from chance.
    assert over_prior.ends.low < 0 < over_prior.ends.high


def test_what_a_held_out_student_learnt_does_not_enter_its_own_order():
    comparison = comparison_of(study("rsr2026"))
    observed = comparison.observed.copy()
    observed[0] = observed[0][::-1]
    before, after = (
        held_out(replace(comparison, observed=scores), "rsr")[0].rhos
        for scores in (comparison.observed, observed)
    )
    # Both are the same three orders, held against a row and the same row reversed.
    predicted = comparison.column("rsr").predicted[0]
    assert before[0] == pytest.approx(stats.spearmanr(predicted, comparison.observed[0]).statistic)
    assert after[0] == pytest.approx(stats.spearmanr(predicted, observed[0]).statistic)
    prior = leave_one_out_prior(comparison.observed)[0]
    assert after[1] == pytest.approx(stats.spearmanr(prior, observed[0]).statistic)


def test_the_kind_is_an_option_of_the_command(tmp_path: Path):
    for name in ("a", "b"):
        rows = [{"instruction": f"Q {n}?", "output": f"{name} {n}", "reward": n} for n in range(6)]
        write_rows(tmp_path / f"{name}.jsonl", rows)
    words = ("rank", tmp_path / "a.jsonl", tmp_path / "b.jsonl", "--reward-column", "reward")
    shown = preceptor(*words, "--kind", "agent", "--store", tmp_path / "store")
    assert shown.exit_code == 0 and "Data: agent (as asked for)." in " ".join(shown.stdout.split())
