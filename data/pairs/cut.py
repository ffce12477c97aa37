"""Which pairs belong to which split, and how often an epoch visits each."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from data.config import DataConfig
from data.pairs.splits import EVAL, SPLITS, Split, split_of
from data.tokens.token_pairs import PairPart, Positions, TokenPairs


@dataclass(frozen=True)
class Cut:
    """Pairs by split."""

    every: TokenPairs
    """All of them, in the order of their rows."""
    splits: dict[Split, TokenPairs]
    """Each pair once for each row it was read from."""
    visited: dict[Split, TokenPairs]
    """Training pairs as often as an epoch visits them."""
    assigned: npt.NDArray[np.int8]
    """The split of each, as an index of SPLITS."""
    visits: dict[str, int]
    """Training pairs that an epoch visits of each source; only where sources have weights."""


def cut_splits(config: DataConfig, parts: Sequence[PairPart], sources: Sequence[int]) -> Cut:
    """The pairs of these parts, each part of the source with this place in `config.sources`."""
    every = TokenPairs(parts)
    source_of = np.repeat(np.asarray(sources, np.int64), [len(part) for part in parts])
    assigned = _assigned(config, every.column("group").to_numpy(), source_of)
    splits = {split: every.take(np.flatnonzero(assigned == i)) for i, split in enumerate(SPLITS)}
    weights = [source.weight for source, _ in config.sources]
    if all(weight == 1 for weight in weights):
        return Cut(every, splits, splits, assigned, {})
    train = splits["train"].take(_visited(splits["train"], np.array(weights)[source_of[splits["train"].positions]]))
    counts = np.bincount(source_of[train.positions], minlength=len(weights)).tolist()
    visits = {source.name: n for (source, held_out), n in zip(config.sources, counts, strict=True) if not held_out}
    return Cut(every, splits, splits | {"train": train}, assigned, visits)


def _assigned(config: DataConfig, groups: npt.NDArray[np.uint64], source_of: Positions) -> npt.NDArray[np.int8]:
    held_out = np.array([held_out for _, held_out in config.sources])
    return np.where(held_out[source_of], EVAL, split_of(groups, config.held_out_fraction, config.dev_fraction)).astype(
        np.int8
    )


def _visited(train: TokenPairs, weights: npt.NDArray[np.float64]) -> Positions:
    """Places of the training pairs, each as often as an epoch visits it.

    A weight of 2.3 is two visits of every pair, and a third one of those whose key falls into the first 30 %.
    """
    digits = 13  # as many as a float holds
    lots = train.keys.str.slice(0, digits).str.to_integer(base=16).to_numpy() / 16**digits
    return np.repeat(np.arange(len(train)), np.floor(weights).astype(np.int64) + (lots < weights % 1))
