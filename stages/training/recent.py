"""Means over the last steps: one step is a few pairs, and its accuracy says little."""

from collections import deque
from collections.abc import Mapping
from statistics import fmean

STEPS = 20  # 320 pairs at the default pairs_per_step: a share is known to 0.03


class Recent:
    """The lines of metrics.jsonl of the last STEPS steps."""

    def __init__(self) -> None:
        self._lines: deque[Mapping[str, float]] = deque(maxlen=STEPS)

    def add(self, metrics: Mapping[str, float]) -> None:
        """Take the next step's line in, and the oldest out."""
        self._lines.append(metrics)

    @property
    def full(self) -> bool:
        """Whether there have been STEPS steps."""
        return len(self._lines) == STEPS

    def mean(self, name: str) -> float | None:
        """Mean over steps; None where a step has no such figure."""
        values = [line[name] for line in self._lines if name in line]
        return fmean(values) if values and len(values) == len(self._lines) else None
