"""Where labels go beside the marks of a picture, so that they lie on nothing else as far as there is room."""

from collections.abc import Iterator, Sequence
from itertools import product
from typing import NamedTuple

Point = tuple[float, float]

_MARK = 5.0  # half the room that a mark takes, in points
_DISTANCES = (8.0, 14.0, 22.0, 32.0, 44.0, 60.0, 80.0)  # from the mark to the near edge of its label
_DIRECTIONS = ((1.0, 0.0), (0.7, 0.7), (0.7, -0.7), (0.9, 0.4), (0.9, -0.4), (0.3, 0.95), (0.3, -0.95))
_ON_MARK_OR_LABEL, _OUTSIDE, _ON_BAR = 1000.0, 500.0, 20.0  # as many points further away are better


class Box(NamedTuple):
    """A rectangle, in points."""

    left: float
    bottom: float
    right: float
    top: float

    def overlaps(self, other: "Box") -> bool:
        """Whether they share an area."""
        across = self.left < other.right and other.left < self.right
        return across and self.bottom < other.top and other.bottom < self.top

    def within(self, other: "Box") -> bool:
        """Whether no part of it is outside the other."""
        across = other.left <= self.left and self.right <= other.right
        return across and other.bottom <= self.bottom and self.top <= other.top


class Label(NamedTuple):
    """A label's rectangle, and whether its text begins at the left edge (else it ends at the right one)."""

    box: Box
    to_the_right: bool
    distance: float
    """From the mark."""


def place_labels(marks: Sequence[Point], sizes: Sequence[Point], bars: Sequence[Box], frame: Box) -> list[Label]:
    """A label of each size (width, height) beside each mark: one after the other, each where it costs least."""
    solid = [Box(x - _MARK, y - _MARK, x + _MARK, y + _MARK) for x, y in marks]
    placed: list[Label] = []
    for mark, size in zip(marks, sizes, strict=True):
        best = min(_candidates(mark, size), key=lambda label: _cost(label, solid, bars, frame))
        solid.append(best.box)
        placed.append(best)
    return placed


def _candidates(mark: Point, size: Point) -> Iterator[Label]:
    width, height = size
    for distance, (across, up), side in product(_DISTANCES, _DIRECTIONS, (1, -1)):
        x, y = mark[0] + distance * across * side, mark[1] + distance * up
        left = x if side > 0 else x - width
        yield Label(Box(left, y - height / 2, left + width, y + height / 2), side > 0, distance)


def _cost(label: Label, solid: Sequence[Box], bars: Sequence[Box], frame: Box) -> float:
    on_mark_or_label = sum(label.box.overlaps(other) for other in solid)
    on_bar = sum(label.box.overlaps(bar) for bar in bars)
    outside = 0 if label.box.within(frame) else 1
    return label.distance + _ON_MARK_OR_LABEL * on_mark_or_label + _ON_BAR * on_bar + _OUTSIDE * outside
