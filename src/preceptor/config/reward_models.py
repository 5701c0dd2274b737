"""Reward models by short names: the paper's three, and small present ones that one GPU or a CPU can run.

Facts are from the models' public cards (2026-11); `context` is the config's number of positions. The `scale`
`logit` is unbounded, often negative, and only its differences mean something. No weights were at hand where
this was written.
"""

import os
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple, Protocol

from preceptor.errors import ModelError, nearest


class RewardPreset(NamedTuple):
    """A reward model's Hub id and what a user must know before loading it."""

    model: str
    billions: float
    licence: str
    context: int
    scale: str
    note: str = ""


_LOGIT = "logit"
_LLAMA = "Llama community licence"

PRESETS: Mapping[str, RewardPreset] = MappingProxyType(
    {
        "armorm": RewardPreset(
            "RLHFlow/ArmoRM-Llama3-8B-v0.1",
            7.5,
            "Llama 3 community licence",
            8192,
            "about 0 to 0.3",
            "RM1 of the paper's table 4; needs --trust-remote-code",
        ),
        "skywork-8b": RewardPreset(
            "Skywork/Skywork-Reward-Llama-3.1-8B",
            8.0,
            "Skywork community licence, Llama 3.1",
            131072,
            _LOGIT,
            "RM2 of the paper's table 4",
        ),
        "skywork-27b": RewardPreset(
            "Skywork/Skywork-Reward-Gemma-2-27B",
            27.0,
            "Skywork community licence, Gemma terms",
            8192,
            _LOGIT,
            "RM3 of the paper's table 4, used for CAR; favours Gemma's text",
        ),
        "skywork-8b-v0.2": RewardPreset(
            "Skywork/Skywork-Reward-Llama-3.1-8B-v0.2",
            8.0,
            "Skywork community licence, Llama 3.1",
            131072,
            _LOGIT,
        ),
        "skywork-27b-v0.2": RewardPreset(
            "Skywork/Skywork-Reward-Gemma-2-27B-v0.2",
            27.0,
            "Skywork community licence, Gemma terms",
            8192,
            _LOGIT,
            "favours Gemma's text",
        ),
        "skywork-v2-0.6b": RewardPreset(
            "Skywork/Skywork-Reward-V2-Qwen3-0.6B",
            0.6,
            "Apache-2.0",
            40960,
            _LOGIT,
            "the smallest of its series; its card puts it near the 27B of 2024",
        ),
        "skywork-v2-1.7b": RewardPreset(
            "Skywork/Skywork-Reward-V2-Qwen3-1.7B", 1.7, "Apache-2.0", 40960, _LOGIT
        ),
        "skywork-v2-4b": RewardPreset(
            "Skywork/Skywork-Reward-V2-Qwen3-4B", 4.0, "Apache-2.0", 40960, _LOGIT
        ),
        "skywork-v2-8b": RewardPreset(
            "Skywork/Skywork-Reward-V2-Qwen3-8B", 8.0, "Apache-2.0", 40960, _LOGIT
        ),
        "skywork-v2-llama-1b": RewardPreset(
            "Skywork/Skywork-Reward-V2-Llama-3.2-1B", 1.2, _LLAMA, 131072, _LOGIT
        ),
        "skywork-v2-llama-3b": RewardPreset(
            "Skywork/Skywork-Reward-V2-Llama-3.2-3B", 3.2, _LLAMA, 131072, _LOGIT
        ),
        "skywork-v2-llama-8b": RewardPreset(
            "Skywork/Skywork-Reward-V2-Llama-3.1-8B",
            8.0,
            _LLAMA,
            131072,
            _LOGIT,
            "its card's best of the series but for an experimental one",
        ),
        "fsfairx-8b": RewardPreset(
            "sfairXC/FsfairX-LLaMA3-RM-v0.1", 8.0, "see its card", 8192, _LOGIT
        ),
    }
)
"""Presets by the name that `--reward-model` takes; any other name is a Hub id or a folder."""


class Preset(Protocol):
    """What a short name stands for."""

    @property
    def model(self) -> str:
        """Its Hub id."""


def repository_of(
    name: str,
    presets: Mapping[str, Preset] = PRESETS,
    *,
    kind: str = "reward model",
    otherwise: str = "",
) -> str:
    """Return the Hub id of a preset, or the name as it is where it is a Hub id or a path.

    Args:
        name: what was given.
        presets: by their short names.
        kind: what they are, in words.
        otherwise: what else a name may be, for the message.

    Raises:
        ModelError: it is none of them.
    """
    if name in presets:
        return presets[name].model
    if "/" not in name and not os.path.exists(Path(name).expanduser()):
        raise ModelError(
            f"No {kind} is called '{name}': expected a preset ({', '.join(presets)}), a folder, or a Hub id "
            f"of the form owner/name{otherwise}.{nearest(name, presets)}"
        )
    return name
