"""The metrics of a held-out split, from its per-pair records."""

import math
from collections.abc import Callable, Sequence

import numpy as np

from stages.metrics.intervals import clustered_bootstrap, wilson
from stages.metrics.pairwise import win
from stages.metrics.records import PairRecord

METRICS_VERSION = 2


def preference_metrics(records: Sequence[PairRecord], beta: float, *, rewards: bool = True) -> dict[str, float]:
    """All metrics, flat. Shares have `_low` and `_high` (Wilson, 95 %); sums are in nats.

    `reward_accuracy_gate_low` and `_high` are the interval that gates look at, clustered by prompt. Without `rewards`
    (an objective that reads no reference) only RANKING_NAMES.
    """
    metrics = _reward_metrics(records, beta) if rewards else {}
    for name, difference in _RANKINGS.items():
        if rewards or not name.startswith("ref_"):
            metrics |= _share(name, [win(difference(record)) for record in records])
    return metrics | {"loss": math.fsum(record.loss for record in records) / len(records)}


def _reward_metrics(records: Sequence[PairRecord], beta: float) -> dict[str, float]:
    n = len(records)
    wins = [record.scores.win for record in records]
    margins = np.array([record.scores.margin(beta) for record in records])
    metrics = _share("reward_accuracy", wins)
    metrics["reward_accuracy_gate_low"], metrics["reward_accuracy_gate_high"] = clustered_bootstrap(
        wins, [record.prompt_key for record in records]
    )
    metrics["ties"] = float(sum(w == 0.5 for w in wins))
    metrics["reward_margin"] = math.fsum(margins) / n
    metrics["reward_margin_median"] = float(np.median(margins))
    metrics["reward_margin_p10"], metrics["reward_margin_p90"] = map(float, np.quantile(margins, (0.1, 0.9)))
    metrics["chosen_reward"] = math.fsum(record.scores.chosen_reward(beta) for record in records) / n
    metrics["rejected_reward"] = math.fsum(record.scores.rejected_reward(beta) for record in records) / n
    return metrics | _drift(records)


def _drift(records: Sequence[PairRecord]) -> dict[str, float]:
    """Log pi - log ref a scored token, in nats: how far apart they are, and which way each side went.

    No KL: the responses were not sampled from the policy.
    """
    n = len(records)
    chosen = [record.scores.chosen_reward(1.0) / record.n_chosen for record in records]
    rejected = [record.scores.rejected_reward(1.0) / record.n_rejected for record in records]
    return {
        "drift": math.fsum(map(abs, chosen + rejected)) / (2 * n),
        "drift_chosen": math.fsum(chosen) / n,
        "drift_rejected": math.fsum(rejected) / n,
    }


# log pi(y+) - log pi(y-), without the reference: the honest before and after
_RANKINGS: dict[str, Callable[[PairRecord], float]] = {
    "ranking_accuracy": lambda r: r.scores.policy_chosen - r.scores.policy_rejected,
    "ranking_accuracy_normalized": lambda r: (
        r.scores.policy_chosen / r.n_chosen - r.scores.policy_rejected / r.n_rejected
    ),
    "ref_ranking_accuracy": lambda r: r.scores.ref_chosen - r.scores.ref_rejected,
    "ref_ranking_accuracy_normalized": lambda r: (
        r.scores.ref_chosen / r.n_chosen - r.scores.ref_rejected / r.n_rejected
    ),
}

_SHARES = ("reward_accuracy", *_RANKINGS)
METRIC_NAMES = (
    *(name + suffix for name in _SHARES for suffix in ("", "_low", "_high")),
    "reward_accuracy_gate_low",
    "reward_accuracy_gate_high",
    "ties",
    "reward_margin",
    "reward_margin_median",
    "reward_margin_p10",
    "reward_margin_p90",
    "chosen_reward",
    "rejected_reward",
    "drift",
    "drift_chosen",
    "drift_rejected",
    "loss",
)
RANKING_NAMES = tuple(name for name in METRIC_NAMES if name.startswith("ranking") or name == "loss")
"""What there is without a reference."""


def _share(name: str, wins: Sequence[float]) -> dict[str, float]:
    low, high = wilson(math.fsum(wins), len(wins))
    return {name: math.fsum(wins) / len(wins), f"{name}_low": low, f"{name}_high": high}
