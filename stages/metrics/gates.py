"""Gates: bounds on metrics that decide whether a policy passes."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal


@dataclass(frozen=True)
class Gate:
    """One bound, the value that was held against it, and what came of it."""

    metric: str
    kind: Literal["min", "max"]
    limit: float
    value: float
    """The bound of the metric's interval on the strict side where it has one, otherwise the metric."""
    measured_on: str
    """Name of the metric that `value` is."""
    passed: bool

    def document(self) -> dict[str, Any]:
        """As it stands in metrics.json."""
        return asdict(self)

    def __str__(self) -> str:
        """A line for people."""
        relation = ">=" if self.kind == "min" else "<="
        return (
            f"{'passed' if self.passed else 'FAILED'}: {self.measured_on} = {self.value:.4f}, "
            f"wanted {relation} {self.limit:g}"
        )


def judge(metrics: Mapping[str, float], minima: Mapping[str, float], maxima: Mapping[str, float]) -> list[Gate]:
    """Every gate, judged on the strict bound of its metric's interval (clustered by prompt where there is one).

    Raises:
        KeyError: a metric that does not exist: a gate is never passed for lack of a number.
    """
    gates = []
    for metric, limit in minima.items():
        name = _strict(metrics, metric, "low")
        gates.append(Gate(metric, "min", limit, metrics[name], name, metrics[name] >= limit))
    for metric, limit in maxima.items():
        name = _strict(metrics, metric, "high")
        gates.append(Gate(metric, "max", limit, metrics[name], name, metrics[name] <= limit))
    return gates


def _strict(metrics: Mapping[str, float], metric: str, side: str) -> str:
    for name in (f"{metric}_gate_{side}", f"{metric}_{side}"):
        if name in metrics:
            return name
    return metric
