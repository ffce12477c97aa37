"""Gathering and summing back against torch's own indexing."""

import numpy as np
import pytest
import torch

from stages.scoring.attention.gather import GatherPlan, gather

N_ROWS, N_LIVE, WIDTH = 12, 10, 5
CPU = torch.device("cpu")


def indices(name):
    """Which row stands at each place; row 3 nowhere, rows 10 and 11 are padding."""
    several = np.random.default_rng(0).choice([0, 1, 2, 4, 5, 6, 7, 8, 9, 10, 11], 60)
    return {"several": several, "once": np.array([4, 0, 9]), "padding_only": np.array([11, 10, 11])}[name]


@pytest.mark.parametrize("name", ["several", "once", "padding_only"])
def test_rows_are_summed_back_as_by_index_add(name):
    index = indices(name)
    plan = GatherPlan(index, N_ROWS, N_LIVE, CPU)
    sources = torch.randn(len(index) + 1, WIDTH, generator=torch.Generator().manual_seed(0)).double()
    sources[-1] = 0
    expected = torch.zeros(N_ROWS, WIDTH, dtype=torch.float64).index_add(0, torch.from_numpy(index), sources[:-1])
    expected[N_LIVE:] = 0
    total = plan.sum_back(sources)
    torch.testing.assert_close(total, expected, rtol=1e-14, atol=1e-14)
    assert (total[3] == 0).all() and (total[N_LIVE:] == 0).all()


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-6), (torch.bfloat16, 2**-8)])
def test_gathering_and_its_gradient_are_those_of_indexing(dtype, tolerance):
    index = torch.from_numpy(indices("several"))
    generator = torch.Generator().manual_seed(0)
    rows = torch.randn(N_ROWS, WIDTH, generator=generator).to(dtype).requires_grad_()
    gradient = torch.randn(len(index), WIDTH, generator=generator).to(dtype)
    gathered = gather(rows, GatherPlan(index.numpy(), N_ROWS, N_ROWS, CPU))
    assert torch.equal(gathered, rows[index])
    gathered.backward(gradient)
    exact = torch.zeros(N_ROWS, WIDTH, dtype=torch.float64).index_add(0, index, gradient.double())
    assert rows.grad.dtype == dtype
    torch.testing.assert_close(rows.grad.double(), exact, rtol=tolerance, atol=1e-5)


def test_the_order_of_a_sum_is_the_order_of_its_places():
    """1 + 2**-24 - 1 is 0 in fp32 from the left, and 2**-24 in another order."""
    plan = GatherPlan(np.array([0, 1, 0, 0]), 2, 2, CPU)
    sources = torch.tensor([[1.0], [5.0], [2.0**-24], [-1.0], [0.0]])
    assert plan.sum_back(sources).flatten().tolist() == [0.0, 5.0]


def test_padding_gets_no_gradient():
    rows = torch.ones(4, 2, requires_grad=True)
    gather(rows, GatherPlan(np.array([0, 3, 1, 2, 3]), 4, 3, CPU)).sum().backward()
    assert rows.grad.tolist() == [[1, 1], [1, 1], [1, 1], [0, 0]]
