"""Which pairs make up which optimiser step: a function of seed, epoch and the pairs' keys, and of nothing else.

Pairs are sorted by a hash of (seed, epoch, key), so that neither the row order of the source, nor a library's random
generator, nor the point where a run was interrupted can change a step.
"""

import hashlib
from collections import Counter
from collections.abc import Sequence

from data.schema import TokenPair


def epoch_order(pairs: Sequence[TokenPair], seed: int, epoch: int) -> list[TokenPair]:
    """The pairs in the order in which this epoch visits them; a pair that stands twice is visited twice."""
    repeats: Counter[str] = Counter()
    tagged = []
    for pair in pairs:
        tag = f"{seed}|{epoch}|{pair.key}|{repeats[pair.key]}"
        repeats[pair.key] += 1
        tagged.append((hashlib.sha256(tag.encode()).digest(), pair))
    return [pair for _, pair in sorted(tagged, key=lambda entry: entry[0])]


def steps_per_epoch(n_pairs: int, pairs_per_step: int) -> int:
    """Optimiser steps an epoch; the last may hold fewer pairs."""
    return -(-n_pairs // pairs_per_step)


class StepOrder:
    """The pairs of any step, counted from 0 over all epochs."""

    def __init__(self, pairs: Sequence[TokenPair], seed: int, pairs_per_step: int) -> None:
        self._pairs = pairs
        self._seed = seed
        self._pairs_per_step = pairs_per_step
        self._epoch = -1
        self._order: list[TokenPair] = []

    def step(self, step: int) -> list[TokenPair]:
        """The pairs of this step."""
        epoch, offset = divmod(step, steps_per_epoch(len(self._pairs), self._pairs_per_step))
        if epoch != self._epoch:
            self._epoch, self._order = epoch, epoch_order(self._pairs, self._seed, epoch)
        start = offset * self._pairs_per_step
        return self._order[start : start + self._pairs_per_step]
