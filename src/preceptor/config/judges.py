"""Judges that anyone can run, by short names: open pairwise judges and small instruction-tuned models.

Facts are from the models' public cards (2026-11). No weights were at hand where this was written: what a
judge is worth on your data is what `preceptor evaluate --judge-agreement` measures. Reward models, which
judge pairs too, stand in `scorers.reward_presets`.
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Literal, NamedTuple

Kind = Literal["pairwise judge", "general judge", "instruct"]


class JudgePreset(NamedTuple):
    """A judge's Hub id and what a user must know before loading it."""

    model: str
    kind: Kind
    billions: float
    licence: str
    note: str = ""


_APACHE = "Apache-2.0"
_LLAMA = "Llama 3.1 community licence"

PRESETS: Mapping[str, JudgePreset] = MappingProxyType(
    {
        "skywork-critic-8b": JudgePreset(
            "Skywork/Skywork-Critic-Llama-3.1-8B",
            "pairwise judge",
            8.0,
            f"Skywork community licence, {_LLAMA}",
            "trained to choose between two answers, by [[A]] and [[B]]",
        ),
        "prometheus-2-7b": JudgePreset(
            "prometheus-eval/prometheus-7b-v2.0",
            "pairwise judge",
            7.0,
            _APACHE,
            "trained on a layout of its own; give it with --judge-prompt",
        ),
        "selene-mini-8b": JudgePreset(
            "AtlaAI/Selene-1-Mini-Llama-3.1-8B",
            "general judge",
            8.0,
            f"{_APACHE}; base model under the {_LLAMA}",
            "scores, classes and pairs (arXiv 2501.17195)",
        ),
        "compass-judger-2-7b": JudgePreset(
            "opencompass/CompassJudger-2-7B-Instruct",
            "general judge",
            7.0,
            _APACHE,
            "on Qwen2.5-7B-Instruct; writes reasons before its verdict",
        ),
        "qwen3-4b": JudgePreset(
            "Qwen/Qwen3-4B-Instruct-2507",
            "instruct",
            4.0,
            _APACHE,
            "does not think aloud, so its first token is its verdict",
        ),
        "qwen2.5-7b": JudgePreset("Qwen/Qwen2.5-7B-Instruct", "instruct", 7.6, _APACHE),
        "llama-3.1-8b": JudgePreset("meta-llama/Llama-3.1-8B-Instruct", "instruct", 8.0, _LLAMA),
        "smollm2-1.7b": JudgePreset(
            "HuggingFaceTB/SmolLM2-1.7B-Instruct",
            "instruct",
            1.7,
            _APACHE,
            "to try things out; too small to be trusted",
        ),
    }
)
"""Presets by the name that `--judge` takes; any other name is a Hub id, a folder, or a name as served."""
