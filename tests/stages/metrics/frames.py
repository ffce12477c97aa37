"""Evaluated pairs as the metrics take them, from their sums of log-probs."""

from collections.abc import Sequence

import polars as pl

from stages.metrics.pairwise import PairScores
from stages.metrics.records import PairRecord, records_frame


def record(row: int, scores: PairScores, prompt: str = "", lengths: tuple[int, int] = (2, 4)) -> PairRecord:
    """A pair of a prompt of its own, unless `prompt` says otherwise."""
    return PairRecord(row, f"key{row}", prompt or f"prompt{row}", scores, *lengths, loss=0.5 + row)


def frame(scores: Sequence[PairScores], beta: float = 0.1) -> pl.DataFrame:
    """Pairs with these scores."""
    return records_frame([record(row, each) for row, each in enumerate(scores)], beta)
