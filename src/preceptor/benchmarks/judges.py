"""The judge that a table names, wherever it is run."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from preceptor.benchmarks.judge_prompts import CHOICE_PROMPT, GAME_PROMPT, read_prompt
from preceptor.benchmarks.pairwise import (
    ChoiceJudge,
    JudgeKind,
    PairJudge,
    local_model,
    served_model,
)
from preceptor.config import finetune as tables
from preceptor.config.runtime import Runtime
from preceptor.errors import StudyError

if TYPE_CHECKING:
    from preceptor.benchmarks.safety.judge import RefusalJudge


def judge_of(
    table: tables.ChatJudge | tables.RewardJudge | None,
    runtime: Runtime,
    kinds: Sequence[JudgeKind],
) -> PairJudge:
    """Return who judges; nothing is asked or loaded.

    Args:
        table: which model, and how it is asked; None where rules check the answers.
        runtime: where it is run or served.
        kinds: what the benchmark takes. Only served models write judgements.

    Raises:
        StudyError: nothing says where the judge is served, or the benchmark needs one and has none, or the
            other way round.
        ModelError: no judge has this name.
    """
    if table is None:
        from preceptor.benchmarks.checked import Rules

        if "rules" not in kinds:
            raise StudyError(
                "The benchmark's answers are compared by a judge: give [evaluate.judge]."
            )
        return Rules()
    if tuple(kinds) == ("rules",):
        raise StudyError(
            "The benchmark is checked by rules and takes no judge: leave [evaluate.judge] out."
        )
    if "refusal" in kinds:
        return _of_refusals(table, runtime)
    if table.kind == "reward":
        from preceptor.benchmarks.reward_judge import RewardJudge
        from preceptor.scorers.reward_model import RewardModel

        return RewardJudge(RewardModel(table, runtime))
    own = read_prompt(table.prompt) if table.prompt else None
    if table.engine == "transformers":
        return ChoiceJudge(local_model(table, runtime), own or CHOICE_PROMPT)
    endpoint, logprobs = runtime.endpoint(table.model), table.logprobs
    asked: dict[str, Any] = {"temperature": table.temperature, "request": table.request}
    if "written" in kinds and not table.verdict_by_letter:
        from preceptor.benchmarks.written_judge import JUDGEMENT_TOKENS, WrittenJudge

        model = served_model(
            table.model, endpoint, max_tokens=JUDGEMENT_TOKENS, log_probabilities=False, **asked
        )
        return WrittenJudge(model, own or GAME_PROMPT)
    model = served_model(table.model, endpoint, log_probabilities=logprobs, **asked)
    return ChoiceJudge(
        model,
        own or CHOICE_PROMPT,
        written=not logprobs,
        swap_positions=table.swap_positions,
    )


def _of_refusals(table: tables.ChatJudge | tables.RewardJudge, runtime: Runtime) -> RefusalJudge:
    from preceptor.benchmarks.safety.judge import NEEDED, REFUSAL_PROMPT, VERDICT_TOKENS
    from preceptor.benchmarks.safety.judge import RefusalJudge as Refusals

    if table.kind == "reward":
        raise StudyError(
            "A reward model does not say whether an answer refuses: name a judge of kind = 'chat', or leave "
            "it out, and rules decide."
        )
    prompt = read_prompt(table.prompt, NEEDED) if table.prompt else REFUSAL_PROMPT
    if table.engine == "transformers":
        return Refusals(local_model(table, runtime), prompt)
    model = served_model(
        table.model,
        runtime.endpoint(table.model),
        max_tokens=VERDICT_TOKENS,
        log_probabilities=False,
        temperature=table.temperature,
        request=table.request,
    )
    return Refusals(model, prompt)
