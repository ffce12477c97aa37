"""Which pairs made a step's loss, and which stand out of a whole run: what visits.parquet is asked.

A loss is compared with the mean of its step, because all of them fall as a run goes on: the excess. Where no loss of a
step is finite, the model was broken before and the step says nothing about single pairs.
"""

import polars as pl

_LOSS = pl.col("loss")
_EXCESS = (_LOSS.fill_nan(float("inf")) - pl.col("step_loss")).alias("excess")


def visits_of_step(visits: pl.LazyFrame, step: int) -> pl.DataFrame:
    """The visits of a step with their excess, the largest loss first (one that is not finite before all others)."""
    return _ordered(_with_excess(visits.filter(pl.col("step") == step))).collect()


def worst_pairs(visits: pl.LazyFrame) -> pl.DataFrame:
    """Each row of the sources with its last visit, `visits` and its mean `excess` over them, the largest first."""
    last = pl.exclude("pair_key", "source", "line", "excess", "step_loss").last()
    rows = _with_excess(visits).group_by("pair_key", "source", "line")
    return _ordered(rows.agg(last, pl.col("excess").mean(), pl.len().alias("visits"))).collect()


def _with_excess(visits: pl.LazyFrame) -> pl.LazyFrame:
    step_loss = _LOSS.filter(_LOSS.is_finite()).mean().over("step").alias("step_loss")
    return visits.with_columns(step_loss).with_columns(_EXCESS)


def _ordered(rows: pl.LazyFrame) -> pl.LazyFrame:
    order = ["excess", "source", "line", "pair_key"]
    return rows.sort(order, descending=[True, False, False, False], nulls_last=True)
