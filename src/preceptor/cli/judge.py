"""The judging part of `preceptor evaluate`: from files of answers and a named judge to verdicts.

The one idea: what it would take is said before anything is asked, and what was answered is never asked again.
"""

from collections.abc import Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from preceptor.cli.output import progress_on
from preceptor.errors import DataError, StudyError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from preceptor.benchmarks.answer_files import Answers
    from preceptor.benchmarks.cached_chat import Cost, Told
    from preceptor.benchmarks.judging import AnyJudge
    from preceptor.benchmarks.pairwise import PairJudge
    from preceptor.benchmarks.questions import QuestionSet
    from preceptor.benchmarks.verdicts import Judged
    from preceptor.config.runtime import Endpoint

Given = Mapping[str, Any]


def split_files(files: Sequence[Path], given: Given) -> "tuple[list[Path], list[Answers]]":
    """Return the files that hold judgements, and the answers in the others.

    Raises:
        StudyError: there are answers and no judge, or a judge and nothing to judge.
    """
    from preceptor.benchmarks.answer_files import answers_of, is_answers, listed
    from preceptor.benchmarks.judgement_rows import read_rows

    ready: list[Path] = []
    answers: list[Answers] = []
    for path in files:
        rows = listed(read_rows(path))
        if is_answers(rows):
            answers += answers_of(rows, str(path))
        else:
            ready.append(path)
    named = given["judge"] or given["judge_reward_model"]
    if answers and not named:
        raise StudyError(
            f"'{answers[0].model}' has answers that nobody has judged: name a judge with --judge MODEL, "
            "served at --judge-url URL or run here, or with --judge-reward-model ID."
        )
    if named and not answers:
        raise StudyError(
            "A judge is named, and no file holds answers: expected instruction, output and generator, or "
            "Arena-Hard's model answers. Give such files, or measure the judge with --judge-agreement."
        )
    return ready, answers


def judge_files(answers: "Sequence[Answers]", given: Given) -> "list[Judged]":
    """Return the verdicts on all answers, one entry for each benchmark; none where only estimated.

    Raises:
        PreceptorError: as `judge_answers`.
    """
    from preceptor.benchmarks.judging import judge_answers, judging_cost
    from preceptor.benchmarks.verdict_files import write_answers, write_verdicts
    from preceptor.store.store import Store

    store, found = Store(given["store"]), []
    for questions, own in _sets(answers, given):
        judge = _judge(given, arena=questions.benchmark == "arena_hard")
        orders = _orders(given)
        cost = judging_cost(own, questions, judge, store, orders=orders)
        click.echo(worded(questions.benchmark, judge.name, cost), err=True)
        if given["estimate"]:
            continue
        with told_of(f"judge {questions.benchmark}") as told:
            judged = judge_answers(own, questions, judge, store, orders=orders, told=told)
        found.append(judged)
        if given["write_files"]:
            write_answers(given["write_files"], own)
            if not write_verdicts(given["write_files"], judged):
                click.echo(
                    "Verdicts by choice are not written: Arena-Hard's files hold no such.", err=True
                )
    return found


def _sets(
    answers: "Sequence[Answers]", given: Given
) -> "Iterator[tuple[QuestionSet, list[Answers]]]":
    """Yield each benchmark's questions with the answers to them."""
    from preceptor.benchmarks.questions import alpaca_questions, arena_questions, read_baseline

    baselines = {one.benchmark: one for one in map(read_baseline, given["baseline_answers"])}
    if len(baselines) < len(given["baseline_answers"]):
        raise StudyError("Two --baseline-answers are of one benchmark: expected one for each.")
    for benchmark in dict.fromkeys(one.benchmark for one in answers):
        own = [one for one in answers if one.benchmark == benchmark]
        names = [one.model for one in own]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise DataError(f"'{twice[0]}' has answers in two files: expected each model once.")
        baseline = baselines.get(benchmark)
        if benchmark == "alpaca_eval":
            whole = alpaca_questions(baseline)
        else:
            whole = arena_questions(own, baseline, given["arena_questions"])
        yield whole.drawn(given["limit"]), own


def _judge(given: Given, *, arena: bool) -> "AnyJudge":
    """Return who is to judge: games are written only by a served model."""
    from preceptor.benchmarks.arena_hard.judge import JUDGEMENT_TOKENS, GameJudge
    from preceptor.benchmarks.judge_prompts import GAME_PROMPT, read_prompt
    from preceptor.benchmarks.pairwise import served_model

    endpoint = _endpoint(given)
    by_games = arena and endpoint is not None and not given["choice"]
    if not by_games or given["judge_reward_model"]:
        return pair_judge(given)
    assert endpoint is not None
    prompt = read_prompt(given["judge_prompt"]) if given["judge_prompt"] else GAME_PROMPT
    model = served_model(
        given["judge"], endpoint, max_tokens=JUDGEMENT_TOKENS, log_probabilities=False
    )
    return GameJudge(model, prompt)


def pair_judge(given: Given) -> "PairJudge":
    """Return the judge of pairs that the options name.

    Raises:
        StudyError: two judges are named, or none.
    """
    from preceptor.benchmarks.judge_prompts import CHOICE_PROMPT, read_prompt
    from preceptor.benchmarks.pairwise import (
        ChoiceJudge,
        local_model,
        served_model,
    )
    from preceptor.benchmarks.reward_judge import RewardJudge, require_independent
    from preceptor.config.finetune import ChatJudge
    from preceptor.config.rewards import RewardModelTable
    from preceptor.config.runtime import Runtime
    from preceptor.scorers.reward_model import RewardModel

    if bool(given["judge"]) == bool(given["judge_reward_model"]):
        raise StudyError("Name one judge: --judge MODEL or --judge-reward-model ID.")
    runtime = Runtime(device=given["device"])
    if given["judge_reward_model"]:
        table = RewardModelTable(model=given["judge_reward_model"])
        judge = RewardJudge(RewardModel(table, runtime))
        if given["predicted"]:
            require_independent(judge, _reward_sources(given["predicted"]))
        return judge
    prompt = read_prompt(given["judge_prompt"]) if given["judge_prompt"] else CHOICE_PROMPT
    written, endpoint = given["written_verdict"], _endpoint(given)
    if endpoint is not None:
        model = served_model(given["judge"], endpoint, log_probabilities=not written)
    else:
        model = local_model(ChatJudge(model=given["judge"]), runtime)
    return ChoiceJudge(model, prompt, written=written)


def _reward_sources(path: Path) -> list[str]:
    """Return where the rewards of the rankings in a file came from."""
    from preceptor.benchmarks.answer_files import listed
    from preceptor.benchmarks.judgement_rows import read_rows

    rows = listed(read_rows(path))
    settings: list[Any] = [row.get("settings") for row in rows]
    if not all(isinstance(one, Mapping) for one in settings):
        raise DataError(
            f"'{path}' holds no rankings with settings: expected what `rank --json` wrote."
        )
    return [str(one["reward"]) for one in settings if one.get("reward") is not None]


def _endpoint(given: Given) -> "Endpoint | None":
    from preceptor.config.runtime import Endpoint

    if not given["judge_url"]:
        return None
    if not given["judge"]:
        raise StudyError("A judge's URL is given without a judge: name the model with --judge.")
    price_in, price_out = given["price"] or (None, None)
    return Endpoint(
        url=given["judge_url"],
        api_key_env=given["judge_key_env"],
        concurrency=given["judge_concurrency"],
        price_in=price_in,
        price_out=price_out,
    )


def _orders(given: Given) -> Any:
    from preceptor.benchmarks.comparisons import both_orders

    return both_orders if given["both_orders"] else None


def worded(what: str, judge: str, cost: "Cost") -> str:
    """Return what judging would take, in one line."""
    from preceptor.report.terminal import printable

    text = f"{what} by {printable(judge)}: {cost.requests:,} requests, {cost.stored:,} are stored"
    if cost.prompt_tokens:
        text += f"; about {cost.prompt_tokens:,} prompt tokens and at most {cost.answer_tokens:,} written"
    return text + ("." if cost.price is None else f", at most {cost.price:,.2f} of money.")


@contextmanager
def told_of(step: str) -> "Iterator[Told]":
    """Show the progress of a judge's requests on standard error."""
    from preceptor.pipeline.score import Amount

    with progress_on() as progress:
        begun: list[int] = []

        def told(done: int, of: int) -> None:
            if not begun:
                progress.begin(step, done, Amount(of - done))
            else:
                progress.advance(Amount(done - begun[-1]))
            begun.append(done)

        yield told
        if begun:
            progress.end()
