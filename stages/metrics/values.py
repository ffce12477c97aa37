"""What a single pair contributes to each metric that is a mean over pairs: the one definition of all of them.

A metric is the mean of its values; a slice the mean of some of them; a comparison the mean of their differences.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt
import polars as pl

Floats = npt.NDArray[np.float64]
Side = Literal["chosen", "rejected"]


@dataclass(frozen=True)
class PairValue:
    """A value of each pair of an evaluation, from the columns of its pairs.parquet."""

    of: pl.Expr
    better: Literal["higher", "lower"] | None = None
    """Which way a policy improves; None: neither is better by itself."""
    share: bool = False
    """Whether the value is 1, 0, or one half for a tie."""
    reference: bool = True
    """Whether it takes the reference's log-probs."""
    depends_on: tuple[Literal["reference", "beta", "objective"], ...] = ()
    """What two evaluations must have in common for their values to be of the same kind."""


def win(difference: pl.Expr) -> pl.Expr:
    """1, 0, or one half for a tie; what is not a number has not won (polars has it above all numbers)."""
    return pl.when(difference == 0).then(0.5).otherwise((difference.fill_nan(-1.0) > 0).cast(pl.Float64))


def _logps(model: str, side: Side) -> pl.Expr:
    return pl.col(f"{model}_{side}_logps")


def _per_token(model: str, side: Side) -> pl.Expr:
    return _logps(model, side) / pl.col(f"n_{side}")


def _log_ratio(side: Side) -> pl.Expr:
    """Log pi - log ref a scored token, in nats; no KL: the responses were not sampled from the policy."""
    return (_logps("policy", side) - _logps("ref", side)) / pl.col(f"n_{side}")


_MARGIN = pl.col("margin")
_SURPRISE = (-_MARGIN).clip(lower_bound=0.0) + (-_MARGIN.abs()).exp().log1p()  # -log sigmoid(margin), never infinite
_REWARD: tuple[Literal["reference", "beta"], ...] = ("reference", "beta")

PAIR_VALUES: dict[str, PairValue] = {
    "reward_accuracy": PairValue(win(_MARGIN), "higher", share=True, depends_on=("reference",)),
    "reward_margin": PairValue(_MARGIN, "higher", depends_on=_REWARD),
    "chosen_reward": PairValue(pl.col("chosen_reward"), depends_on=_REWARD),
    "rejected_reward": PairValue(pl.col("rejected_reward"), depends_on=_REWARD),
    "brier": PairValue((1 + _MARGIN.exp()) ** -2, "lower", depends_on=_REWARD),
    "log_loss": PairValue(_SURPRISE, "lower", depends_on=_REWARD),
    "drift": PairValue((_log_ratio("chosen").abs() + _log_ratio("rejected").abs()) / 2, depends_on=("reference",)),
    "drift_chosen": PairValue(_log_ratio("chosen"), depends_on=("reference",)),
    "drift_rejected": PairValue(_log_ratio("rejected"), depends_on=("reference",)),
    **{
        f"{prefix}ranking_accuracy{suffix}": PairValue(
            win(logps(model, "chosen") - logps(model, "rejected")), "higher", share=True, reference=model == "ref"
        )
        for prefix, model in (("", "policy"), ("ref_", "ref"))
        for suffix, logps in (("", _logps), ("_normalized", _per_token))
    },
    **{
        f"{prefix}{side}_nll": PairValue(
            -_per_token(model, side), "lower" if side == "chosen" else None, reference=model == "ref"
        )
        for prefix, model in (("", "policy"), ("ref_", "ref"))
        for side in ("chosen", "rejected")
    },
    "loss": PairValue(pl.col("loss"), "lower", reference=False, depends_on=("objective",)),
}
"""By metric. Rewards are beta (log pi - log ref); sigmoid(margin) is the probability that they give to the chosen
response, which `brier` (Brier 1950) and `log_loss` judge, the label always being 1."""


def has_reference(pairs: pl.DataFrame) -> bool:
    """Whether these pairs were scored against a reference."""
    return pairs["margin"].null_count() < pairs.height


def is_given(pairs: pl.DataFrame, metric: str) -> bool:
    """Whether these pairs have what the metric is made of."""
    return bool(pairs.select(PAIR_VALUES[metric].of.is_not_null().any()).item())


def pair_values(pairs: pl.DataFrame, metric: str) -> Floats:
    """The metric's value of each pair.

    Raises:
        KeyError: it is no mean over pairs.
    """
    return pairs.select(PAIR_VALUES[metric].of.cast(pl.Float64).alias("value"))["value"].to_numpy()
