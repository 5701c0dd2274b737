"""The options of the command line, grouped by what they are about.

Their texts are the help; their names are scripted by others and stay.
"""

from collections.abc import Callable
from pathlib import Path

import click

Command = Callable[..., None]


def group(*options: Callable[[Command], Command]) -> Callable[[Command], Command]:
    """Return a decorator that adds these options to a command, in this order."""

    def decorate(command: Command) -> Command:
        for option in reversed(options):
            command = option(command)
        return command

    return decorate


ranking_options = group(
    click.argument("responses", nargs=-1, required=True),
    click.option(
        "--student",
        "students",
        multiple=True,
        help="Base model: Hub id, folder or GGUF. Repeatable.",
    ),
    click.option(
        "--reward-column", metavar="NAME", help="Numeric column of the data with the reward."
    ),
    click.option(
        "--reward-model",
        "reward_models",
        multiple=True,
        metavar="ID",
        help="Preset (see `list reward-models`), Hub id or folder. Repeatable: a ranking for each.",
    ),
    click.option(
        "--rule",
        metavar="JSON",
        help="Check every response by one rule (docs/verifiers.md) and take 0 to 1 as reward.",
    ),
    click.option(
        "--judge",
        metavar="MODEL",
        help="Ask this chat model for a score of 1 to 10: served at --judge-url, or else run here.",
    ),
    click.option("--rubric", metavar="FILE", help="Text of the judge's rubric."),
    click.option(
        "--trust-remote-code", is_flag=True, help="Let a reward model's repository run its code."
    ),
    click.option(
        "--metric",
        "metrics",
        multiple=True,
        metavar="NAME",
        help="Name of a metric (docs/metrics.md). Repeatable. Default: all that need no further pass.",
    ),
    click.option(
        "--by",
        metavar="NAME",
        help="The metric that orders. Default: car, else reward, else information.",
    ),
    click.option(
        "--beta", type=float, default=3.0, show_default=True, help="CAR's beta (paper, eq. 3)."
    ),
    click.option(
        "--limit", type=int, metavar="N", help="Compare on N instructions, drawn by the seed."
    ),
    click.option(
        "--max-length",
        type=int,
        default=4096,
        show_default=True,
        help="Tokens of prompt and response; longer responses are cut and counted.",
    ),
    click.option(
        "--chat-template",
        default="auto",
        show_default=True,
        help="auto, own, gemma, llama3, chatml, phi3, plain, or a .jinja file.",
    ),
    click.option(
        "--dtype",
        type=click.Choice(["auto", "float32", "bfloat16", "float16"]),
        default="auto",
        show_default=True,
        help="auto: bfloat16 on an accelerator, float32 on a CPU.",
    ),
    click.option("--revision", help="Branch, tag or commit of a Hub model."),
    click.option(
        "--seed", type=int, default=0, show_default=True, help="Draws instructions and bootstrap."
    ),
    click.option(
        "--n-resamples", type=int, default=2000, show_default=True, help="Bootstrap resamples."
    ),
    click.option(
        "--reward-transform",
        type=click.Choice(["raw", "sigmoid", "shift-min", "minmax"]),
        default="raw",
        show_default=True,
        help="Applied to rewards before CAR.",
    ),
    click.option(
        "--min-coverage",
        type=float,
        default=0.5,
        show_default=True,
        help="Least share of instructions that all teachers must have answered.",
    ),
    click.option(
        "--conditioning",
        type=click.Choice(["conditional", "unconditional"]),
        default="conditional",
        show_default=True,
        help="Whether the loss sees the instruction.",
    ),
    click.option(
        "--reduction",
        type=click.Choice(["token-mean", "sequence-sum", "corpus-token-mean"]),
        default="token-mean",
        show_default=True,
        help="How token losses become a teacher's loss.",
    ),
    click.option(
        "--reference-model",
        metavar="ID",
        help="Model of ppl_gpt2 and ifd_gpt2. Default: openai-community/gpt2.",
    ),
    click.option("--include-end-of-turn", is_flag=True, help="Count the token that ends the turn."),
)

column_options = group(
    click.option(
        "--layout",
        default="auto",
        show_default=True,
        help="Layout of the rows, where it is not recognised.",
    ),
    click.option(
        "--instruction-column", metavar="NAME", help="Column with the instruction or conversation."
    ),
    click.option("--response-column", metavar="NAME", help="Column with the response."),
    click.option("--teacher-column", metavar="NAME", help="Column that names the teacher."),
    click.option(
        "--teacher-columns", metavar="A,B,C", help="Columns that each hold one teacher's responses."
    ),
    click.option("--reference-column", metavar="NAME", help="Column with the checkable answer."),
    click.option(
        "--split",
        default="train",
        show_default=True,
        help="Split of a Hub data set or saved folder.",
    ),
)

runtime_options = group(
    click.option(
        "--store",
        default=".preceptor",
        show_default=True,
        metavar="DIR",
        help="Where scores are kept: folder or fsspec URL.",
    ),
    click.option(
        "--device", default="auto", show_default=True, help="auto, cpu, cuda, cuda:1, mps."
    ),
    click.option(
        "--max-batch-tokens",
        type=int,
        metavar="N",
        help="Tokens in one batch; halved when memory runs out.",
    ),
    click.option(
        "--keep-tokens", is_flag=True, help="Also store each response token's loss and rank."
    ),
)

endpoint_options = group(
    click.option(
        "--judge-url",
        metavar="URL",
        help="OpenAI-compatible endpoint of the judge, e.g. http://127.0.0.1:8080/v1.",
    ),
    click.option(
        "--judge-key-env",
        metavar="NAME",
        help="Environment variable with the endpoint's key. Default: none, OPENAI_API_KEY for OpenAI.",
    ),
    click.option(
        "--judge-concurrency",
        type=int,
        default=8,
        show_default=True,
        help="Requests to the endpoint at a time.",
    ),
)

pair_judge_options = group(
    click.option(
        "--judge",
        metavar="MODEL",
        help="Judge the answers among FILES with this model: served at --judge-url, or else run here.",
    ),
    click.option(
        "--judge-reward-model",
        metavar="ID",
        help="Judge by a reward model instead: P(A over B) = sigmoid(rA - rB).",
    ),
    click.option(
        "--judge-prompt",
        type=click.Path(path_type=Path),
        metavar="FILE",
        help="Prompt with {instruction}, {output_1} and {output_2}, e.g. the benchmark's own.",
    ),
    click.option(
        "--no-logprobs",
        is_flag=True,
        help="Take the letter that the judge writes; for endpoints without log-probabilities.",
    ),
    click.option(
        "--swap-positions",
        is_flag=True,
        help="Show each pair in both orders; a judge run here is always asked so.",
    ),
    click.option(
        "--verdict-by-letter",
        is_flag=True,
        help="Judge Arena-Hard by a choice of letters, without written judgements.",
    ),
    click.option(
        "--baseline-answers",
        multiple=True,
        type=click.Path(path_type=Path),
        metavar="FILE",
        help="Answers to be beaten, or annotations that hold them. Default: each benchmark's own, fetched.",
    ),
    click.option(
        "--arena-questions",
        type=click.Path(path_type=Path),
        metavar="FILE",
        help="Arena-Hard's question.jsonl. Default: from the answers' files, or fetched.",
    ),
    click.option(
        "--predicted",
        type=click.Path(path_type=Path),
        metavar="FILE",
        help="JSON of `rank` that is to be checked: its own reward model is refused as the judge.",
    ),
    click.option("--limit", type=int, metavar="N", help="Judge N questions, drawn by content."),
    click.option(
        "--price",
        type=(float, float),
        metavar="IN OUT",
        help="Money for a million tokens of prompts and of answers, for the estimate.",
    ),
    click.option("--estimate", is_flag=True, help="Only say what judging would take."),
    click.option(
        "--judge-agreement",
        is_flag=True,
        help="Measure the judge: FILES are annotations by a trusted one, which it decides anew.",
    ),
    click.option(
        "--write-files",
        type=click.Path(path_type=Path),
        metavar="FOLDER",
        help="Write answers and verdicts as the benchmarks' own tools do.",
    ),
)

output_options = group(
    click.option(
        "--json",
        "json_path",
        metavar="FILE",
        help="Write the rankings as JSON; - for standard output.",
    ),
    click.option("--csv", "csv_path", metavar="FILE", help="Write the rankings as CSV."),
    click.option(
        "--html",
        "html_path",
        metavar="FILE",
        help="Write a report with charts and examples as one HTML page.",
    ),
)

store_option = click.option(
    "--store", default=".preceptor", show_default=True, metavar="DIR", help="The store."
)
