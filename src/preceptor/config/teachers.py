"""Response generators to ask: the tables `[[teachers]]` and `[[best_of_n]]` of a study file.

A teacher is a model and how it is sampled. Lists of temperatures and nucleus sizes are a grid (paper, figure
3): each point is a teacher of its own. A best-of-N teacher (paper, table 3) picks among another's samples, or
among the responses of several.
"""

import os
from collections.abc import Iterable
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, field_validator, model_validator

from preceptor.config.base import TEMPLATES, ModelTable, Request, Rule, Table, Texts
from preceptor.config.catalogue import CatalogueEntry, find_teacher, training_of
from preceptor.config.plugins import Registry
from preceptor.config.rewards import Reward
from preceptor.errors import nearest

_MOST_STOPS = 4
ALL_TEACHERS = "*"
"""In the place of names: all teachers but those made of others."""

FACTS = ("family", "parameters", "licence", "price_in", "price_out")
"""Fields of a teacher's table that a catalogue has too."""

TEACHER_ENGINES: Registry[Any] = Registry(
    "teachers",
    "engine of teachers",
    dict.fromkeys(("transformers", "vllm", "openai", "fake")),
)
"""What can ask a teacher; those of other packages are backends."""


class Teacher(ModelTable):
    """A response generator and how it is sampled; greedy by default, as in the paper (3.2)."""

    model: str = Field(
        description="Catalogue name (see `preceptor list teachers`), Hub id, folder, GGUF, or served name."
    )
    label: str | None = Field(None, min_length=1, description="Name in tables.")
    engine: str = Field(
        "transformers",
        description="Run here by transformers or vLLM, asked over HTTP (see [runtime.endpoints]), or "
        "fake; or an engine of another package.",
    )
    api: Literal["chat", "completions"] = Field(
        "chat", description="For openai: let the server render the template, or render it here."
    )
    max_length: int = Field(8192, ge=2, description="Tokens of prompt and response together.")
    system: str = Field("", description="System prompt.")
    reasoning: Literal["drop", "keep"] = Field(
        "drop",
        description="Drop or keep the reasoning trace before `</think>`; the store keeps it.",
    )
    temperature: float | tuple[float, ...] = Field(
        0.0, description="0 is greedy. A list makes a grid."
    )
    top_p: float | tuple[float, ...] = Field(
        1.0,
        description="Share of probability to draw from (nucleus sampling). A list makes a grid.",
    )
    max_tokens: int = Field(2048, ge=1, description="Tokens of a response at most.")
    stop: Texts = Field(
        (), max_length=_MOST_STOPS, description="Texts that end a response, at most four."
    )
    samples: int = Field(1, ge=1, le=10_000, description="Responses to each instruction.")
    samples_per_request: int = Field(
        1, ge=1, description="For openai: samples asked for at once (`n`), which share one prompt."
    )
    seed: int = Field(
        0, ge=0, lt=2**31, description="Seed of the first sample; the next ones count up."
    )
    request: Request = Field(
        default_factory=Request,
        description="For openai: what else its requests say, such as reasoning_effort or top_k.",
    )
    family: str | None = Field(
        None, min_length=1, description="Its relatives' common name; by default the catalogue's."
    )
    parameters: float | None = Field(
        None, gt=0, allow_inf_nan=False, description="Billions of parameters."
    )
    licence: str | None = Field(None, min_length=1, description="Short name of its licence.")
    price_in: float | None = Field(
        None, ge=0, allow_inf_nan=False, description="US dollars for a million tokens of prompts."
    )
    price_out: float | None = Field(
        None, ge=0, allow_inf_nan=False, description="US dollars for a million tokens of answers."
    )

    @field_validator("engine")
    @classmethod
    def _registered(cls, value: str) -> str:
        if value not in TEACHER_ENGINES.names():
            raise ValueError(
                f"no engine of teachers is called '{value}'; known are {', '.join(TEACHER_ENGINES.names())}."
                f"{nearest(value, TEACHER_ENGINES.names())}"
            )
        return value

    @model_validator(mode="after")
    def _sensible(self) -> "Teacher":
        if () in (self.temperature, self.top_p):
            raise ValueError("the list of temperature or top_p is empty: a grid needs a point")
        for temperature in _listed(self.temperature):
            if not 0 <= temperature <= 5:
                raise ValueError(f"temperature = {temperature}: expected 0 to 5")
        for top_p in _listed(self.top_p):
            if not 0 < top_p <= 1:
                raise ValueError(f"top_p = {top_p}: expected above 0, at most 1")
        for temperature in _listed(self.temperature):
            if self.samples > 1 and temperature == 0:
                raise ValueError(
                    f"{self.samples} samples at temperature 0 are {self.samples} copies: raise the "
                    "temperature or take one sample"
                )
        entry = find_teacher(self.model)
        if entry and entry.hosted and self.engine in ("transformers", "vllm"):
            raise ValueError(
                f"'{self.model}' is only served by its maker: set engine = 'openai' and give its url in "
                "[runtime.endpoints]"
            )
        if self.request != Request() and self.engine != "openai":
            raise ValueError(f"request is for engine = 'openai', not '{self.engine}': leave it out")
        if "temperature" in self.request.leave_out and self.temperature != 1:
            raise ValueError(
                "request.leave_out has temperature, which is then 1 at most servers: set temperature = 1"
            )
        if self.samples_per_request > 1 and self.engine != "openai":
            raise ValueError(
                f"samples_per_request is for engine = 'openai', not '{self.engine}': leave it out"
            )
        if self.api == "completions" and self.engine != "openai":
            raise ValueError(f"api = 'completions' is for engine = 'openai', not '{self.engine}'")
        if self.api == "completions" and self.chat_template in ("auto", "own"):
            raise ValueError(
                "api = 'completions' renders the template here: name one of "
                f"{', '.join(TEMPLATES)}, or a .jinja file"
            )
        if self.engine == "openai" and self.api == "chat" and self.chat_template != "auto":
            raise ValueError(
                f"chat_template = '{self.chat_template}': a chat endpoint renders its own. Set api = "
                "'completions' to render it here, or leave it out"
            )
        if any(not text for text in self.stop):
            raise ValueError("a stop text is empty")
        return self

    @property
    def name(self) -> str:
        """The label of the whole grid."""
        entry = None if os.path.exists(self.model) else find_teacher(self.model)
        return self.label or (entry.name if entry else super().name)

    def known_as(self, name: str) -> CatalogueEntry:
        """Return what is known of it: the table's own facts, then the shipped catalogue's."""
        entry = None if os.path.exists(self.model) else find_teacher(self.model)
        family = Path(self.model).name or self.model
        base = entry or CatalogueEntry(name, name, family, "", self.model)
        own = self.model_dump(include=set(FACTS), exclude_none=True)
        training = training_of(self.licence) if self.licence else base.training
        return replace(base, name=name, label=name, training=training, **own)

    @property
    def located(self) -> str:
        """What is loaded or asked for: the catalogue's Hub id, else the model as it was named."""
        if self.engine in ("openai", "fake") or os.path.exists(self.model):
            return self.model
        entry = find_teacher(self.model)
        return entry.model if entry else self.model

    def points(self) -> list["TeacherPoint"]:
        """Return a teacher for each point of the grid, labelled by what varies."""
        temperatures, nuclei = _listed(self.temperature), _listed(self.top_p)
        found = []
        # Greedy texts know no nucleus: a greedy row of a grid is one point.
        pairs = [
            (heat, 1.0 if heat == 0 else top_p) for heat, top_p in product(temperatures, nuclei)
        ]
        for temperature, top_p in dict.fromkeys(pairs):
            label = self.name
            label += f" T={temperature:g}" if len(set(temperatures)) > 1 else ""
            label += f" p={top_p:g}" if len(set(nuclei)) > 1 and temperature > 0 else ""
            point: dict[str, object] = {
                "label": label,
                "model": self.located,
                "system": self.system.strip(),
            }
            point |= {"temperature": temperature, "top_p": top_p}
            found.append(TeacherPoint.model_validate(self.model_dump() | point))
        return found


class TeacherPoint(Teacher):
    """A teacher as it is asked: one point of its grid, with its label and the model that is loaded."""

    temperature: float = 0.0
    top_p: float = 1.0

    def sampling(self) -> dict[str, object]:
        """Return what of the sampling bears on a text; greedy texts know neither seed nor nucleus.

        Every sample of every instruction has a seed of its own, made of `seed`, the instruction and the
        sample's index. `samples_per_request` of them may share a request, and then its seed.
        """
        greedy = self.temperature == 0
        return {
            "temperature": self.temperature,
            "top_p": 1.0 if greedy else self.top_p,
            "max_tokens": self.max_tokens,
            "stop": self.stop,
            "seed": None if greedy else self.seed,
        }

    def unadvised(self, entry: CatalogueEntry | None) -> str | None:
        """Return, in words, how it is sampled otherwise than its maker advises; None where as advised."""
        sampled: dict[str, object] = {"temperature": self.temperature, "top_p": self.top_p}
        sampled |= {"top_k": self.request.top_k} if self.engine == "openai" else {}
        advised = dict(entry.advised) if entry and self.engine != "fake" else {}
        if all(sampled[name] == value for name, value in advised.items() if name in sampled):
            return None
        wanted = ", ".join(f"{name} = {value:g}" for name, value in advised.items())
        how = self.described()
        text = f"'{self.name}' is sampled otherwise ({how}) than its card advises: {wanted}."
        if entry and entry.never_greedy and self.temperature == 0:
            text += " The card warns of greedy decoding, which may end in endless repetition."
        return text

    def described(self) -> str:
        """Return how it samples, in words."""
        if self.temperature == 0:
            return ", ".join(["greedy", *(f"{k} {v}" for k, v in self.request.body().items())])
        nucleus = f", top-p {self.top_p:g}" if self.top_p < 1 else ""
        nucleus += "".join(f", {name} {value}" for name, value in self.request.body().items())
        count = f", {self.samples} samples" if self.samples > 1 else ""
        return f"temperature {self.temperature:g}{nucleus}{count}, seed {self.seed}"


class BestOfN(Table):
    """A teacher made of others' responses, at no new generation (paper, finding 5 and table 3).

    Of one teacher it picks among samples; of several it is a mixture. `routed` takes for each instruction
    the teacher that does best on the other half of the instructions of its kind, so that the numbers that
    choose are not those that rank.
    """

    kind: Literal["best", "worst", "random", "routed"] = Field(
        description="The response with the highest value, the lowest, any, or that of the teacher that does "
        "best on the other half of the instructions of its kind."
    )
    of: Texts = Field(
        min_length=1,
        description="Name of the teacher whose samples are chosen from; several make a mixture, * is all.",
    )
    by: Rule = Field(
        "reward",
        description="What is chosen by: the reward, or with the one student's likelihood CAR or PerSyn.",
    )
    n: int | None = Field(
        None, ge=2, description="Choose from the first n samples of a teacher; by default all."
    )
    label: str | None = Field(None, min_length=1, description="Name in tables.")
    reward: Reward | None = Field(
        None, description="What chooses; by default the reward that ranks."
    )
    seed: int = Field(
        0, ge=0, lt=2**63, description="Draws the sample of `random`, and halves of instructions."
    )

    @model_validator(mode="after")
    def _chooses(self) -> "BestOfN":
        if self.kind == "random" and (self.reward is not None or self.by != "reward"):
            raise ValueError("kind = 'random' needs no reward and no by: leave it out")
        if self.kind == "routed" and self.of != (ALL_TEACHERS,) and len(set(self.of)) < 2:
            raise ValueError("kind = 'routed' chooses among teachers: name several, or *")
        return self

    @property
    def is_mixture(self) -> bool:
        """Whether it is made of several teachers."""
        return len(self.of) > 1 or self.of == (ALL_TEACHERS,)

    @property
    def grows(self) -> bool:
        """Whether what it takes for one instruction depends on others, or on the student."""
        return self.kind == "routed" or self.by != "reward"

    def among(self, teachers: Iterable[str]) -> "BestOfN":
        """Return it with the names of these teachers in the place of *."""
        if self.of != (ALL_TEACHERS,):
            return self
        return self.model_copy(update={"of": tuple(teachers), "label": self.name})

    @property
    def name(self) -> str:
        """The label in tables."""
        if self.label or not self.is_mixture:
            return self.label or f"{self.of[0]} {self.kind}-of-{self.n or 'all'}"
        return f"{self.kind} of {', '.join(self.of).replace(ALL_TEACHERS, 'all')}"


def _listed(value: float | tuple[float, ...]) -> tuple[float, ...]:
    return value if isinstance(value, tuple) else (value,)
