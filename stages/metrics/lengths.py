"""How much of a policy's preference is length: accuracy where length helps, where it misleads, and where it is level.

Lengths are in scored tokens, and a pair's difference is chosen less rejected.
"""

import math
from typing import Any

import numpy as np
import polars as pl

from stages.metrics.strata import named_share, strata
from stages.metrics.values import Floats, has_reference, pair_values, win

_MOST_STRATA = 5
_SIDES = {"chosen_longer": 1, "chosen_shorter": -1, "equal_length": 0}
_DIFFERENCE = pl.col("n_chosen").cast(pl.Int64) - pl.col("n_rejected").cast(pl.Int64)


def length_metrics(frame: pl.DataFrame) -> dict[str, float]:
    """Metrics of the columns margin, n_chosen, n_rejected: what the pairs do not give is absent.

    `length_baseline` is the accuracy of a judge that prefers the longer response; it alone needs no reference.
    """
    if frame.is_empty():
        return {}
    metrics = {"length_baseline": float(frame.select(win(_DIFFERENCE).mean()).item())}
    if not has_reference(frame):
        return metrics
    difference, wins = _differences(frame), pair_values(frame, "reward_accuracy")
    for side, sign in _SIDES.items():
        of_side = wins[np.sign(difference) == sign]
        if len(of_side):
            metrics |= named_share(f"reward_accuracy_{side}", float(of_side.mean()), len(of_side))
    correlation = _spearman(pair_values(frame, "reward_margin"), difference)
    if correlation is not None:
        metrics["margin_length_correlation"] = correlation
    weights = _matched_weights(difference)
    if weights.any():
        # Weights are worth as many pairs as equal ones whose mean is as certain (Kish 1965, section 8.2).
        total = math.fsum(weights)
        n = total**2 / math.fsum(weights**2)
        metrics |= named_share("reward_accuracy_length_matched", math.fsum(weights * wins) / total, n)
    return metrics


def length_strata(frame: pl.DataFrame) -> list[dict[str, Any]]:
    """Accuracy by the difference of lengths, in at most five strata; `low` and `high` are the ends that occur."""
    if frame.is_empty() or not has_reference(frame):
        return []
    difference, wins = _differences(frame), pair_values(frame, "reward_accuracy")
    stratum = strata(difference, _MOST_STRATA)
    rows: list[dict[str, Any]] = []
    for i in range(int(stratum.max()) + 1):
        inside = stratum == i
        n = int(inside.sum())
        ends = {"low": int(difference[inside].min()), "high": int(difference[inside].max()), "n": n}
        rows.append(ends | named_share("reward_accuracy", float(wins[inside].mean()), n))
    return rows


def _matched_weights(difference: Floats) -> Floats:
    """How much each pair counts where length is to tell nothing: (N,).

    Pairs are put into strata by the size of their difference. In each, as many with the longer side chosen as with the
    shorter one are drawn, of the kind that there is more of at random; a pair's weight is how likely it is drawn.
    Pairs without a difference all are.
    """
    weights: Floats = (difference == 0).astype(np.float64)
    unequal = np.flatnonzero(difference)
    stratum = strata(np.abs(difference[unequal]), _MOST_STRATA)
    longer = difference[unequal] > 0
    for i in np.unique(stratum):
        sides = [unequal[(stratum == i) & (longer == is_longer)] for is_longer in (True, False)]
        drawn = min(map(len, sides))
        for side in sides:
            weights[side] = drawn / max(len(side), 1)
    return weights


def _spearman(margins: Floats, difference: Floats) -> float | None:
    """Spearman's rank correlation; None where either side is constant."""
    if len(np.unique(margins)) < 2 or len(np.unique(difference)) < 2:
        return None
    from scipy.stats import spearmanr  # half a second of import, for this one number

    return float(spearmanr(margins, difference).statistic)


def _differences(frame: pl.DataFrame) -> Floats:
    return frame.select(_DIFFERENCE.cast(pl.Float64).alias("difference"))["difference"].to_numpy()
