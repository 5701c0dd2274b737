"""The whole question: data, teachers, students, yardsticks.

Everything in `Study` bears on the answer; what does not is `Runtime`. Both are read from one TOML file,
unknown fields are refused, and what contradicts itself is refused when the file is read and not after an
hour.
"""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

from pydantic import BeforeValidator, Field, ValidationInfo, field_validator, model_validator

from preceptor.config.base import Table, checked
from preceptor.config.catalogue import SHIPPED, Catalogue, CatalogueEntry
from preceptor.config.data import Data
from preceptor.config.finetune import Evaluate, RewardJudge, Train
from preceptor.config.metrics import GivenMetric
from preceptor.config.paths import beside
from preceptor.config.rewards import ModelReward, Reward
from preceptor.config.runtime import Runtime
from preceptor.config.student import Reading, Student, distinct
from preceptor.config.teachers import FACTS, BestOfN, Teacher
from preceptor.errors import StudyError
from preceptor.ranking.options import OF_POOL, RankingOptions
from preceptor.ranking.race.options import RaceOptions


def _several(value: object) -> object:
    return value if isinstance(value, list | tuple) else (value,)


def _tables(value: object) -> object:
    return () if value is None else _several(value)


class Study(Table):
    """The whole question: data, students, yardsticks. Everything in it bears on the answer."""

    data: Data
    catalogue: str | None = Field(
        None,
        description="File with teachers of one's own: their models, families, licences, prices.",
    )
    allowed_licences: tuple[str, ...] = Field(
        (),
        description="Refuse teachers under other licences. Names, or what a licence says of training on "
        "answers: 'free', or 'conditions', which takes both.",
    )
    teachers: tuple[Teacher, ...] = Field(
        (), description="Response generators to ask; each point of a grid is a teacher of its own."
    )
    best_of_n: tuple[BestOfN, ...] = Field(
        (),
        description="Teachers made of others' responses: best, worst or random of N, and mixtures.",
    )
    students: tuple[Student, ...] = Field((), description="Base models to rank for.")
    no_student: bool = Field(
        False, description="Rank for no base model: only reward and length can then order."
    )
    reward: Annotated[
        tuple[Reward, ...],
        BeforeValidator(_several, json_schema_input_type=Reward | tuple[Reward, ...]),
    ] = Field(
        (),
        description="Where rewards come from, one table or several; each gives a ranking of its own. "
        "By default references, where the data have them.",
    )
    reference_model: Student = Field(
        default_factory=lambda: Student(model="openai-community/gpt2"),
        description="Model of ppl_gpt2 and ifd_gpt2, which need not be GPT-2.",
    )
    metrics: Annotated[
        tuple[GivenMetric, ...],
        BeforeValidator(_several, json_schema_input_type=GivenMetric | tuple[GivenMetric, ...]),
    ] = Field(
        (), description="Metrics to form; by default all whose measures exist without another pass."
    )
    beta: float = Field(3.0, ge=0, description="CAR's beta where its own table names none.")
    by: str | None = Field(
        None,
        description="Metric that orders; by default car, reward or information; rsr on reasoning.",
    )
    reading: Reading = Field(default_factory=Reading, description="How the loss is read.")
    ranking: RankingOptions = Field(
        default_factory=RankingOptions,
        description="Resamples, seed, reward transform, least coverage.",
    )
    race: RaceOptions | None = Field(
        None,
        description="Drop teachers as soon as they cannot be the best, and stop when the best is known.",
    )
    train: Train | None = Field(
        None, description="Tune every student on every teacher's responses; needs evaluate."
    )
    evaluate: Annotated[
        tuple[Evaluate, ...],
        BeforeValidator(_tables, json_schema_input_type=Evaluate | tuple[Evaluate, ...]),
    ] = Field(
        (),
        description="Judge or check the fine-tuned students and compare both orders: one table or several, "
        "each a dimension with an order of its own.",
    )

    @model_validator(mode="before")
    @classmethod
    def _beta_of_a_listed_car(cls, given: object) -> object:
        if not isinstance(given, dict) or "beta" not in given or "metrics" not in given:
            return given
        listed = given["metrics"]
        metrics = listed if isinstance(listed, list | tuple) else (listed,)
        car = {"kind": "car", "beta": given["beta"]}
        return {**given, "metrics": [car if m in ("car", {"kind": "car"}) else m for m in metrics]}

    @field_validator("catalogue")
    @classmethod
    def _readable(cls, value: str | None) -> str | None:
        _own_entries(value)
        return value

    @field_validator("teachers", mode="before")
    @classmethod
    def _filled_in(cls, value: object, info: ValidationInfo) -> object:
        own = _own_entries(info.data.get("catalogue"))
        return [_filled(one, own) for one in value] if isinstance(value, list | tuple) else value

    @field_validator("students")
    @classmethod
    def _told_apart(cls, value: tuple[Student, ...]) -> tuple[Student, ...]:
        return distinct(value)

    @property
    def known(self) -> Catalogue:
        """What is known of teachers: of those asked, in the user's catalogue, and in the shipped one."""
        asked = {
            point.name: teacher.known_as(point.name)
            for teacher in self.teachers
            for point in teacher.points()
        }
        beside = _own_entries(self.catalogue) + SHIPPED
        for name, entry in asked.items():
            if known := beside.find(entry.model):
                advice = {"advised": known.advised, "never_greedy": known.never_greedy}
                asked[name] = replace(entry, **advice)  # type: ignore[arg-type]
        for chosen in self.best_of_n:
            # A mixture is nobody's relative, of no size and no price.
            name = chosen.name if chosen.is_mixture else chosen.of[0]
            of = asked.get(name) or beside.find(name) or CatalogueEntry(name, name, name, "", name)
            asked[chosen.name] = replace(of, name=chosen.name, label=chosen.name)
        return Catalogue(asked.values()) + beside

    def require_allowed(self, teachers: Iterable[str]) -> None:
        """Refuse teachers whose licence is not among those allowed.

        Raises:
            StudyError: one is not, or its licence is not known.
        """
        known = self.known
        for name in teachers if self.allowed_licences else ():
            entry = known.find(name)
            if entry is None or not entry.is_allowed(self.allowed_licences):
                licence = f"'{entry.licence}'" if entry and entry.licence else "not known"
                raise StudyError(
                    f"The licence of the teacher '{name}' is {licence}, and allowed_licences has "
                    f"{', '.join(self.allowed_licences)}. Leave the teacher out, or add its licence: in "
                    "[[teachers]], in a catalogue file, or to allowed_licences."
                )

    @model_validator(mode="after")
    def _licensed(self) -> "Study":
        try:
            self.require_allowed(point.name for one in self.teachers for point in one.points())
        except StudyError as error:
            raise ValueError(str(error)) from error
        return self

    @model_validator(mode="after")
    def _answerable(self) -> "Study":
        if not self.data.responses and not self.teachers:
            raise ValueError("nothing to compare: give data.responses, or [[teachers]] to ask")
        if not self.data.responses and not self.data.instructions:
            raise ValueError("nothing to ask the teachers: give data.instructions")
        if self.data.instructions and not self.teachers:
            raise ValueError("data.instructions are given but no [[teachers]] to ask them")
        names = [point.name for teacher in self.teachers for point in teacher.points()]
        names += [chosen.name for chosen in self.best_of_n]
        if twice := [name for name, count in Counter(names).items() if count > 1]:
            raise ValueError(f"two teachers are named '{twice[0]}': give one another name")
        return self

    @model_validator(mode="after")
    def _consistent(self) -> "Study":
        kinds = [metric.kind for metric in self.metrics]
        if self.by is not None and kinds and self.by not in kinds:
            raise ValueError(f"by = '{self.by}' is not among the metrics {', '.join(kinds)}")
        if len(set(kinds)) < len(kinds):
            raise ValueError(f"a metric is named twice: {', '.join(kinds)}")
        if not 0 <= self.ranking.seed < 2**63:
            raise ValueError(f"seed = {self.ranking.seed}: expected 0 to 2**63 - 1")
        sources = [source.model_dump_json() for source in self.reward]
        if twice := [
            s.name for s, dump in zip(self.reward, sources, strict=True) if sources.count(dump) > 1
        ]:
            raise ValueError(f"a reward is named twice: {twice[0]}. Leave one out")
        if self.no_student and self.students:
            raise ValueError("no_student is given with a student: leave one of them out")
        names = [student.name for student in self.students]
        if len(set(names)) < len(names):
            raise ValueError(
                f"a student is named twice: {', '.join(names)}. Leave one out, or give it a label"
            )
        return self

    @model_validator(mode="after")
    def _of_one_student(self) -> "Study":
        of_student = [one for one in self.best_of_n if one.by != "reward"]
        if of_student and len(self.students) != 1:
            raise ValueError(
                f"'{of_student[0].name}' is chosen by {of_student[0].by}, for one student: the study has "
                f"{len(self.students)}. Name one, or choose by reward"
            )
        return self

    @model_validator(mode="after")
    def _raceable(self) -> "Study":
        if self.race is None:
            return self
        if self.ranking.transform in OF_POOL:
            raise ValueError(
                f"transform = '{self.ranking.transform}' looks at all rewards, and a race has seen some: "
                "race with 'sigmoid' or 'raw', or rank without [race]"
            )
        if growing := [one.name for one in self.best_of_n if one.grows]:
            raise ValueError(
                f"'{growing[0]}' is another teacher at every look of [race]: rank without it"
            )
        if self.train is not None:
            raise ValueError(
                "[train] tunes on every teacher, and [race] drops teachers: leave one of them out"
            )
        return self

    @model_validator(mode="after")
    def _provable(self) -> "Study":
        if self.train is None and not self.evaluate:
            return self
        if self.train is None or not self.evaluate:
            given, lacking = ("train", "evaluate") if self.train else ("evaluate", "train")
            raise ValueError(
                f"[{given}] is given without [{lacking}]: a prediction is proved with both. To tune "
                "alone, use `preceptor export` and `preceptor train`"
            )
        if not self.students:
            raise ValueError("[train] is given without [[students]]: name what is to be fine-tuned")
        chosen_by_rank = [d.name for d in self.best_of_n if d.kind != "random" and d.reward is None]
        if len(self.reward) > 1 and chosen_by_rank:
            raise ValueError(
                f"'{chosen_by_rank[0]}' is another teacher under each reward: give it [best_of_n.reward], so "
                "that there is one to tune on"
            )
        names = [one.label for one in self.evaluate]
        if twice := [name for name in names if names.count(name) > 1]:
            raise ValueError(f"two [[evaluate]] are called '{twice[0]}': give one another name")
        made = [one.model for one in self.reward if isinstance(one, ModelReward)]
        for judge in (one.judge for one in self.evaluate):
            if isinstance(judge, RewardJudge) and judge.model in made:
                raise ValueError(
                    f"the judge '{judge.model}' made the rewards of the prediction that it would check: it "
                    "would agree with itself. Judge with another model"
                )
        return self


def read_catalogue(path: str | Path | None) -> Catalogue:
    """Return the entries of a catalogue file, or of a study file's teachers, and then the shipped ones.

    Raises:
        StudyError: the file cannot be read, or an entry is wrong.
    """
    if path is None:
        return SHIPPED
    if "data" in _tables_of(Path(path)):
        return StudyFile.read(path).study.known
    return _own(str(path)) + SHIPPED


def _own(path: str) -> Catalogue:
    return Catalogue.of(_tables_of(Path(path)), where=path)


def _own_entries(path: str | None) -> Catalogue:
    """Return the entries of the user's file, as a validator may call it."""
    try:
        return _own(path) if path else Catalogue(())
    except StudyError as error:
        raise ValueError(str(error)) from error


def _filled(teacher: object, own: Catalogue) -> object:
    """Return a teacher's table with what the user's catalogue knows and the table leaves open."""
    given = teacher.model_dump(exclude_unset=True) if isinstance(teacher, Teacher) else teacher
    if not isinstance(given, Mapping) or (entry := own.find(str(given.get("model")))) is None:
        return teacher
    facts = {name: getattr(entry, name) for name in FACTS}
    return {"label": entry.name, **facts, **given, "model": entry.model}


def _tables_of(file: Path) -> dict[str, Any]:
    """Return the tables of a TOML file; StudyError where it cannot be read."""
    import tomllib

    try:
        return tomllib.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise StudyError(
            f"Cannot read '{file}': {error.strerror}. Check the path; `preceptor init FILE` writes a study "
            "file to start from."
        ) from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise StudyError(f"'{file}' is not valid TOML: {error}.") from error
    except RecursionError as error:
        raise StudyError(f"'{file}' is not valid TOML: nested too deeply.") from error


class StudyFile(Table):
    """A study file: the tables of `Study`, and `[runtime]`."""

    study: Study
    runtime: Runtime

    @classmethod
    def read(cls, path: str | Path) -> "StudyFile":
        """Return the study and the machine of a TOML file.

        StudyError for a missing file, invalid TOML, or a field that is unknown or wrong. Relative paths in
        the file are relative to its folder.
        """
        file = Path(path)
        tables = beside(_tables_of(file), file.parent)
        runtime = tables.pop("runtime", {})
        return cls(
            study=checked(Study, tables, where=str(file)),
            runtime=checked(Runtime, runtime, where=f"{file} [runtime]"),
        )
