"""What people see of a run while it trains, and at its end."""

from collections.abc import Sequence
from typing import Any

from stages.training.recent import STEPS, Line, Recent, mean_of

_MEANS = {
    "loss": ("loss", "{:.4f}"),
    "accuracy": ("rewards/accuracies", "{:.2f}"),
    "margin": ("rewards/margins", "{:+.3f}"),
    "tokens/s": ("tokens_per_second", "{:,.0f}"),
    "MFU": ("mfu", "{:.1%}"),
}
_LATEST = {
    "dev accuracy": ("dev/reward_accuracy", 1.0, "{:.3f}"),
    "memory": ("peak_memory_bytes", 1e-9, "{:.1f} GB"),
}
_COMPARED = ("loss", "rewards/accuracies", "rewards/margins")


class Figures:
    """What stands beside the progress bar: means over the last steps, and the latest of what is no mean."""

    def __init__(self) -> None:
        self._recent = Recent()
        self._latest: dict[str, float] = {}

    def add(self, line: Line) -> None:
        """Take the next step in."""
        self._recent.add(line)
        self._latest |= {key: line[key] for key, _, _ in _LATEST.values() if key in line}

    def shown(self) -> dict[str, str]:
        """By the name on the screen; what a run does not have is absent."""
        means = {name: (self._recent.mean(key), form) for name, (key, form) in _MEANS.items()}
        latest = {name: form.format(self._latest[k] * s) for name, (k, s, form) in _LATEST.items() if k in self._latest}
        return {name: form.format(mean) for name, (mean, form) in means.items() if mean is not None} | latest


def first_and_last(lines: Sequence[Line]) -> dict[str, Any]:
    """How a run began and ended: means over its first and last steps, at most STEPS and half of all, for its report."""
    n = min(STEPS, len(lines) // 2)
    if n == 0:
        return {}
    ends = {"first_steps": lines[:n], "last_steps": lines[-n:]}
    return {
        end: {"steps": n} | {name: mean for name in _COMPARED if (mean := mean_of(part, name)) is not None}
        for end, part in ends.items()
    }
