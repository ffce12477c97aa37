"""Gates: limits on metrics, and on how far they may have moved, that decide whether a policy passes."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

from stages.metrics.paired import PairedDifference

Kind = Literal["min", "max", "max_drop", "max_rise"]
Verdict = Literal["passed", "failed", "inconclusive"]


@dataclass(frozen=True)
class Gate:
    """One limit, what was held against it, and what came of it."""

    metric: str
    kind: Kind
    limit: float
    verdict: Verdict
    measured_on: str
    """Name of what `value` is."""
    value: float | None
    """The end of the interval that decides, or the metric itself where it has none; None: nothing to compare with
    yet."""
    point: float | None
    """The metric, or how far it has moved."""
    against: str | None = None
    """`baseline` or `anchor`; None: nothing."""
    name: str | None = None
    """Which run or folder that is."""
    level: float | None = None
    """Of the interval, for comparisons."""
    low: float | None = None
    high: float | None = None

    @property
    def passed(self) -> bool:
        """Whether it lets the policy pass: what is inconclusive does."""
        return self.verdict != "failed"

    def document(self) -> dict[str, Any]:
        """As it stands in metrics.json."""
        return asdict(self) | {"passed": self.passed}


def judge_bounds(
    metrics: Mapping[str, float],
    minima: Mapping[str, float],
    maxima: Mapping[str, float],
    intervals: Mapping[str, tuple[float, float]],
    *,
    point: bool,
) -> list[Gate]:
    """Limits on the metrics, held against the strict end of an interval (`intervals`, else `_low` and `_high`).

    Raises:
        KeyError: a metric that does not exist: a gate is never passed for lack of a number.
    """
    gates = []
    kinds: tuple[tuple[Kind, Mapping[str, float], int], ...] = (("min", minima, 0), ("max", maxima, 1))
    for kind, limits, end in kinds:
        for metric, limit in limits.items():
            name, value = (metric, metrics[metric]) if point else _strict(metrics, intervals, metric, end)
            passed = value >= limit if kind == "min" else value <= limit
            gates.append(Gate(metric, kind, limit, "passed" if passed else "failed", name, value, metrics[metric]))
    return gates


def _strict(
    metrics: Mapping[str, float], intervals: Mapping[str, tuple[float, float]], metric: str, end: int
) -> tuple[str, float]:
    value = metrics[metric]
    side = ("low", "high")[end]
    if metric in intervals:
        return f"{metric}_gate_{side}", intervals[metric][end]
    if f"{metric}_{side}" in metrics:
        return f"{metric}_{side}", metrics[f"{metric}_{side}"]
    return metric, value


@dataclass(frozen=True)
class Change:
    """How far a metric has moved from what it is compared with, and how sure a limit on it has to be."""

    against: str
    """`baseline` or `anchor`."""
    name: str
    found: PairedDifference | None
    """None: there is nothing to compare with yet."""
    level: float
    seed_sd: float = 0.0
    n_before: int = 1

    def interval(self) -> tuple[float, float]:
        """Of after less before."""
        assert self.found is not None
        return self.found.interval(self.level, self.seed_sd, self.n_before)


def judge_change(metric: str, kind: Literal["max_drop", "max_rise"], limit: float, change: Change) -> Gate:
    """A limit on a drop or rise: failed where the whole interval lies above it, passed where the whole lies below.

    In between nothing is known: inconclusive. Without anything to compare with it is, too.
    """
    name, against, level = change.name, change.against, change.level
    moved = f"{'drop' if kind == 'max_drop' else 'rise'} of {metric}"
    if change.found is None:
        return Gate(metric, kind, limit, "inconclusive", moved, None, None, against, name, level)
    (low, high), point = change.interval(), change.found.difference
    if kind == "max_drop":
        low, high, point = -high, -low, -point
    verdict: Verdict = "failed" if low > limit else "passed" if high <= limit else "inconclusive"
    value = low if verdict == "failed" else high
    return Gate(metric, kind, limit, verdict, moved, value, point, against, name, level, low, high)


def overall(gates: list[Gate]) -> Verdict:
    """Failed where one gate is, otherwise inconclusive where one is, otherwise passed."""
    verdicts = {gate.verdict for gate in gates}
    return "failed" if "failed" in verdicts else "inconclusive" if "inconclusive" in verdicts else "passed"
