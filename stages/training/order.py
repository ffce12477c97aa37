"""Which pairs make up which optimiser step: a function of seed, epoch and the pairs' keys, and of nothing else.

Pairs are sorted by a hash of (seed, epoch, key), so that neither the row order of the source, nor a library's random
generator, nor the point where a run was interrupted can change a step.
"""

import hashlib
from collections import Counter
from collections.abc import Sequence

from data.schema import TokenPair
from data.tokens.token_pairs import TokenPairs


def epoch_order(pair_keys: Sequence[str], seed: int, epoch: int) -> list[int]:
    """The places of the pairs in the order in which this epoch visits them; one that stands twice is visited twice."""
    repeats: Counter[str] = Counter()
    tagged = []
    for place, key in enumerate(pair_keys):
        tag = f"{seed}|{epoch}|{key}|{repeats[key]}"
        repeats[key] += 1
        tagged.append((hashlib.sha256(tag.encode()).digest(), place))
    return [place for _, place in sorted(tagged)]


def steps_per_epoch(n_pairs: int, pairs_per_step: int) -> int:
    """Optimiser steps an epoch; the last may hold fewer pairs."""
    return -(-n_pairs // pairs_per_step)


class StepOrder:
    """The pairs of any step, counted from 0 over all epochs."""

    def __init__(self, pairs: TokenPairs, seed: int, pairs_per_step: int) -> None:
        self._pairs = pairs
        self._keys = pairs.keys.to_list()
        self._seed = seed
        self._pairs_per_step = pairs_per_step
        self._epoch = -1
        self._order: list[int] = []

    def step(self, step: int) -> list[TokenPair]:
        """The pairs of this step."""
        epoch, offset = divmod(step, steps_per_epoch(len(self._pairs), self._pairs_per_step))
        if epoch != self._epoch:
            self._epoch, self._order = epoch, epoch_order(self._keys, self._seed, epoch)
        start = offset * self._pairs_per_step
        return [self._pairs[place] for place in self._order[start : start + self._pairs_per_step]]
