"""Where scored tokens are predicted, and what lengths are rounded up to."""

import numpy as np
import pytest
import torch

from stages.scoring.layout import GRANULE, make_layout, token_multiple
from tests.families import make_response


@pytest.mark.parametrize(("n", "multiple"), [(1, 64), (2, 64), (3, 192), (6, 192)])
def test_every_threads_share_fills_whole_vectors(threads, n, multiple):
    threads(n)
    assert token_multiple() == multiple


@pytest.mark.parametrize("n", [1, 2, 3])
def test_a_row_has_the_same_bits_wherever_it_stands(threads, n):
    """Of three threads' shares of 256 rows, two end inside a vector, and the rest of it goes another way."""
    threads(n)
    row = torch.randn(1, 128, generator=torch.Generator().manual_seed(0)) * 2
    for length in range(token_multiple(), 1000, token_multiple()):
        out = torch.nn.functional.gelu(row.repeat(length, 1), approximate="tanh")
        assert (out == out[0]).all()


def test_a_layout_by_hand():
    """Two responses in a row of eight tokens.

    token           1 | 4 5 6 | 2 | 7 8 | .
    place           0 | 1 2 3 | 4 | 5 6 | 7
    scored              x   x         x
    predicted from      0   2         5
    """
    responses = [make_response([1], [4, 5, 6], [1, 0, 1]), make_response([2], [7, 8], [0, 1])]
    ids = np.array([[1, 4, 5, 6, 2, 7, 8, 0]])
    layout = make_layout(responses, [np.array([0, 1, 2]), np.array([4, 5])], ids, ids + 1, None, torch.device("cpu"))
    assert layout.positions.tolist() == [0, 2, 5] + [0] * 61
    assert layout.targets.tolist() == [4, 6, 8] + [0] * 61
    assert layout.owners.tolist() == [0, 0, 1]
    assert layout.places.tolist() == [0, 1, 0]
    assert (layout.n_responses, layout.most_scored) == (2, 2)
    assert torch.equal(layout.position_ids, layout.input_ids + 1)


@pytest.mark.parametrize("n", [1, 63, 64, 65, 128])
def test_positions_are_rounded_up_and_owners_are_not(n):
    one = make_response([1], range(n))
    ids = np.zeros((1, n + 1), dtype=np.int64)
    layout = make_layout([one], [np.arange(n)], ids, None, None, torch.device("cpu"))
    assert len(layout.positions) == len(layout.targets) == -(-n // GRANULE) * GRANULE
    assert len(layout.owners) == len(layout.places) == n
    assert layout.position_ids is None
    assert {tensor.dtype for tensor in (layout.positions, layout.targets, layout.owners)} == {torch.int64}
