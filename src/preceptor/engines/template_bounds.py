"""An environment in which a chat template, which may come from anywhere, cannot hang or fill the memory.

Jinja's sandbox keeps a template from Python's objects, but not from a loop of 10^15 turns or a text doubled
forty times. Here every turn of a loop and every call of a macro is counted, and what can make a text or a
number much larger is asked how large before it does. Nothing is left to chance either.
"""

import re
import secrets
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from functools import wraps
from typing import Any

from jinja2 import Template, nodes
from jinja2.exceptions import TemplateRuntimeError
from jinja2.runtime import Context
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.visitor import NodeTransformer

MOST_STEPS = 200_000
MOST_CHARACTERS = 20_000_000
"""What one rendering may take; a conversation of a thousand turns takes some thousand steps."""

_MOST_MADE = 10 * MOST_CHARACTERS
_MOST_SECONDS = 5.0
_LOOK_AT_THE_CLOCK = 1000

_MOST_BITS = 4096
_LEFT_OUT = ("random", "urlize", "xmlattr", "pprint")
_WIDTH = re.compile(r"[0-9]+|%[-+ #0]*\*")
_NESTED = re.compile(r"\{[^{}]*\{[^{}]*\}")

# Names that no template can know, so that none can put something else in their place.
_STEP, _JOIN = (f"preceptor_{secrets.token_hex(8)}" for _ in range(2))


class BoundedEnvironment(ImmutableSandboxedEnvironment):
    """Jinja's sandbox with bounds; `bounded` compiles, `text_of` renders."""

    intercepted_binops = frozenset({"*", "**", "+", "-", "%"})

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.globals[_JOIN] = _join
        self.globals.pop("lipsum")
        kept = {name: one for name, one in self.filters.items() if name not in _LEFT_OUT}
        self.filters = {name: bounded_filter(name, one) for name, one in kept.items()}
        self.finalize = _printable

    def bounded(self, source: str) -> Template:
        """Return the compiled template, whose loops and macros count their turns."""
        tree = _Bounding().visit(self.parse(source))
        for block in tree.find_all((nodes.For, nodes.Macro, nodes.CallBlock)):
            block.body.insert(0, nodes.ExprStmt(_call(_STEP, [])))
        with _budget():  # filters of constants are carried out now
            template: Template = self.from_string(tree)
        return template

    def call_binop(self, context: Context, operator: str, left: Any, right: Any) -> Any:
        """Refuse a product or power whose result would be large before it is computed."""
        sized = (str, list, tuple)
        for one in (left, right):
            _require(not isinstance(one, int) or one.bit_length() <= _MOST_BITS)
        if operator == "%":
            _require(not isinstance(left, str) or _format_growth(left) <= MOST_CHARACTERS)
        elif operator == "**":
            _require(abs(left) <= MOST_CHARACTERS and abs(right) <= 64)
        elif operator == "*":
            for one, times in ((left, right), (right, left)):
                if isinstance(one, sized) and isinstance(times, int):
                    _require(len(one) * times <= MOST_CHARACTERS)
        elif operator == "+" and isinstance(left, sized) and isinstance(right, sized):
            _require(len(left) + len(right) <= MOST_CHARACTERS)
        return _spent(super().call_binop(context, operator, left, right))

    def call(self, __context: Context, __obj: Any, *args: Any, **kwargs: Any) -> Any:
        """Call what a template calls, unless a number is so large that it can only be meant to harm."""
        _require_small(args, kwargs)
        method = getattr(__obj, "__wrapped__", __obj)  # the sandbox wraps `format`
        of, name = getattr(method, "__self__", None), getattr(method, "__name__", "")
        if isinstance(of, str) and name in _GROWTH:
            _require(_GROWTH[name](of, *args, **kwargs) <= MOST_CHARACTERS)
        return _spent(super().call(__context, __obj, *args, **kwargs))


def text_of(template: Template, **values: Any) -> str:
    """Return what the template gives; TemplateRuntimeError where it takes too many steps or is too long."""
    pieces, length = [], 0
    with _budget() as budget:
        for piece in template.generate(**values, **{_STEP: budget.step}):
            length += len(piece)
            _require(length <= MOST_CHARACTERS)
            pieces.append(piece)
    return "".join(pieces)


class _Budget:
    """What a rendering has taken so far: turns of loops, and signs and entries of what it made."""

    def __init__(self) -> None:
        self.steps = self.made = self.seen = 0
        self.until = time.thread_time() + _MOST_SECONDS

    def step(self) -> None:
        """Take one turn of a loop."""
        self.steps += 1
        _require(self.steps <= MOST_STEPS)
        self.make(_LOOK_AT_THE_CLOCK // 50)  # a turn may search a long text, and makes little

    def make(self, size: int) -> None:
        """Make something of this size."""
        self.made += size
        if self.made > self.seen + _LOOK_AT_THE_CLOCK:
            self.seen = self.made
            _require(self.made <= _MOST_MADE and time.thread_time() <= self.until)


_BUDGET: ContextVar[_Budget] = ContextVar("budget")


@contextmanager
def _budget() -> Iterator[_Budget]:
    token = _BUDGET.set(budget := _Budget())
    try:
        yield budget
    finally:
        _BUDGET.reset(token)


def _spent(value: Any) -> Any:
    _BUDGET.get().make(len(value) if isinstance(value, str | list | tuple | dict) else 1)
    return value


class _Bounding(NodeTransformer):
    """Gives joined texts (`~`) a bound."""

    def visit_Concat(self, node: nodes.Concat) -> nodes.Node:
        self.generic_visit(node)
        return _call(_JOIN, node.nodes)


def _call(name: str, arguments: list[nodes.Expr]) -> nodes.Call:
    return nodes.Call(nodes.Name(name, "load"), arguments, [], None, None)


def _join(*parts: object) -> str:
    texts = [str(_printable(part)) for part in parts]
    _require(sum(map(len, texts)) <= MOST_CHARACTERS)
    return str(_spent("".join(texts)))


def _printable(value: Any) -> Any:
    """Return a value as it is, unless it would print as a text that is too long."""
    left, waiting, taken = MOST_CHARACTERS, [value], 0
    while waiting:
        one, taken = waiting.pop(), taken + 1
        if isinstance(one, str):
            left -= len(one)
        elif isinstance(one, Mapping):
            waiting += [*one.keys(), *one.values()]
        elif isinstance(one, list | tuple):
            waiting += one
        _require(left >= 0 and taken + len(waiting) <= MOST_STEPS)
    return value


def bounded_filter(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
    """Return a filter that first asks how large its result may be."""

    @wraps(function)
    def bounded(*args: Any, **kwargs: Any) -> Any:
        _require_small(args, kwargs)
        # jinja2 gives some filters the environment or the context before the value.
        given = args[1:] if hasattr(function, "jinja_pass_arg") else args
        if name in ("string", "join", "tojson"):
            _printable(given[0])
        if name in _GROWTH:
            _require(_GROWTH[name](*given, **kwargs) <= MOST_CHARACTERS)
        return _spent(function(*args, **kwargs))

    return bounded


def _replace_growth(text: Any, old: Any = "", new: Any = "", *_: Any, **__: Any) -> int:
    return (len(str(text)) // max(1, len(str(old))) + 1) * len(str(new))


def _join_growth(one: Any, other: Any = "", *_: Any, **given: Any) -> int:
    sizes = [len(part) for part in (one, given.get("d", other)) if hasattr(part, "__len__")]
    return sizes[0] * sizes[1] if len(sizes) == 2 else MOST_STEPS


def _indent_growth(text: Any, width: Any = 4, *_: Any, **__: Any) -> int:
    return (str(text).count("\n") + 1) * (len(width) if isinstance(width, str) else int(width))


def _translate_growth(text: str, table: Any) -> int:
    parts = table.values() if isinstance(table, Mapping) else table
    return len(text) * max((len(part) for part in parts if isinstance(part, str)), default=1)


def _format_growth(text: Any, *_: Any, **__: Any) -> int:
    if _NESTED.search(str(text)):
        return MOST_CHARACTERS + 1
    widths = _WIDTH.findall(str(text))
    return sum(
        int(width) if len(width) < 9 and "*" not in width else MOST_CHARACTERS + 1
        for width in widths
    )


_GROWTH: Mapping[str, Callable[..., int]] = {
    "replace": _replace_growth,
    "join": _join_growth,
    "indent": _indent_growth,
    "wordwrap": lambda text, *_, wrapstring=None, **__: len(str(text)) * len(wrapstring or " "),
    "expandtabs": lambda text, size=8: text.count("\t") * size,
    "translate": _translate_growth,
    "format": _format_growth,
    "format_map": _format_growth,
    "tojson": lambda _, indent=0, **__: (
        1000 * (len(indent) if isinstance(indent, str) else indent or 0)
    ),
}
"""About how many characters a method or filter of this name may add at most."""


def _require_small(args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
    for value in (*args, *kwargs.values()):
        _require(not isinstance(value, int) or abs(value) <= MOST_CHARACTERS)


def _require(within: bool) -> None:
    if not within:
        raise TemplateRuntimeError(
            f"it takes more than {MOST_STEPS:,} steps, {MOST_CHARACTERS:,} characters or {_MOST_SECONDS:g} s"
        )
