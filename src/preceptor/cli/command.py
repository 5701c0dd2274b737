"""The classes of commands: help in groups, the nearest name of what is misspelt, no tracebacks."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import click
from click.shell_completion import CompletionItem

from preceptor.cli.output import keep_command
from preceptor.cli.streams import Interrupted, ending_quietly, stoppable
from preceptor.errors import EXTRAS, MissingPackage, PreceptorError, nearest

SECTIONS: Mapping[str, tuple[str, ...]] = {
    "Rank teachers": ("init", "rank", "demo", "run", "plan", "report", "tokens"),
    "Collect responses": ("list", "instructions", "generate"),
    "Train a student": ("export", "train"),
    "Check a prediction": ("evaluate", "ability", "agreement", "studies"),
    "Look after the store": ("store",),
}
"""The commands of the program by what they are for, in the order of the help."""

Field = tuple[type, str]
"""A table and the name of one of its fields."""


class _Text(click.types.StringParamType):
    """A text, for which a shell offers files: most texts of this program are files, folders or models."""

    def shell_complete(
        self, ctx: click.Context, param: click.Parameter, incomplete: str
    ) -> list[CompletionItem]:
        """Leave the choice to the shell."""
        return [CompletionItem(incomplete, type="file")]


class Option(click.Option):
    """An option that stands in the help under the heading of its section, and the field that it sets."""

    def __init__(
        self, *names: Any, section: str = "Options", sets: Field | None = None, **settings: Any
    ) -> None:
        super().__init__(*names, **settings)
        self.section = section
        self.sets = sets


class Command(click.Command):
    """A command whose options stand in sections.

    `made` returns its parameters, after those that are declared; it is called when they are first needed.
    """

    def __init__(
        self, *settings: Any, made: Callable[[], Sequence[click.Parameter]] = tuple, **named: Any
    ) -> None:
        super().__init__(*settings, **named)
        self._made: Callable[[], Sequence[click.Parameter]] | None = made

    def get_params(self, ctx: click.Context) -> list[click.Parameter]:
        """Return all parameters of the command."""
        if self._made is not None:
            self.params = [*self.params, *self._made()]
            self._made = None
            for one in self.params:
                if type(one.type) is click.types.StringParamType:
                    one.type = _Text()
        if ctx.auto_envvar_prefix:
            for one in self.params:
                if isinstance(one, click.Option) and not one.envvar:
                    one.envvar = _variable(ctx.auto_envvar_prefix, one)
        return super().get_params(ctx)

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Read the words; an unknown option is a usage error that has the nearest name."""
        try:
            left = super().parse_args(ctx, args)
        except click.NoSuchOption as error:
            known = {
                name for one in self.get_params(ctx) for name in (*one.opts, *one.secondary_opts)
            }
            raise _unknown("option", error.option_name, known, ctx) from error
        if not ctx.resilient_parsing:  # as for the completion of a shell
            _require_places(ctx)
        return left

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the options under the headings of their sections."""
        sections: dict[str, list[tuple[str, str]]] = {}
        for one in self.get_params(ctx):
            record = one.get_help_record(ctx) if isinstance(one, click.Option) else None
            if record is not None:
                sections.setdefault(getattr(one, "section", "Options"), []).append(record)
        # What is common to many commands, such as --help, stands last.
        for name in sorted(sections, key=lambda name: name == "Options"):
            with formatter.section(name):
                formatter.write_dl(sections[name])


def _variable(prefix: str, option: click.Option) -> str:
    """Return the environment variable of an option: by what is typed, whatever it is called inside."""
    typed = max(option.opts, key=len)
    return f"{prefix}_{typed.lstrip('-').replace('-', '_').upper()}"


class Group(click.Group):
    """A group of commands, named in full where one is misspelt."""

    command_class = Command
    sections: Mapping[str, Sequence[str]] | None = None

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Return the command; an unknown one is a usage error that has the nearest name."""
        name = args[0]
        if self.get_command(ctx, name) is None and not name.startswith("-"):
            raise _unknown("command", name, self.list_commands(ctx), ctx)
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the commands with their whole summaries, in sections where there are some."""
        sections = self.sections or {"Commands": self.list_commands(ctx)}
        limit = formatter.width
        for heading, names in sections.items():
            commands = {name: self.get_command(ctx, name) for name in names}
            with formatter.section(heading):
                formatter.write_dl(
                    [(n, one.get_short_help_str(limit)) for n, one in commands.items() if one]
                )


class Program(Group):
    """The whole program: prints the package's own errors without a traceback, and keeps interrupts short."""

    sections = SECTIONS

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Remember the words for `typed_command`, and read them."""
        keep_command(ctx, args)
        return super().parse_args(ctx, args)

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command; an error that a user is meant to read becomes click's."""
        try:
            with ending_quietly(), stoppable(), _naming_extras(ctx):
                return super().invoke(ctx)
        except PreceptorError as error:
            from preceptor.ranking.table import printable

            # Errors quote names of files, columns and models, which may hold anything.
            lines = map(printable, str(error).split("\n"))
            raise click.ClickException("\n".join(lines)) from error
        except KeyboardInterrupt as error:
            raise Interrupted(
                "interrupted; what was computed is stored. Run the same command to go on."
            ) from error


@contextmanager
def _naming_extras(ctx: click.Context) -> Iterator[None]:
    """Say what to install where a module that a plain install lacks is imported unasked for."""
    try:
        yield
    except ModuleNotFoundError as error:
        module = (error.name or "").partition(".")[0]
        if module not in EXTRAS:
            raise
        raise MissingPackage(module, purpose=f"preceptor {ctx.invoked_subcommand}") from error


def _require_places(ctx: click.Context) -> None:
    """Refuse a file to write that has no folder, before any work is done for it."""
    files = [path for name, path in ctx.params.items() if name.endswith("_path")]
    for path in files:
        if path not in (None, "-"):
            from preceptor.store.files import require_place

            require_place(path)


def _unknown(what: str, name: str, known: Iterable[str], ctx: click.Context) -> click.UsageError:
    """Return the error for a name that does not exist, with the nearest."""
    return click.UsageError(f"No such {what} '{name}'.{nearest(name, known)}", ctx)
