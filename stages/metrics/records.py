"""What is kept of each evaluated pair, and the table of eval/pairs.parquet."""

from collections.abc import Sequence
from dataclasses import dataclass

import pyarrow as pa

from stages.metrics.pairwise import PairScores


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


def records_table(records: Sequence[PairRecord], beta: float) -> pa.Table:
    """A row for each record; null is what takes a reference where there is none."""
    reference = {
        "ref_chosen_logps": [r.scores.ref_chosen for r in records],
        "ref_rejected_logps": [r.scores.ref_rejected for r in records],
        "chosen_reward": [r.scores.chosen_reward(beta) for r in records],
        "rejected_reward": [r.scores.rejected_reward(beta) for r in records],
        "margin": [r.scores.margin(beta) for r in records],
    }
    return pa.table(
        {
            "pair_key": [r.pair_key for r in records],
            "row": [r.row for r in records],
            "policy_chosen_logps": [r.scores.policy_chosen for r in records],
            "policy_rejected_logps": [r.scores.policy_rejected for r in records],
            **{name: pa.array(values, pa.float64(), from_pandas=True) for name, values in reference.items()},
            "n_chosen": [r.n_chosen for r in records],
            "n_rejected": [r.n_rejected for r in records],
            "loss": [r.loss for r in records],
            "prompt_key": [r.prompt_key for r in records],
        }
    )
