"""An environment in which a chat template, which may come from anywhere, cannot hang or fill the memory.

Jinja's sandbox keeps a template from Python's objects, but not from a loop of 10^15 turns or a text doubled
forty times. Here every turn of a loop and every call of a macro is counted, and texts stay below a bound.
"""

import secrets
from collections.abc import Callable
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

# Names that no template can know, so that none can put something else in their place.
_STEP, _JOIN = (f"preceptor_{secrets.token_hex(8)}" for _ in range(2))


class BoundedEnvironment(ImmutableSandboxedEnvironment):
    """Jinja's sandbox with bounds; `bounded` compiles, `text_of` renders."""

    intercepted_binops = frozenset({"*", "**", "+"})

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.globals[_JOIN] = _join
        self.filters = {name: _with_small_numbers(one) for name, one in self.filters.items()}

    def bounded(self, source: str) -> Template:
        """Return the compiled template, whose loops and macros count their turns."""
        tree = _Bounding().visit(self.parse(source))
        for block in tree.find_all((nodes.For, nodes.Macro, nodes.CallBlock)):
            block.body.insert(0, nodes.ExprStmt(_call(_STEP, [])))
        template: Template = self.from_string(tree)
        return template

    def call_binop(self, context: Context, operator: str, left: Any, right: Any) -> Any:
        """Refuse a product or power whose result would be large before it is computed."""
        sized = (str, list, tuple)
        if operator == "**":
            _require(abs(left) <= MOST_CHARACTERS and abs(right) <= 64)
        elif operator == "*":
            for one, times in ((left, right), (right, left)):
                if isinstance(one, sized) and isinstance(times, int):
                    _require(len(one) * times <= MOST_CHARACTERS)
        elif isinstance(left, sized) and isinstance(right, sized):
            _require(len(left) + len(right) <= MOST_CHARACTERS)
        return super().call_binop(context, operator, left, right)

    def call(self, __context: Context, __obj: Any, *args: Any, **kwargs: Any) -> Any:
        """Call what a template calls, unless a number is so large that it can only be meant to harm."""
        _require_small(args, kwargs)
        return super().call(__context, __obj, *args, **kwargs)


def text_of(template: Template, **values: Any) -> str:
    """Return what the template gives; TemplateRuntimeError where it takes too many steps or is too long."""
    taken = 0

    def step() -> None:
        nonlocal taken
        taken += 1
        _require(taken <= MOST_STEPS)

    pieces, length = [], 0
    for piece in template.generate(**values, **{_STEP: step}):
        length += len(piece)
        _require(length <= MOST_CHARACTERS)
        pieces.append(piece)
    return "".join(pieces)


class _Bounding(NodeTransformer):
    """Gives joined texts (`~`) a bound."""

    def visit_Concat(self, node: nodes.Concat) -> nodes.Node:
        self.generic_visit(node)
        return _call(_JOIN, node.nodes)


def _call(name: str, arguments: list[nodes.Expr]) -> nodes.Call:
    return nodes.Call(nodes.Name(name, "load"), arguments, [], None, None)


def _join(*parts: object) -> str:
    texts = [str(part) for part in parts]
    _require(sum(map(len, texts)) <= MOST_CHARACTERS)
    return "".join(texts)


def _with_small_numbers(function: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(function)
    def bounded(*args: Any, **kwargs: Any) -> Any:
        _require_small(args, kwargs)
        return function(*args, **kwargs)

    return bounded


def _require_small(args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
    for value in (*args, *kwargs.values()):
        _require(not isinstance(value, int) or abs(value) <= MOST_CHARACTERS)


def _require(within: bool) -> None:
    if not within:
        raise TemplateRuntimeError(
            f"it takes more than {MOST_STEPS:,} steps or {MOST_CHARACTERS:,} characters"
        )
