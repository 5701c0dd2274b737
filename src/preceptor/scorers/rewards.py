"""From a table `[[reward]]` to the scorer of its rewards: the one place that knows every kind of reward."""

import inspect
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

from preceptor.config.rewards import (
    SCORERS,
    JudgeReward,
    ModelReward,
    PluginReward,
    Reward,
    RuleReward,
)
from preceptor.config.runtime import Runtime
from preceptor.errors import StudyError
from preceptor.scorers.base import Scorer


def reward_scorers(reward: Reward | None, runtime: Runtime) -> list[Scorer]:
    """Return the scorer that computes these rewards; none for rewards in the data, or no rewards at all.

    Raises:
        StudyError: nothing says where a judge is served, or a scorer of another package has no such option.
    """
    if reward is None or reward.column is not None:
        return []
    return [_MADE_BY.get(reward.kind, _of_another_package)(reward, runtime)]


def _by_rule(reward: RuleReward, _: Runtime) -> Scorer:
    from preceptor.scorers.verifier.verifier import Verifier

    return Verifier(reward.rule)


def _by_reference(*_: object) -> Scorer:
    from preceptor.scorers.verifier.verifier import Verifier

    return Verifier()


def _by_model(reward: ModelReward, runtime: Runtime) -> Scorer:
    from preceptor.scorers.reward_model import RewardModel

    return RewardModel(reward, runtime)


def _by_judge(reward: JudgeReward, runtime: Runtime) -> Scorer:
    from preceptor.scorers.judge import Judge, LocalJudge

    if reward.engine == "transformers":
        return LocalJudge(reward, runtime)
    return Judge(reward, runtime.endpoint(reward.model), runtime.store)


def _of_another_package(reward: PluginReward, _: Runtime) -> Scorer:
    made = SCORERS[reward.kind]
    signature = inspect.signature(made)
    try:
        signature.bind(**reward.options)
    except TypeError as error:
        raise StudyError(
            f"The reward '{reward.kind}' cannot be made of its table: {error}. It takes "
            f"{', '.join(signature.parameters) or 'no options'}."
        ) from error
    scorer: Scorer = made(**reward.options)
    return scorer


_MADE_BY: Mapping[str, Callable[[Any, Runtime], Scorer]] = MappingProxyType(
    {"rule": _by_rule, "reference": _by_reference, "model": _by_model, "judge": _by_judge}
)
"""How the scorer of each kind is made; every other kind is another package's."""
