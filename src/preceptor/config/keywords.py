"""Options by name: which field of which table each keyword of `preceptor.rank` and `generate` sets.

The keywords are made of the tables, so that a new field is a new keyword without further code.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from preceptor.config.data import Data, ReadOptions
from preceptor.config.recipe import Recipe
from preceptor.config.rewards import JudgeReward, ModelReward, RuleReward
from preceptor.config.runtime import Endpoint, Runtime
from preceptor.config.student import Reading, Student
from preceptor.config.study import Study
from preceptor.config.teachers import Teacher
from preceptor.errors import StudyError, nearest
from preceptor.ranking.options import RankingOptions
from preceptor.ranking.race.options import RaceOptions


@dataclass(frozen=True)
class Keyword:
    """The field that a keyword sets."""

    table: type[BaseModel]
    field: str

    @property
    def info(self) -> FieldInfo:
        """Its type, default and description."""
        return self.table.model_fields[self.field]

    @property
    def default(self) -> object:
        """What is taken where the keyword is not given."""
        return self.info.get_default()


Group = Mapping[str, Keyword]


def keywords_of(
    table: type[BaseModel],
    *,
    without: Sequence[str] = (),
    renamed: Mapping[str, str] = MappingProxyType({}),
    prefix: str = "",
) -> Group:
    """Return a keyword for each field, named as it is or as `renamed` says, after the prefix."""
    names = (name for name in table.model_fields if name not in without)
    return {prefix + renamed.get(name, name): Keyword(table, name) for name in names}


_KEY = {"api_key_env": "key_env"}

RANK: Mapping[str, Group] = MappingProxyType(
    {
        "study": keywords_of(
            Study, without=("data", "students", "reward", "reading", "ranking", "race")
        ),
        "data": keywords_of(Data, without=("responses",)),
        "columns": keywords_of(ReadOptions),
        "student": keywords_of(Student, without=("model", "label")),
        "reading": keywords_of(Reading),
        "ranking": keywords_of(RankingOptions, renamed={"transform": "reward_transform"}),
        "race": {"race": Keyword(Study, "race"), **keywords_of(RaceOptions)},
        "rule": {"rule": Keyword(RuleReward, "rule")},
        "model": {"trust_remote_code": Keyword(ModelReward, "trust_remote_code")},
        "judge": {
            "judge": Keyword(JudgeReward, "model"),
            "rubric": Keyword(JudgeReward, "rubric"),
            **keywords_of(
                JudgeReward,
                without=("kind", "model", "engine", "rubric", "dtype"),
                prefix="judge_",
            ),
        },
        "endpoint": keywords_of(Endpoint, renamed=_KEY, prefix="judge_"),
        "runtime": keywords_of(Runtime),
    }
)
"""The keywords of `rank`, by what they are about."""

GENERATE: Mapping[str, Group] = MappingProxyType(
    {
        "teacher": keywords_of(Teacher, without=("model",)),
        "data": keywords_of(Data, without=("responses", "instructions")),
        "columns": keywords_of(ReadOptions),
        "endpoint": keywords_of(
            Endpoint,
            without=tuple(Endpoint.model_fields.keys() & Teacher.model_fields),
            renamed=_KEY,
        ),
        "runtime": keywords_of(Runtime),
    }
)
"""The keywords of `generate`, by what they are about."""


TRAIN: Mapping[str, Group] = MappingProxyType(
    {"recipe": keywords_of(Recipe), "runtime": {"device": Keyword(Runtime, "device")}}
)
"""The keywords of `train`, by what they are about."""


def sorted_out(
    groups: Mapping[str, Group], given: Mapping[str, object], *, where: str
) -> dict[str, dict[str, object]]:
    """Return the values by group and field.

    Raises:
        StudyError: a keyword that no group has, with the nearest name.
    """
    found: dict[str, dict[str, object]] = {name: {} for name in groups}
    for keyword, value in given.items():
        of = next((name for name, group in groups.items() if keyword in group), None)
        if of is None:
            known = [name for group in groups.values() for name in group]
            raise StudyError(f"{where} has no option '{keyword}'.{nearest(keyword, known)}")
        found[of][groups[of][keyword].field] = value
    return found


def set_in(group: Group, values: Mapping[str, object]) -> list[str]:
    """Return the keywords of the group whose values are others than their defaults."""
    return [
        name
        for name, keyword in group.items()
        if keyword.field in values and values[keyword.field] not in (None, keyword.default)
    ]
