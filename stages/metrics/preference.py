"""The metrics of a held-out split, from its per-pair records."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from stages.metrics.intervals import clustered_bootstrap, wilson
from stages.metrics.pairwise import PairScores, win

METRICS_VERSION = 1


@dataclass(frozen=True)
class PairRecord:
    """One held-out pair, scored."""

    row: int
    pair_key: str
    prompt_key: str
    scores: PairScores
    n_chosen: int
    n_rejected: int
    loss: float


def preference_metrics(records: Sequence[PairRecord], beta: float) -> dict[str, float]:
    """All metrics, flat. Shares have `_low` and `_high` (Wilson, 95 %); sums are in nats.

    `reward_accuracy_gate_low` and `_high` are the interval that gates look at, clustered by prompt.
    """
    n = len(records)
    wins = [record.scores.win for record in records]
    clusters = [record.prompt_key for record in records]
    margins = np.array([record.scores.margin(beta) for record in records])
    chosen = [record.scores.chosen_reward(beta) for record in records]
    rejected = [record.scores.rejected_reward(beta) for record in records]
    metrics = _share("reward_accuracy", wins)
    metrics["reward_accuracy_gate_low"], metrics["reward_accuracy_gate_high"] = clustered_bootstrap(wins, clusters)
    metrics["ties"] = float(sum(w == 0.5 for w in wins))
    for name, difference in _RANKINGS.items():
        metrics |= _share(name, [win(difference(record)) for record in records])
    metrics["reward_margin"] = math.fsum(margins) / n
    metrics["reward_margin_median"] = float(np.median(margins))
    metrics["reward_margin_p10"], metrics["reward_margin_p90"] = map(float, np.quantile(margins, (0.1, 0.9)))
    metrics["chosen_reward"] = math.fsum(chosen) / n
    metrics["rejected_reward"] = math.fsum(rejected) / n
    metrics["loss"] = math.fsum(record.loss for record in records) / n
    return metrics


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
    "loss",
)


def _share(name: str, wins: Sequence[float]) -> dict[str, float]:
    low, high = wilson(math.fsum(wins), len(wins))
    return {name: math.fsum(wins) / len(wins), f"{name}_low": low, f"{name}_high": high}
