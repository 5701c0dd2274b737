"""The judging part of `preceptor evaluate`: from answers and a named judge to verdicts.

What it would take is printed before anything is asked, and what was answered is never asked again.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from preceptor.cli.command import Option
from preceptor.cli.options import field_option, field_options
from preceptor.cli.output import progress_on
from preceptor.errors import DataError, StudyError

if TYPE_CHECKING:
    from preceptor.benchmarks.base import Benchmark, Judged
    from preceptor.benchmarks.cached_chat import Cost, OnProgress
    from preceptor.benchmarks.pairwise import JudgeKind, PairJudge
    from preceptor.benchmarks.questions import Answers

Given = Mapping[str, Any]

_ENDPOINT = (
    "judge_url",
    "judge_key_env",
    "judge_batch_api",
    "judge_batch_discount",
    "judge_allow_http",
    "judge_concurrency",
)


def judge_parameters() -> list[click.Parameter]:
    """Return the options that name a judge and say what it is to do."""
    from preceptor.config.finetune import ChatJudge, RewardJudge
    from preceptor.config.keywords import Keyword, keywords_of
    from preceptor.config.runtime import Endpoint

    section = "Judge"
    endpoint = keywords_of(Endpoint, renamed={"api_key_env": "key_env"}, prefix="judge_")
    shown = {name: endpoint[name] for name in _ENDPOINT}
    own = ("swap_positions", "verdict_by_letter")
    return [
        field_option(Keyword(ChatJudge, "model"), "judge", section, metavar="MODEL"),
        *field_options(section, shown),
        field_option(Keyword(RewardJudge, "model"), "judge_reward_model", section, metavar="MODEL"),
        field_option(Keyword(ChatJudge, "prompt"), "judge_prompt", section, metavar="FILE"),
        field_option(
            Keyword(ChatJudge, "logprobs"),
            "logprobs",
            section,
            help="Read the verdict from log-probabilities, or from the letter that the judge writes.",
        ),
        *field_options(section, {name: Keyword(ChatJudge, name) for name in own}),
        field_option(Keyword(ChatJudge, "temperature"), "judge_temperature", section),
        Option(
            ["--predicted"],
            type=click.Path(path_type=Path),
            metavar="FILE",
            help="JSON of `rank` to check: the reward model that made it is refused as the judge.",
            section=section,
        ),
        Option(
            ["--limit"],
            type=click.IntRange(min=1),
            metavar="N",
            help="Judge N questions, drawn by content.",
            section=section,
        ),
        Option(
            ["--price"],
            type=(float, float),
            metavar="IN OUT",
            help="US dollars for a million tokens of prompts and of answers, for the estimate.",
            section=section,
        ),
        Option(["--estimate"], is_flag=True, help="Only say what judging takes.", section=section),
        Option(
            ["--judge-agreement"],
            is_flag=True,
            help="Measure the judge: FILES are annotations by a trusted one, which it decides anew.",
            section=section,
        ),
    ]


def require_judge(answers: "Sequence[Answers]", given: Given) -> None:
    """Refuse answers without a judge, and a judge without answers.

    Raises:
        StudyError: either is missing.
    """
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


def judge_files(
    answers: "Sequence[Answers]", known: "Mapping[str, Benchmark]", given: Given
) -> "list[Judged]":
    """Return the verdicts on all answers, one entry for each benchmark; none where only estimated.

    Raises:
        PreceptorError: as `Benchmark.judge`.
    """
    from preceptor.benchmarks.files import read_baseline
    from preceptor.store.store import Store

    baselines = {one.benchmark: one for one in map(read_baseline, given["baseline_answers"])}
    if len(baselines) < len(given["baseline_answers"]):
        raise StudyError("Two --baseline-answers are of one benchmark: expected one for each.")
    store, found = Store(given["store"]), []
    for name in dict.fromkeys(one.benchmark for one in answers):
        benchmark = known[name]
        own = _once([one for one in answers if one.benchmark == name])
        questions = benchmark.questions(given["limit"], baseline=baselines.get(name), answers=own)
        judge = judge_given(given, benchmark.judge_kinds)
        cost = benchmark.cost(own, questions, judge, store)
        click.echo(worded(name, judge.name, cost), err=True)
        if given["estimate"]:
            continue
        with shown_as(f"judge {name}") as advance:
            judged = benchmark.judge(own, questions, judge, store, advance)
        found.append(judged)
        if given["write_files"]:
            benchmark.write(given["write_files"], own, judged)
            if not judged.rows:
                click.echo(
                    f"Verdicts by letter are not written: {benchmark.title}'s files hold no such.",
                    err=True,
                )
    return found


def _once(answers: "list[Answers]") -> "list[Answers]":
    names = [one.model for one in answers]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise DataError(f"'{twice[0]}' has answers in two files: expected each model once.")
    return answers


def judge_given(given: Given, kinds: "Sequence[JudgeKind]" = ("letter", "reward")) -> "PairJudge":
    """Return the judge that the options name.

    Raises:
        StudyError: two judges are named, or none, or it made the prediction that it would check.
    """
    from preceptor.benchmarks.judges import judge_of
    from preceptor.config.base import checked
    from preceptor.config.finetune import ChatJudge, RewardJudge
    from preceptor.config.runtime import Runtime

    model, reward, url = given["judge"], given["judge_reward_model"], given["judge_url"]
    if url and not model:
        raise StudyError("A judge's URL is given without a judge: name the model with --judge.")
    if bool(model) == bool(reward):
        raise StudyError("Name one judge: --judge MODEL or --judge-reward-model ID.")
    runtime: dict[str, object] = {"device": given["device"]}
    if url:
        price_in, price_out = given["price"] or (None, None)
        endpoint = {
            "url": url,
            "api_key_env": given["judge_key_env"],
            "allow_http": given["judge_allow_http"],
            "batch_api": given["judge_batch_api"],
            "batch_discount": given["judge_batch_discount"],
            "concurrency": given["judge_concurrency"],
            "price_in": price_in,
            "price_out": price_out,
        }
        runtime["endpoints"] = {model: endpoint}
    prompt = given["judge_prompt"]
    chat = {
        "model": model,
        "engine": "openai" if url else "transformers",
        "prompt": prompt and str(prompt),
        "logprobs": given["logprobs"],
        "verdict_by_letter": given["verdict_by_letter"],
        "swap_positions": given["swap_positions"],
        "temperature": given["judge_temperature"],
    }
    table: ChatJudge | RewardJudge
    if reward:
        table = checked(RewardJudge, {"model": reward}, where="options")
    else:
        table = checked(ChatJudge, chat, where="options")
    judge = judge_of(table, checked(Runtime, runtime, where="options"), kinds)
    if given["predicted"]:
        judge.require_independent(_reward_sources(given["predicted"]))
    return judge


def _reward_sources(path: Path) -> list[str]:
    """Return where the rewards of the rankings in a file came from."""
    from preceptor.benchmarks.rows import listed, read_rows
    from preceptor.ranking.schema import require_version

    rows = listed(read_rows(path))
    for row in rows:
        require_version(row, f"'{path}'")
    settings: list[Any] = [row.get("settings") for row in rows]
    if not all(isinstance(one, Mapping) for one in settings):
        raise DataError(
            f"'{path}' holds no rankings with settings: expected what `rank --json` wrote."
        )
    return [str(one["reward"]) for one in settings if one.get("reward") is not None]


def worded(what: str, judge: str, cost: "Cost") -> str:
    """Return what judging would take, in one line."""
    from preceptor.ranking.table import printable

    return f"{what} by {printable(judge)}: {cost}"


@contextmanager
def shown_as(step: str) -> "Iterator[OnProgress]":
    """Show the progress of a judge's requests on standard error."""
    from preceptor.validation.questions import as_step

    with progress_on() as progress, as_step(step, progress) as advance:
        yield advance
