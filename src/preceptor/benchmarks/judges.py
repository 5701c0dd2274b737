"""The judge that a table names, wherever it is run."""

from collections.abc import Sequence
from typing import Any

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
    if (table is None) != ("rules" in kinds):
        raise StudyError(
            "The benchmark's answers are compared by a judge: give [evaluate.judge]."
            if table is None
            else "The benchmark is checked by rules and takes no judge: leave [evaluate.judge] out."
        )
    if table is None:
        from preceptor.benchmarks.checked import Rules

        return Rules()
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
