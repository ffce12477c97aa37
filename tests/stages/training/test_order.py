"""The order of pairs is a function of seed, epoch and keys, and of nothing else."""

import numpy as np

from data.schema import Response, TokenPair
from data.tokens.token_pairs import TokenPairs
from stages.training.order import StepOrder, epoch_order, steps_per_epoch


def make_pairs(n: int) -> TokenPairs:
    prompt = np.array([1], dtype=np.int32)

    def side(token: int) -> Response:
        return Response(prompt, np.array([token], dtype=np.int32), np.array([True]))

    return TokenPairs.of(TokenPair(i, f"x:{i}", side(2 * i), side(2 * i + 1)) for i in range(n))


def visited(pairs: TokenPairs, seed: int, epoch: int) -> list[str]:
    """The keys in the order of an epoch."""
    keys = pairs.keys.to_list()
    return [keys[place] for place in epoch_order(keys, seed, epoch)]


def test_row_order_does_not_matter():
    pairs = make_pairs(30)
    assert visited(pairs, 0, 0) == visited(pairs[::-1], 0, 0)


def test_seed_and_epoch_matter():
    pairs = make_pairs(30)
    orders = {tuple(visited(pairs, seed, epoch)) for seed in (0, 1) for epoch in (0, 1)}
    assert len(orders) == 4


def test_each_epoch_visits_every_pair_once_and_a_repeated_row_twice():
    pairs = make_pairs(11).take([*range(11), 3])
    order = StepOrder(pairs, seed=7, pairs_per_step=5)
    assert steps_per_epoch(len(pairs), 5) == 3
    for epoch in (0, 1):
        found = [pair.key for step in range(3) for pair in order.step(epoch * 3 + step)]
        assert sorted(found) == sorted(pair.key for pair in pairs)


def test_a_step_is_the_same_whatever_was_asked_before():
    pairs = make_pairs(12)
    forward = StepOrder(pairs, seed=1, pairs_per_step=4)
    steps = [[pair.key for pair in forward.step(step)] for step in range(6)]
    assert [pair.key for pair in StepOrder(pairs, seed=1, pairs_per_step=4).step(4)] == steps[4]
    assert [pair.key for pair in forward.step(1)] == steps[1]


def test_new_pairs_keep_the_relative_order_of_old_ones():
    pairs = make_pairs(20)
    old = {pair.key for pair in pairs[:15]}
    assert [key for key in visited(pairs, 0, 0) if key in old] == visited(pairs[:15], 0, 0)
