"""Where labels go, so that they neither cover each other nor leave the plot.

The one idea: places are found once, in pixels of a plot of nominal size, and travel with the data as
offsets from their marks; a wider plot only draws the marks apart. First come, first served: the best
teacher has its label's first choice.
"""

from collections.abc import Sequence
from itertools import product
from typing import NamedTuple

CHARACTER = 6.2
"""Pixels of a character at 11 pixels; a little more than most fonts need."""

LINE = 13.0
"""Pixels of a label's height."""

MARK = 7.0
"""Pixels around the middle of a mark that labels keep off."""


REACH = 40.0
"""Pixels above and below a mark within which all places for its label lie."""


class Box(NamedTuple):
    """A rectangle in pixels, y downwards."""

    left: float
    top: float
    right: float
    bottom: float

    def overlap(self, other: "Box") -> float:
        """Return the area that both cover."""
        wide = min(self.right, other.right) - max(self.left, other.left)
        high = min(self.bottom, other.bottom) - max(self.top, other.top)
        return max(wide, 0.0) * max(high, 0.0)

    @property
    def area(self) -> float:
        """The rectangle's own area."""
        return (self.right - self.left) * (self.bottom - self.top)


class Offset(NamedTuple):
    """A label's place: pixels from its mark to the middle of its `side` edge, as Vega's align."""

    text: str
    dx: float
    dy: float
    side: str


_CHOICES: tuple[tuple[float, float, str], ...] = tuple(
    (sideways, dy, side)
    for reach in (0.0, 7.0, 14.0)
    for (sideways, side), dy in product(
        ((6.0, "left"), (-6.0, "right"), (0.0, "center")),
        (-9.0 - reach, 9.0 + reach, -14.0 - reach, 14.0 + reach),
    )
    if side != "center" or abs(dy) > 12
)


def place_labels(
    points: Sequence[tuple[float, float]],
    texts: Sequence[tuple[str, str]],
    *,
    width: float,
    height: float,
    lines: Sequence[Box] = (),
) -> list[Offset]:
    """Return a label for each point (x, y), in pixels from the plot's top left.

    Each text is given twice: in full, and short for where every place would cover another label. Among the
    places that cover the least of labels, of marks, and of `lines`, the nearest is taken.
    """
    plot = Box(0.0, 0.0, width, height)
    marks = [Box(x - MARK, y - MARK, x + MARK, y + MARK) for x, y in points]
    taken: list[Box] = []
    found = []
    for point, (text, short) in zip(points, texts, strict=True):
        best = _cheapest(point, text, taken, (*marks, *lines), plot)
        if best.covered:
            best = _cheapest(point, short, taken, (*marks, *lines), plot)
        found.append(Offset(best.text, *_CHOICES[best.order]))
        taken.append(best.box)
    return found


class _Candidate(NamedTuple):
    cost: float
    order: int
    covered: float
    box: Box
    text: str


def _cheapest(
    point: tuple[float, float],
    text: str,
    taken: Sequence[Box],
    obstacles: Sequence[Box],
    plot: Box,
) -> _Candidate:
    (x, y), length = point, len(text) * CHARACTER
    reach = Box(x - length - LINE, y - REACH, x + length + LINE, y + REACH)
    taken = [box for box in taken if reach.overlap(box)]
    obstacles = [box for box in obstacles if reach.overlap(box)]
    found = []
    for order, choice in enumerate(_CHOICES):
        box = _box(point, choice, length)
        covered = sum(box.overlap(other) for other in taken)
        outside = box.area - box.overlap(plot)
        cost = 10 * covered + 3 * outside + 2 * sum(map(box.overlap, obstacles)) + 5 * order
        found.append(_Candidate(cost, order, covered, box, text))
    return min(found)


def _box(point: tuple[float, float], choice: tuple[float, float, str], length: float) -> Box:
    (x, y), (dx, dy, side) = point, choice
    left = x + dx - {"left": 0.0, "center": length / 2, "right": length}[side]
    return Box(left, y + dy - LINE / 2, left + length, y + dy + LINE / 2)


def spread_out(places: Sequence[float], *, gap: float) -> list[float]:
    """Return places as near as can be to those given, in the same order, at least `gap` apart.

    Neighbours that are too close become a group about their mean (pool adjacent violators).
    """
    order = sorted(range(len(places)), key=lambda one: places[one])
    groups: list[list[float]] = []
    for step, one in enumerate(order):
        # With the steps taken out, "at least gap apart" is "not falling".
        groups.append([places[one] - gap * step])
        while len(groups) > 1 and _mean(groups[-2]) > _mean(groups[-1]):
            groups[-2:] = [groups[-2] + groups[-1]]
    level = [_mean(group) for group in groups for _ in group]
    found = [0.0] * len(places)
    for step, one in enumerate(order):
        found[one] = level[step] + gap * step
    return found


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)
