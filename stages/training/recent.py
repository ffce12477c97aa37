"""Means over the last steps: one step is a few pairs, and its accuracy says little."""

import math
from collections import deque
from collections.abc import Iterable, Mapping
from statistics import fmean
from typing import Any

STEPS = 20  # 320 pairs at the default pairs_per_step: a share is known to 0.03

Line = Mapping[str, Any]
"""A line of metrics.jsonl."""


def mean_of(lines: Iterable[Line], name: str) -> float | None:
    """Mean over the lines that have such a figure; a step that was skipped has null or not a number."""
    values = [line[name] for line in lines if line.get(name) is not None and math.isfinite(line[name])]
    return fmean(values) if values else None


class Recent:
    """The lines of the last STEPS steps."""

    def __init__(self) -> None:
        self._lines: deque[Line] = deque(maxlen=STEPS)

    def add(self, line: Line) -> None:
        """Take the next step's line in, and the oldest out."""
        self._lines.append(line)

    @property
    def full(self) -> bool:
        """Whether there have been STEPS steps."""
        return len(self._lines) == STEPS

    def mean(self, name: str) -> float | None:
        """Mean over steps; None where no step has such a figure."""
        return mean_of(self._lines, name)
