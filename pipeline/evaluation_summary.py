"""An evaluation as a few lines for people: the figures, what they are compared with, and the verdict of each gate."""

from collections.abc import Iterator, Sequence
from itertools import groupby
from typing import Any

_METRIC_ROWS = (
    ("ranking accuracy of the reference", "ref_ranking_accuracy"),
    ("ranking accuracy of the policy", "ranking_accuracy"),
    ("reward accuracy of the policy", "reward_accuracy"),
)
_BOUNDS = {"min": "at least {:g} is wanted", "max": "at most {:g} is wanted"}


def evaluation_table(document: dict[str, Any]) -> str:
    """The lines of `pipeline eval`."""
    metrics = document["metrics"]
    lines = [f"{document['n_pairs']} held-out pairs{'':<24}value   95 % interval"]
    for label, name in _METRIC_ROWS:
        if name in metrics:  # without a reference some are not
            value, low, high = (metrics[name + suffix] for suffix in ("", "_low", "_high"))
            lines.append(f"  {label:<35}{value:>7.3f}   {low:.3f} to {high:.3f}")
    if "reward_margin" in metrics:
        median = metrics["reward_margin_median"]
        lines.append(f"  {'reward margin':<35}{metrics['reward_margin']:>+7.3f}   (median {median:+.3f})")
    if "loss" in metrics:
        lines.append(f"  {'loss':<35}{metrics['loss']:>7.3f}")
    lines += _comparisons(document["comparisons"])
    lines += [f"gate {_word(gate)}: {gate_sentence(gate)}" for gate in document["gates"]]
    lines += [f"{name}: {path}" for name, path in document["outputs"].items()]
    return "\n".join(lines)


def gate_sentence(gate: dict[str, Any]) -> str:
    """What was held against which limit."""
    if gate["kind"] in _BOUNDS:
        of = "" if gate["measured_on"] == gate["metric"] else f" ({gate['metric']} is {gate['point']:.4g})"
        return f"{gate['measured_on']} is {gate['value']:.4f}{of}, {_BOUNDS[gate['kind']].format(gate['limit'])}"
    if gate["value"] is None:
        return f"{gate['measured_on']} is not known, for nothing passed before; at most {gate['limit']:g} is wanted"
    point, low, high = (f"{round(gate[name], 4) + 0.0:+.4f}" for name in ("point", "low", "high"))  # no minus zero
    return (
        f"{gate['measured_on']} against the {gate['against']} {gate['name']} is {point}, between {low} and {high}; at "
        f"most {gate['limit']:g} is wanted"
    )


def _comparisons(comparisons: Sequence[dict[str, Any]]) -> Iterator[str]:
    """What the policy is held against, and how far each accuracy has moved from there."""
    shown = [each for each in comparisons if each["metric"] in ("ranking_accuracy", "reward_accuracy")]
    for (against, name), found in groupby(shown, key=lambda each: (each["against"], each["name"])):
        yield f"against the {against}{'' if name == against else f' {name}'}"
        for each in found:
            interval = f"{each['low']:+.3f} to {each['high']:+.3f}"
            label = each["metric"].replace("_", " ")
            yield f"  {label:<35}{each['difference'] + 0.0:>+7.3f}   {interval}   {each['verdict']}"


def _word(gate: dict[str, Any]) -> str:
    return {"passed": "passed", "failed": "FAILED", "inconclusive": "INCONCLUSIVE"}[gate["verdict"]]
