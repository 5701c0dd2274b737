"""Where rewards come from: the tables `[[reward]]` of a study file, one class for each kind."""

import json
from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Discriminator, Field, Tag, field_validator, model_validator

from preceptor.config.base import ModelTable, Request, Table
from preceptor.config.plugins import Registry
from preceptor.config.reward_models import PRESETS
from preceptor.errors import nearest

DEFAULT_RUBRIC = """\
Rate how good the response is for the person who wrote the last user turn. Consider:
- Helpfulness: it gives what the person needs, at the depth the request asks for.
- Correctness: its facts, reasoning, calculations and code are right.
- Instruction following: it does what was asked, in the form, language and length that were asked for.
Length alone is no merit. Be strict: the highest number is for a response that could hardly be better, the \
lowest for one that is useless, wrong throughout or beside the question."""
"""What a judge is asked to look at where the user gives no rubric."""


def require_served(engine: str, temperature: float, request: Request) -> None:
    """Refuse what only a served judge heeds; ValueError where it is run here."""
    if engine != "openai" and (temperature or request != Request()):
        raise ValueError("temperature and request are for engine = 'openai': leave them out")


class Computed:
    """Rewards that are computed: no column of the data holds them."""

    @property
    def column(self) -> None:
        """The column that holds the rewards: none."""
        return None


class ColumnReward(Table):
    """Rewards that stand in the data."""

    kind: Literal["column"] = "column"
    column: str = Field(description="Column of numbers that holds the reward.")

    @property
    def name(self) -> str:
        """The label in tables."""
        return f"column '{self.column}'"


class ReferenceReward(Computed, Table):
    """Rewards from checking each response against the reference answer the data carry."""

    kind: Literal["reference"] = "reference"

    @property
    def name(self) -> str:
        """The label in tables."""
        return "checked against the reference answers"


class RewardModelTable(ModelTable):
    """A reward model, a sequence classifier with one label; a preset's name becomes its Hub id."""

    model: str = Field(description="Preset, Hub id or local folder of the reward model.")
    trust_remote_code: bool = Field(
        False, description="Let code of the model's repository run; read it first."
    )
    engine: Literal["transformers", "served"] = Field(
        "transformers",
        description="Run here by transformers, or asked of a vLLM server's /classify or /pooling.",
    )

    @field_validator("model")
    @classmethod
    def _without_presets(cls, value: str) -> str:
        return PRESETS[value].model if value in PRESETS else value


class ModelReward(Computed, RewardModelTable):
    """Rewards from a reward model."""

    kind: Literal["model"] = "model"


class RuleReward(Computed, Table):
    """Rewards from checking every response against one rule; see docs/reference/verifiers.md."""

    kind: Literal["rule"] = "rule"
    rule: dict[str, Any] = Field(
        description="Check of every response, as a table with a kind "
        "(docs/reference/verifiers.md); gives 0 to 1."
    )

    @field_validator("rule")
    @classmethod
    def _is_a_check(cls, value: dict[str, Any]) -> dict[str, Any]:
        if not isinstance(value.get("kind"), str):
            raise ValueError(
                'a rule is a table with a kind, such as {kind = "contains", answer = "Paris"}'
            )
        return value

    @property
    def name(self) -> str:
        """The label in tables."""
        return f"rule {json.dumps(self.rule, sort_keys=True):.60}"


class JudgeReward(Computed, ModelTable):
    """Rewards from a language model that reads a rubric and gives each response a number."""

    kind: Literal["judge"] = "judge"
    model: str = Field(
        description="Chat model that scores each response: served under this name, or run here."
    )
    engine: Literal["openai", "transformers"] = Field(
        "openai", description="Served (see [runtime.endpoints]), or run here by transformers."
    )
    max_length: int = Field(4096, ge=2, description="Tokens of rubric, conversation and answer.")
    rubric: str = Field(DEFAULT_RUBRIC, description="What the judge is to look at.")
    scale: tuple[int, int] = Field((1, 10), description="The lowest and the highest number.")
    seed: int = Field(0, description="Seed that the endpoint is given.")
    max_tokens: int = Field(
        16, ge=1, description="Tokens of the judge's answer; a model that reasons needs more."
    )
    temperature: float = Field(
        0.0,
        ge=0,
        le=2,
        description="For a served judge that refuses 0: its numbers are then drawn.",
    )
    request: Request = Field(
        default_factory=Request,
        description="For a served judge: what else its requests say, such as reasoning_effort.",
    )
    logprobs: bool = Field(
        True,
        description="Take the mean over the numbers by their log-probabilities, where there are some.",
    )

    @model_validator(mode="after")
    def _askable(self) -> "JudgeReward":
        require_served(self.engine, self.temperature, self.request)
        return self

    @field_validator("scale")
    @classmethod
    def _upward(cls, value: tuple[int, int]) -> tuple[int, int]:
        low, high = value
        if not 0 <= low < high <= 10:
            raise ValueError(
                f"a judge's scale runs from {low} to {high}: expected two whole numbers within 0 to 10, "
                "the lower first. A common choice is (1, 10)"
            )
        return value

    @field_validator("rubric")
    @classmethod
    def _not_empty(cls, value: str) -> str:
        if not value.strip():
            raise ValueError("the judge's rubric is empty: say what it is to look at")
        return value

    @property
    def name(self) -> str:
        """The label in tables."""
        return f"judge {super().name}"


class PluginReward(Computed, Table):
    """Rewards of another package's scorer; what else its table holds are the scorer's options."""

    model_config = ConfigDict(extra="allow")

    kind: str = Field(description="Name of an entry point of the group preceptor.scorers.")

    @field_validator("kind")
    @classmethod
    def _registered(cls, value: str) -> str:
        if value not in SCORERS.names():
            raise ValueError(
                f"no source of rewards is called '{value}'; known are {', '.join(SCORERS.names())}."
                f"{nearest(value, SCORERS.names())}"
            )
        return value

    @property
    def options(self) -> dict[str, Any]:
        """What the scorer is made with."""
        return dict(self.model_extra or {})

    @property
    def name(self) -> str:
        """The label in tables."""
        return " ".join([self.kind, *(f"{name}={value}" for name, value in self.options.items())])


_KINDS = ("column", "reference", "model", "rule", "judge")

SCORERS: Registry[Any] = Registry("scorers", "source of rewards", dict.fromkeys(_KINDS))
"""Every kind of reward; those of other packages are scorers."""


def _kind(given: object) -> str:
    kind = given.get("kind") if isinstance(given, dict) else getattr(given, "kind", None)
    return str(kind) if kind in _KINDS else "plugin"


Reward = Annotated[
    Annotated[ColumnReward, Tag("column")]
    | Annotated[ReferenceReward, Tag("reference")]
    | Annotated[ModelReward, Tag("model")]
    | Annotated[RuleReward, Tag("rule")]
    | Annotated[JudgeReward, Tag("judge")]
    | Annotated[PluginReward, Tag("plugin")],
    Discriminator(_kind),
]
