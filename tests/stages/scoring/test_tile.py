"""What is made of a tile: plain and compiled alike, whatever its size, and the tile itself left alone."""

import pytest
import torch
from torch._dynamo.utils import counters

from stages.scoring.tile import PLAIN, Finish, TileFunctions, compiled

FINISHES = [Finish(), Finish(scale=0.25), Finish(softcap=2.0), Finish(1.5, 2.0)]
SIZES = [(23, 50), (24, 50), (40, 40), (7, 19)]


def tile(n_rows, n_words, *, with_bias=True):
    """Products, bias, targets (some in other tiles), and how the rows count."""
    generator = torch.Generator().manual_seed(n_rows)
    products = 3 * torch.randn(n_rows, n_words, generator=generator)
    bias = torch.randn(n_words, generator=generator) if with_bias else None
    targets = torch.randint(-n_words, 2 * n_words, (n_rows,), generator=generator)
    targets[:4] = torch.tensor([-1, 0, n_words - 1, n_words])
    return products, bias, targets, torch.linspace(-1, 2, n_rows)


def results(functions: TileFunctions, size, finish, dtype=torch.float32, *, with_bias=True):
    """Everything that both functions return, in one list."""
    products, bias, targets, counts = tile(*size, with_bias=with_bias)
    before = products.clone()
    sums = functions.sums(products, bias, targets, finish, True)
    gradients = functions.gradient(products, bias, targets, sums.log_sum + 1, counts, finish, dtype)
    assert torch.equal(products, before)
    return [*sums, *(part for part in gradients if part is not None)]


@pytest.fixture
def traced():
    """The compiled functions, run as they are traced, with no graphs from before."""
    torch._dynamo.reset()
    counters.clear()
    compiled.cache_clear()
    with torch._dynamo.config.patch(fail_on_recompile_limit_hit=True):
        yield compiled("eager")
    compiled.cache_clear()


@pytest.mark.parametrize("finish", FINISHES, ids=str)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_compiled_functions_compute_what_plain_ones_do(traced, finish, dtype):
    for size in SIZES:
        for with_bias in (True, False):
            ours, plain = (results(each, size, finish, dtype, with_bias=with_bias) for each in (traced, PLAIN))
            assert [part.dtype for part in ours] == [part.dtype for part in plain]
            torch.testing.assert_close(ours, plain, rtol=1e-5, atol=1e-6)


def test_one_graph_serves_tiles_of_any_size(traced):
    results(traced, (23, 50), Finish())
    first = counters["stats"]["unique_graphs"]
    for n_rows in (24, 31, 64, 200):
        results(traced, (n_rows, 50 + n_rows), Finish())
    assert counters["stats"]["unique_graphs"] == first == 2


@pytest.mark.parametrize("finish", FINISHES, ids=str)
def test_the_gradient_is_that_of_the_log_probs(finish):
    """By autograd, in fp64: of the target's logit, where the tile has it, less the log-sum-exp of all tiles."""
    products, bias, targets, counts = tile(23, 50)
    assert bias is not None
    leaves = [tensor.double().requires_grad_() for tensor in (products, bias)]
    elsewhere = torch.linspace(1, 3, 23).double()  # the log-sum-exp of the other tiles
    sums = PLAIN.sums(*leaves, targets, finish, False)
    normaliser = torch.logaddexp(sums.log_sum, elsewhere)
    expected = torch.autograd.grad(((sums.target - normaliser) * counts).sum(), leaves)
    found = PLAIN.gradient(products, bias, targets, normaliser.detach().float(), counts, finish, torch.float32)
    torch.testing.assert_close([part.double() for part in found], list(expected), rtol=1e-5, atol=1e-6)


@pytest.mark.real  # for the compiler's seconds
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of the compiler itself
def test_what_the_compiler_makes_of_them_agrees():
    compiled.cache_clear()
    for size in SIZES[:2]:
        for finish in (FINISHES[0], FINISHES[3]):
            ours, plain = (results(each, size, finish) for each in (compiled("inductor"), PLAIN))
            torch.testing.assert_close(ours, plain, rtol=1e-4, atol=1e-5)
    compiled.cache_clear()
