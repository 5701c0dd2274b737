"""From a table `[[reward]]` to the scorer of its rewards: the one place that knows every kind of reward."""

import inspect

from preceptor.config.rewards import SCORERS, PluginReward, Reward
from preceptor.config.runtime import Runtime
from preceptor.errors import StudyError
from preceptor.scorers.base import Scorer


def column_of(reward: Reward | None) -> str | None:
    """Return the column of the data that holds the rewards, None where they must be computed."""
    if reward is None or isinstance(reward, PluginReward):
        return None
    return reward.column if reward.kind == "column" else None


def reward_scorers(reward: Reward | None, runtime: Runtime) -> list[Scorer]:
    """Return the scorer that computes these rewards; none for rewards in the data, or no rewards at all.

    Raises:
        StudyError: nothing says where a judge is served, or a scorer of another package has no such option.
    """
    if isinstance(reward, PluginReward):
        return [_of_another_package(reward)]
    if reward is None or reward.kind == "column":
        return []
    if reward.kind == "rule" or reward.kind == "reference":
        from preceptor.scorers.verifier.verifier import Verifier

        return [Verifier(reward.rule) if reward.kind == "rule" else Verifier()]
    if reward.kind == "model":
        from preceptor.scorers.reward_model import RewardModel

        return [RewardModel(reward, runtime)]
    from preceptor.scorers.judge import Judge, LocalJudge

    if reward.engine == "transformers":
        return [LocalJudge(reward, runtime)]
    return [Judge(reward, runtime.endpoint(reward.model))]


def _of_another_package(reward: PluginReward) -> Scorer:
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
