"""Where rewards come from: the tables `[[reward]]` of a study file, one class for each kind."""

import json
from typing import Annotated, Any, Literal

from pydantic import Field, field_validator, model_validator

from preceptor.config.base import ModelTable, Runtime, Table, usable
from preceptor.config.reward_models import PRESETS
from preceptor.scorers.judge import JudgeOptions, LocalModel
from preceptor.scorers.judge_prompt import DEFAULT_RUBRIC
from preceptor.scorers.reward_model import RewardModelOptions
from preceptor.scorers.verifier.verifier import Verifier


class ColumnReward(Table):
    """Rewards that stand in the data."""

    kind: Literal["column"] = "column"
    column: str = Field(description="The numeric column that holds the reward.")

    @property
    def name(self) -> str:
        """The label in tables."""
        return f"column '{self.column}'"


class ReferenceReward(Table):
    """Rewards from checking each response against the reference answer the data carry."""

    kind: Literal["reference"] = "reference"

    @property
    def name(self) -> str:
        """The label in tables."""
        return "checked against the reference answers"


class ModelReward(ModelTable):
    """Rewards from a reward model, a sequence classifier with one label."""

    kind: Literal["model"] = "model"
    model: str = Field(description="Preset, Hub id or local folder of the reward model.")
    remote_code: bool = Field(
        False, description="Let code from the model's repository run; read it first."
    )

    @field_validator("model")
    @classmethod
    def _without_presets(cls, value: str) -> str:
        return PRESETS[value].model if value in PRESETS else value

    def options(self, runtime: Runtime) -> RewardModelOptions:
        """Return what the reward scorer must know, with `auto` resolved."""
        return RewardModelOptions(
            model=self.model,
            revision=self.revision,
            template=self.template,
            max_length=self.max_length,
            dtype=self.resolved_dtype(runtime),
            remote_code=self.remote_code,
        )


class RuleReward(Table):
    """Rewards from checking every response against one rule; see docs/verifiers.md."""

    kind: Literal["rule"] = "rule"
    rule: dict[str, Any] = Field(
        description="A check as a reference holds it: kind and its fields."
    )

    @model_validator(mode="after")
    def _checkable(self) -> "RuleReward":
        usable(lambda: Verifier(self.rule))
        return self

    @property
    def name(self) -> str:
        """The label in tables."""
        return f"rule {json.dumps(self.rule, sort_keys=True):.60}"


class JudgeReward(ModelTable):
    """Rewards from a language model that reads a rubric and gives each response a number."""

    kind: Literal["judge"] = "judge"
    model: str = Field(description="Name as served, or the model to run here.")
    engine: Literal["openai", "transformers"] = Field(
        "openai", description="A served model (see [runtime.endpoints]), or one run here."
    )
    rubric: str = Field(DEFAULT_RUBRIC, description="What the judge is to look at.")
    scale: tuple[int, int] = Field((1, 10), description="The lowest and the highest number.")
    seed: int = Field(0, description="Seed given to the endpoint.")
    max_tokens: int = Field(16, ge=1, description="Tokens of the judge's answer; 0 temperature.")
    log_probabilities: bool = Field(
        True, description="Take the expectation over the numbers where the endpoint tells it."
    )

    @model_validator(mode="after")
    def _askable(self) -> "JudgeReward":
        usable(self.options)
        return self

    @property
    def name(self) -> str:
        """The label in tables."""
        return f"judge {super().name}"

    def options(self) -> JudgeOptions:
        """Return what the judge must know."""
        return JudgeOptions(
            model=self.model,
            revision=self.revision,
            rubric=self.rubric,
            scale=self.scale,
            seed=self.seed,
            max_tokens=self.max_tokens,
            log_probabilities=self.log_probabilities,
        )

    def local(self, runtime: Runtime) -> LocalModel:
        """Return how the model is run in this process."""
        return LocalModel(
            template=self.template,
            max_length=self.max_length,
            dtype=self.resolved_dtype(runtime),
            device=runtime.resolved_device(),
        )


Reward = Annotated[
    ColumnReward | ReferenceReward | ModelReward | RuleReward | JudgeReward,
    Field(discriminator="kind"),
]
