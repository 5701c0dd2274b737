"""Options made of the fields of tables: name, type, default and help are the field's own.

A command passes `Command` a function that makes its options, so that the tables are loaded only when a
command is read or explained, and not for `preceptor --help`.
"""

import types
from collections.abc import Callable, Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import TYPE_CHECKING, Annotated, Any, Literal, Union, get_args, get_origin

import click

from preceptor.cli.command import Option

if TYPE_CHECKING:
    from pydantic.fields import FieldInfo

    from preceptor.config.keywords import Group, Keyword

Decorator = Callable[[Callable[..., Any]], Callable[..., Any]]

_SIGNS = {
    "Column": "NAME",
    "Folder": "DIR",
    "Environment variable": "NAME",
    "Base of the address": "URL",
}
"""What stands for a text in the help, by how the field's description begins."""

_ENDS = ("ge", "gt", "le", "lt")


def group(*options: Decorator) -> Decorator:
    """Return a decorator that adds these options to a command, in this order."""

    def decorate(command: Callable[..., Any]) -> Callable[..., Any]:
        for option in reversed(options):
            command = option(command)
        return command

    return decorate


def field_options(
    section: str,
    keywords: "Group",
    *,
    without: Sequence[str] = (),
    changed: Mapping[str, Mapping[str, Any]] = MappingProxyType({}),
) -> list[Option]:
    """Return an option for each keyword but some; `changed` has the settings that a table cannot say."""
    return [
        field_option(keyword, name, section, **changed.get(name, {}))
        for name, keyword in keywords.items()
        if name not in without
    ]


def field_option(keyword: "Keyword", name: str, section: str, **changed: Any) -> Option:
    """Return the option that sets a field of a table. `option` in `changed` is how it is written."""
    info = keyword.info
    written = changed.pop("option", f"--{name.replace('_', '-')}")
    settings = _shape(info) | {"help": info.description, "section": section}
    default = None if info.is_required() else info.get_default()
    if default not in (None, ()):
        settings["default"] = default
        settings["show_default"] = default not in ("", False)
    if settings.get("is_flag") and default is True:
        written = f"{written}/--no-{written.removeprefix('--')}"
    settings = settings | {"sets": (keyword.table, keyword.field)} | changed
    if settings.get("multiple") and "Repeatable" not in settings["help"]:
        settings["help"] += " Repeatable."
    return Option([written, name], **settings)


def _shape(info: "FieldInfo") -> dict[str, Any]:
    """Return what a field's type says of its option: type, metavar, flag, how often it is given."""
    kind = _without_none(info.annotation)
    if kind is bool:
        return {"is_flag": True}
    if get_origin(kind) is Literal:
        return {"type": click.Choice(get_args(kind))}
    if get_origin(kind) is tuple:
        inner, *others = get_args(kind)
        if others != [...]:
            return {"type": (inner, *others)}
        return {"multiple": True, "metavar": "NAME" if inner is str else None}
    if kind is int or kind is float:
        return {"type": _range(kind, info.metadata), "metavar": "N" if kind is int else "X"}
    description = info.description or ""
    sign = next((sign for start, sign in _SIGNS.items() if description.startswith(start)), "TEXT")
    return {"type": str, "metavar": sign}


def _without_none(kind: Any) -> Any:
    """Return the type without None; of a value or a list of values the value."""
    if get_origin(kind) is Annotated:
        return _without_none(get_args(kind)[0])
    if get_origin(kind) not in (Union, types.UnionType):
        return kind
    kinds = [one for one in get_args(kind) if one is not types.NoneType]
    return next((one for one in kinds if get_origin(one) is not tuple), kinds[0])


def _range(kind: type, bounds: Iterable[Any]) -> click.ParamType[Any]:
    """Return the range of numbers that a field takes; ends of a machine's integers are left to the table."""
    given = ((name, getattr(bound, name, None)) for bound in bounds for name in _ENDS)
    found = {name: end for name, end in given if end is not None and abs(end) < 2**31}
    if not found:
        return click.INT if kind is int else click.FLOAT
    ends: dict[str, Any] = {
        "min": found.get("ge", found.get("gt")),
        "max": found.get("le", found.get("lt")),
        "min_open": "gt" in found,
        "max_open": "lt" in found,
    }
    return click.IntRange(**ends) if kind is int else click.FloatRange(**ends)


def _listed(_: click.Context, __: click.Parameter, given: Sequence[str]) -> tuple[str, ...]:
    """Return the names of an option that takes several at once, A,B,C, or is repeated."""
    return tuple(name.strip() for text in given for name in text.split(",") if name.strip())


_SEVERAL = {"metavar": "A,B,C", "callback": _listed}
COLUMNS = MappingProxyType({"teacher_columns": _SEVERAL, "number_columns": _SEVERAL})
"""What the table of columns cannot say of its options."""


def runtime_options(*, only: Sequence[str]) -> list[Option]:
    """Return the options of these fields of the table `[runtime]`."""
    from preceptor.config.keywords import Keyword
    from preceptor.config.runtime import Runtime

    keywords = {name: Keyword(Runtime, name) for name in only}
    options = field_options("Runtime", keywords, changed={"store": {"metavar": "DIR"}})
    return [*options, rehash_option()] if "device" in only else options


def rehash_option() -> Option:
    """Return the option that has the files of models hashed again."""
    return Option(
        ["--rehash"],
        is_flag=True,
        expose_value=False,
        callback=_rehash,
        help="Hash the files of models again, though nothing says that they changed.",
        section="Runtime",
    )


def _rehash(context: click.Context, _: click.Parameter, given: bool) -> None:
    if given and not context.resilient_parsing:
        from preceptor.store.identity import forget_digests

        forget_digests()


RANKING = (
    *("store", "device", "max_batch_tokens", "keep_tokens"),
    *("executor", "address", "workers", "worker_cores", "shard"),
)
"""The fields of the runtime that bear on a ranking of ready responses."""


def output_options(what: str = "the rankings", *, html: bool = True) -> list[Option]:
    """Return the options that name the files to write."""
    files = {
        "json": f"Write {what} as JSON; - for standard output.",
        "csv": f"Write {what} as CSV; - for standard output.",
    }
    if html:
        files["html"] = "Write a report with charts and examples as one HTML page."
    return [
        Option(
            [f"--{kind}", f"{kind}_path"],
            metavar="FILE",
            help=text,
            section="Output",
            callback=one_stream,
        )
        for kind, text in files.items()
    ]


def complete_metric(_: click.Context, __: click.Parameter, begun: str) -> list[str]:
    """Return the metrics whose names begin so, for the completion of a shell."""
    from preceptor.ranking.options import METRIC_NAMES

    return [name for name in METRIC_NAMES if name.startswith(begun)]


def log_option() -> Option:
    """Return the option that sends rankings to an experiment tracker."""
    return Option(
        ["--log-to"],
        type=click.Choice(["mlflow", "trackio", "wandb"]),
        help="Log means, P(first) and settings to an experiment tracker, set up by its own variables.",
        section="Output",
    )


def one_stream(context: click.Context, option: click.Parameter, path: str | None) -> str | None:
    """Return the path, and refuse a second output on standard output."""
    before = [value for name, value in context.params.items() if name.endswith("_path")]
    if path == "-" and "-" in before:
        raise click.UsageError(
            "Only one of --json, --csv and --html can go to standard output (-)."
        )
    return path
