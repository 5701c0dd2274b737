"""A metric: reward for each token of a response."""

from dataclasses import dataclass
from typing import ClassVar


@dataclass(frozen=True)
class RewardPerToken:
    """Mean reward over mean length."""

    needs: ClassVar = ("reward", "length")
    higher_is_better: ClassVar = True
    kind: str = "reward_per_token"
    scale: float = 1.0

    def __call__(self, reward, length):
        return self.scale * reward / length
