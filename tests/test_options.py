"""Options of commands are made of the fields of tables, with their types, defaults and descriptions."""

import click
import pytest
from click.testing import CliRunner
from pydantic import BaseModel

from preceptor.cli.app import cli
from preceptor.cli.command import SECTIONS, Option
from preceptor.config.base import Table
from preceptor.config.study import StudyFile
from preceptor.ranking.options import RankingOptions
from preceptor.ranking.race.options import RaceOptions

NOT_OPTIONS = {
    "only a study file has several teachers or validates": {
        "BestOfN.by", "BestOfN.kind", "BestOfN.label", "BestOfN.n", "BestOfN.of", "BestOfN.seed",
        "Evaluate.apply_chat_template", "Evaluate.baseline", "Evaluate.benchmarks", "Evaluate.limit",
        "Evaluate.max_tokens", "Evaluate.metric", "Evaluate.name", "Evaluate.num_fewshot",
        "Evaluate.questions", "Evaluate.task_folder", "Evaluate.tasks", "Evaluate.temperature",
        "Train.equal", "Train.exclude_ngram", "Train.rows",
        "Train.seeds", "Train.teachers", "Train.whole_only",
    },
    "given as arguments": {"Data.instructions", "Data.responses"},
    "several students share the options: a label is each one's own": {"Student.label"},
    "the tag that tells kinds of one table apart: another option says it": {
        "ChatJudge.engine", "ChatJudge.kind", "ColumnReward.kind", "JudgeReward.engine", "JudgeReward.kind",
        "ModelReward.kind", "PluginReward.kind", "ReferenceReward.kind", "RewardJudge.kind",
        "RuleReward.kind",
    },
    "a judge or reward model other than as it comes is for a study file": {
        *(f"{table}.{field}" for table in ("ChatJudge", "ModelReward", "RewardJudge")
          for field in ("chat_template", "dtype", "max_length", "revision")),
        "JudgeReward.dtype", "ModelReward.engine", "RewardJudge.engine", "RewardJudge.trust_remote_code",
    },
    "what is set up on a cluster's machines is for a study file": {"Runtime.runtime_env"},
    "what plans alone read is for a study file, which they take": {
        "Runtime.price_per_hour", "Runtime.tokens_per_second",
    },
    "what requests say beyond the usual is for a study file": {
        "Request.chat_template_kwargs", "Request.extra_body", "Request.frequency_penalty",
        "Request.leave_out", "Request.min_p", "Request.presence_penalty", "Request.reasoning_effort",
        "Request.repetition_penalty", "Request.top_k",
    },
}  # fmt: skip
"""Fields that no option of a command sets, by the reason why not."""


_NOTHING: tuple[object, ...] = (None, (), click.Option(["--x"]).get_default(click.Context(cli)))


def options(command: click.Command = cli, parent: click.Context | None = None) -> list[Option]:
    context = click.Context(command, parent=parent, **command.context_settings)
    own = [one for one in command.get_params(context) if isinstance(one, Option)]
    below = command.commands.values() if isinstance(command, click.Group) else ()
    return own + [option for one in below for option in options(one, context)]


def tables_in(kind: object) -> set[type[BaseModel]]:
    if isinstance(kind, type) and issubclass(kind, Table | RankingOptions | RaceOptions):
        return {kind}
    return {table for part in getattr(kind, "__args__", ()) for table in tables_in(part)}


def fields() -> set[str]:
    """Return every field of a study file that is no table itself, as Table.field."""
    found: set[str] = set()
    seen: set[type[BaseModel]] = set()
    waiting: list[type[BaseModel]] = [StudyFile]
    while waiting:
        table = waiting.pop()
        seen.add(table)
        for name, info in table.model_fields.items():
            within = tables_in(info.annotation)
            waiting += within - seen
            if not within:
                found.add(f"{table.__name__}.{name}")
    return found


def test_every_field_of_a_study_file_is_an_option_or_says_why_not():
    made = {
        f"{kind.__name__}.{one.sets[1]}"
        for one in options()
        if one.sets is not None
        for kind in (one.sets[0], *one.sets[0].__subclasses__())
    }
    reasoned = {name for names in NOT_OPTIONS.values() for name in names}
    assert fields() - made == reasoned & fields() - made
    assert fields() - made - reasoned == set()
    assert reasoned <= fields() - made, "has become an option, or is no field"


def test_an_option_has_the_type_default_and_description_of_its_field():
    with_field = [one for one in options() if one.sets is not None]
    assert len(with_field) > 100
    for one in with_field:
        table, name = one.sets or (Table, "")
        info = table.model_fields[name]  # type: ignore[attr-defined]
        assert info.description, (table, name)
        assert one.help and "\n" not in one.help, (table, name)
        if name not in ("lora", "reference_model", "rubric") and not info.is_required():
            context = click.Context(click.Command("any"))
            assert one.get_default(context) in (info.default, *_NOTHING), (table, name)
            assert info.default in ((), None) or one.get_default(context) == info.default


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["rank", "x", "--limit", "1"], "'--limit': 1 is not in the range x>=2"),
        (["rank", "x", "--dtype", "float8"], "'float8' is not one of 'auto', 'float32'"),
        (["rank", "x", "--beta", "three"], "'three' is not a valid float"),
        (["rank"], "Missing argument 'RESPONSES...'"),
        (["generate", "q", "--output", "o"], "Missing option '--teacher'"),
        (
            ["train", "d", "--student", "s", "--output", "o", "--epochs", "0"],
            "not in the range x>=1",
        ),
    ],
)
def test_a_wrong_value_is_refused_by_the_name_of_its_option(words: list[str], said: str):
    result = CliRunner().invoke(cli, words)
    assert result.exit_code == 2
    assert said in result.output


def said(*words: str) -> str:
    result = CliRunner().invoke(cli, words)
    assert result.exit_code == 2
    return result.output


def test_a_misspelt_command_or_option_gets_the_nearest_name():
    assert "No such command 'rnak'. Did you mean 'rank'?" in said("rnak")
    assert "No such command 'shwo'. Did you mean 'show'?" in said("store", "shwo")
    assert "No such option '--studnet'. Did you mean '--student'?" in said("rank", "--studnet", "x")


def test_every_command_stands_in_one_section_of_the_help_with_its_whole_summary():
    assert sorted(name for names in SECTIONS.values() for name in names) == sorted(cli.commands)
    shown = " ".join(CliRunner().invoke(cli, ["--help"], terminal_width=80).output.split())
    assert all(heading in shown for heading in SECTIONS)
    for name, command in cli.commands.items():
        assert command.help is not None
        assert f"{name} {command.help.splitlines()[0]}" in shown
