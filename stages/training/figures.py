"""What people see of a run while it trains, and at its end."""

from collections.abc import Mapping, Sequence
from statistics import fmean

from stages.training.recent import STEPS, Recent

_SHOWN = {
    "loss": ("loss", "{:.4f}"),
    "accuracy": ("rewards/accuracies", "{:.2f}"),
    "margin": ("rewards/margins", "{:+.3f}"),
    "tokens/s": ("tokens_per_second", "{:,.0f}"),
    "MFU": ("mfu", "{:.1%}"),
}
_COMPARED = ("loss", "rewards/accuracies", "rewards/margins")


def shown_figures(recent: Recent, peak_memory_bytes: float) -> dict[str, str]:
    """What stands beside the bar, by its name there: means over the last steps, and the memory of all."""
    means = {name: (recent.mean(key), form) for name, (key, form) in _SHOWN.items()}
    figures = {name: form.format(mean) for name, (mean, form) in means.items() if mean is not None}
    return figures | {"memory": f"{peak_memory_bytes / 1e9:.1f} GB"}


def first_and_last(lines: Sequence[Mapping[str, float]]) -> dict[str, dict[str, float]]:
    """How a run began and how it ended: means over its first and last steps, for its report.

    As many steps as are averaged while it trains, or half of them all.
    """
    n = min(STEPS, len(lines) // 2)
    if n == 0:
        return {}
    names = [name for name in _COMPARED if name in lines[0]]
    ends = {"first_steps": lines[:n], "last_steps": lines[-n:]}
    return {
        end: {"steps": n} | {name: fmean(line[name] for line in part) for name in names} for end, part in ends.items()
    }
