"""What is kept of each evaluated pair, and the table of eval/pairs.parquet."""

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass

import polars as pl
import pyarrow as pa

from data.parquet import as_frame
from stages.metrics.pairwise import PairScores

_SCORES = (
    "pair_key",
    "row",
    "policy_chosen_logps",
    "policy_rejected_logps",
    "ref_chosen_logps",
    "ref_rejected_logps",
    "chosen_reward",
    "rejected_reward",
    "margin",
    "n_chosen",
    "n_rejected",
    "loss",
    "prompt_key",
)


@dataclass(frozen=True)
class PairRecord:
    """One held-out pair, scored."""

    row: int
    pair_key: str
    prompt_key: str
    scores: PairScores
    n_chosen: int
    n_rejected: int
    loss: float | None
    """None where the objective reads a reference and there is none."""


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
            "loss": pa.array([r.loss for r in records], pa.float64()),
            "prompt_key": [r.prompt_key for r in records],
        }
    )


def records_frame(records: Sequence[PairRecord], beta: float) -> pl.DataFrame:
    """The same as a frame, which metrics are computed from."""
    return as_frame(records_table(records, beta))


def with_facts(scores: pl.DataFrame, facts: pl.DataFrame) -> pl.DataFrame:
    """The scores of pairs, in the order of their keys, beside what is known of them, joined by key.

    `facts` (pair_key, row, ...) has a row for each pair and takes the place of what stood beside the scores before.
    Pairs of one key have the same scores, and each has its own facts.
    """
    if facts.is_empty():
        return scores.sort("pair_key", "row")
    own, known = (_numbered(frame) for frame in (scores.select(_SCORES), facts))
    joined = own.drop("row").join(known, on=["pair_key", "nth"], how="inner", maintain_order="left").drop("nth")
    assert joined.height == scores.height == facts.height
    return joined


def _numbered(frame: pl.DataFrame) -> pl.DataFrame:
    """In the order of keys and rows, with the place of each among those of its key."""
    return frame.sort("pair_key", "row").with_columns(nth=pl.int_range(pl.len()).over("pair_key"))


def scores_digest(pairs: pl.DataFrame) -> str:
    """sha256 over the scores of pairs, whatever their order and the rows of the source that they stand in."""
    digest = hashlib.sha256()
    scores = pairs.select(name for name in _SCORES if name != "row").sort("pair_key", "loss")
    for column in scores.iter_columns():
        text = column.dtype == pl.String
        digest.update(
            "\n".join(column).encode() if text else column.cast(pl.Float64).fill_null(math.nan).to_numpy().tobytes()
        )
    return digest.hexdigest()
