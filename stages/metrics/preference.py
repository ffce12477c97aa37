"""The metrics of evaluated pairs, from the columns of pairs.parquet."""

import math

import numpy as np
import polars as pl

from stages.metrics.calibration import expected_calibration_error
from stages.metrics.intervals import gate_interval, mean, wilson
from stages.metrics.lengths import length_metrics
from stages.metrics.paired import paired_difference
from stages.metrics.values import PAIR_VALUES, has_reference, is_given, pair_values

METRICS_VERSION = 3


def preference_metrics(pairs: pl.DataFrame) -> dict[str, float]:
    """All metrics that pairs alone give, flat (stages/metrics/names.py). Shares have `_low` and `_high` (Wilson, 95 %).

    Without a reference only those of RANKING_NAMES. No number depends on the order of the pairs.
    """
    rewards, metrics = has_reference(pairs), {}
    for name, value in PAIR_VALUES.items():
        if is_given(pairs, name):
            values = pair_values(pairs, name)
            metrics[name] = mean(values)
            if value.share:
                metrics[f"{name}_low"], metrics[f"{name}_high"] = wilson(math.fsum(values), len(values))
    if rewards:
        metrics |= _of_rewards(pairs)
    return metrics | length_metrics(pairs)


def _of_rewards(pairs: pl.DataFrame) -> dict[str, float]:
    wins, margins = pair_values(pairs, "reward_accuracy"), pairs["margin"].to_numpy()
    prompts = pairs["prompt_key"].to_list()
    gate_low, gate_high = gate_interval(wins, prompts, share=True)
    low, high = np.quantile(margins, (0.1, 0.9))
    gain = paired_difference(
        pair_values(pairs, "ref_ranking_accuracy"), pair_values(pairs, "ranking_accuracy"), prompts, share=True
    )
    gain_low, gain_high = gain.interval()
    return {
        "reward_accuracy_gate_low": gate_low,
        "reward_accuracy_gate_high": gate_high,
        "ties": float(np.count_nonzero(wins == 0.5)),
        "reward_margin_median": float(np.median(margins)),
        "reward_margin_p10": float(low),
        "reward_margin_p90": float(high),
        "ranking_accuracy_gain": gain.difference,
        "ranking_accuracy_gain_low": gain_low,
        "ranking_accuracy_gain_high": gain_high,
        "ece": expected_calibration_error(margins),
    }
