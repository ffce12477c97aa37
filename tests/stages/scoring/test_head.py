"""The head against a log-softmax in fp64: values and gradients, tile by tile, kept or computed again."""

import weakref

import pytest
import torch

from stages.scoring.head import OutputLayer, _Tiles, logits_collisions, logits_logps, token_scores
from tests.families import relative_difference

M, V, D = 23, 50, 16
FINISHES = {"plain": {}, "scaled": {"scale": 0.25}, "capped": {"softcap": 2.0}, "both": {"scale": 1.5, "softcap": 2.0}}
SMALL_TILES = {"TILE_ROWS": 5, "TILE_TOKENS": 7}


def inputs(dtype=torch.float32, with_bias=True):
    generator = torch.Generator().manual_seed(0)
    hidden, weight, bias = (torch.randn(shape, generator=generator) for shape in ((M, D), (V, D), (V,)))
    tensors = [tensor.to(dtype).requires_grad_() for tensor in (hidden, weight, bias)[: 3 if with_bias else 2]]
    targets = torch.randint(V, (M,), generator=generator)
    targets[:6] = torch.tensor([0, 6, 7, 13, V - 2, V - 1])  # the edges of tiles
    return tensors, targets


def exact_logps(hidden, targets, layer: OutputLayer):
    """In fp64, from the given numbers."""
    logits = hidden.double() @ layer.weight.double().T
    if layer.bias is not None:
        logits = logits + layer.bias.double()
    logits = logits * layer.scale
    if layer.softcap is not None:
        logits = layer.softcap * torch.tanh(logits / layer.softcap)
    return torch.log_softmax(logits, -1)[torch.arange(len(targets)), targets]


def token_logps(hidden, targets, layer: OutputLayer):
    return token_scores(hidden, targets, layer).logps


def values_and_gradients(function, tensors, targets, finish):
    """The log-probs, and the gradients of a weighted sum of them by each of the tensors."""
    leaves = [tensor.detach().clone().requires_grad_(tensor.requires_grad) for tensor in tensors]
    logps = function(leaves[0], targets, OutputLayer(*leaves[1:], **finish))
    logps.backward(torch.linspace(-1, 2, len(targets)).to(logps.dtype))
    return logps.detach(), [leaf.grad for leaf in leaves]


@pytest.fixture(params=[{}, SMALL_TILES], ids=["one_tile", "many_tiles"])
def tiles(request, monkeypatch):
    for name, size in request.param.items():
        monkeypatch.setattr(f"stages.scoring.head.{name}", size)


@pytest.mark.parametrize("with_bias", [False, True])
@pytest.mark.parametrize("finish", FINISHES.values(), ids=FINISHES)
def test_values_and_gradients_are_those_of_a_log_softmax(tiles, finish, with_bias):
    tensors, targets = inputs(with_bias=with_bias)
    ours, to_ours = values_and_gradients(token_logps, tensors, targets, finish)
    exact, to_exact = values_and_gradients(exact_logps, tensors, targets, finish)
    assert ours.dtype == torch.float32
    torch.testing.assert_close(ours.double(), exact, atol=1e-5, rtol=0)
    assert len(to_ours) == (3 if with_bias else 2)
    for mine, theirs in zip(to_ours, to_exact, strict=True):
        assert relative_difference(mine, theirs) < 1e-6


@pytest.mark.parametrize("finish", FINISHES.values(), ids=FINISHES)
def test_bf16_inputs_are_multiplied_exactly(tiles, finish):
    """Log-probs are as good as with fp32 inputs; a gradient is rounded once, at the end."""
    tensors, targets = inputs(torch.bfloat16)
    ours, to_ours = values_and_gradients(token_logps, tensors, targets, finish)
    in_fp64 = [tensor.detach().double().requires_grad_() for tensor in tensors]
    exact, to_exact = values_and_gradients(exact_logps, in_fp64, targets, finish)
    assert ours.dtype == torch.float32
    torch.testing.assert_close(ours.double(), exact, atol=1e-5, rtol=0)
    for mine, theirs in zip(to_ours, to_exact, strict=True):
        assert mine.dtype == torch.bfloat16
        torch.testing.assert_close(mine.double(), theirs, rtol=2**-8, atol=1e-5)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("finish", FINISHES.values(), ids=FINISHES)
def test_logits_that_are_kept_and_logits_computed_again_give_the_same_bits(tiles, finish, dtype, monkeypatch):
    tensors, targets = inputs(dtype)
    kept = values_and_gradients(token_logps, tensors, targets, finish)
    monkeypatch.setattr("stages.scoring.head.KEPT_LOGITS", 0)
    again = values_and_gradients(token_logps, tensors, targets, finish)
    assert torch.equal(kept[0], again[0])
    assert all(torch.equal(one, other) for one, other in zip(kept[1], again[1], strict=True))


def test_few_logits_are_kept_and_many_are_computed_again(monkeypatch):
    calls = []
    compute = _Tiles.products
    monkeypatch.setattr(_Tiles, "products", lambda *of_tile: calls.append(1) or compute(*of_tile))
    tensors, targets = inputs()
    for most, n_calls in ((M * V, 1), (M * V - 1, 2)):
        calls.clear()
        monkeypatch.setattr("stages.scoring.head.KEPT_LOGITS", most)
        values_and_gradients(token_logps, tensors, targets, {})
        assert len(calls) == n_calls


@pytest.mark.parametrize("frozen", [0, 1, 2], ids=["hidden", "weight", "bias"])
def test_what_is_frozen_gets_no_gradient_and_changes_no_other(tiles, frozen):
    tensors, targets = inputs()
    logps, expected = values_and_gradients(token_logps, tensors, targets, {})
    tensors[frozen].requires_grad_(False)
    same, gradients = values_and_gradients(token_logps, tensors, targets, {})
    assert torch.equal(same, logps)
    assert gradients[frozen] is None
    assert all(torch.equal(gradients[i], expected[i]) for i in range(3) if i != frozen)


def test_one_token_has_the_same_bits_whichever_tile_its_row_is_in(monkeypatch):
    tensors, targets = inputs()
    with torch.no_grad():
        hidden = tensors[0][:1].expand(64, D)
        logps = token_logps(hidden, targets[:1].expand(64), OutputLayer(*tensors[1:]))
        assert len(logps.unique()) == 1


def test_large_logits_stay_finite():
    tensors, targets = inputs()
    with torch.no_grad():
        tensors[1] *= 1e4
        layer = OutputLayer(*tensors[1:])
        torch.testing.assert_close(
            token_logps(tensors[0], targets, layer).double(),
            exact_logps(tensors[0], targets, layer),
            rtol=1e-5,
            atol=1e-2,
        )


def test_the_models_own_logits_give_the_same_log_probs():
    (hidden, weight, bias), targets = inputs()
    with torch.no_grad():
        logits = torch.nn.functional.linear(hidden, weight, bias)
        exact = exact_logps(hidden, targets, OutputLayer(weight, bias))
        torch.testing.assert_close(logits_logps(logits, targets).double(), exact, atol=1e-5, rtol=0)
        assert logits_logps(logits.bfloat16(), targets).dtype == torch.float32


@pytest.mark.parametrize("finish", FINISHES.values(), ids=FINISHES)
def test_collisions_are_the_log_of_summed_squares_and_change_nothing_else(tiles, finish):
    """log sum_v p(v)^2, without a gradient; log-probs and their gradients stay as they are, to the last bit."""
    tensors, targets = inputs()
    plain, gradients = values_and_gradients(token_logps, tensors, targets, finish)
    for grad in (torch.enable_grad(), torch.no_grad()):
        with grad:
            scores = token_scores(tensors[0], targets, OutputLayer(*tensors[1:], **finish), collisions=True)
        layer = OutputLayer(*(t.detach() for t in tensors[1:]), **finish)
        products = torch.nn.functional.linear(tensors[0].detach().double(), *map(torch.Tensor.double, layer[:2]))
        logits = layer.finish.logits(products, None)
        exact = (2 * torch.log_softmax(logits, -1)).logsumexp(-1)
        assert scores.collisions is not None and not scores.collisions.requires_grad
        torch.testing.assert_close(scores.collisions.double(), exact, atol=1e-5, rtol=0)
        assert torch.equal(scores.logps.detach(), plain)
    with_collisions = values_and_gradients(
        lambda *arguments: token_scores(*arguments, collisions=True).logps, tensors, targets, finish
    )
    assert all(torch.equal(a, b) for a, b in zip(with_collisions[1], gradients, strict=True))


def test_the_models_own_logits_give_the_same_collisions():
    (hidden, weight, bias), targets = inputs()
    with torch.no_grad():
        logits = torch.nn.functional.linear(hidden, weight, bias)
        ours = token_scores(hidden, targets, OutputLayer(weight, bias), collisions=True).collisions
    torch.testing.assert_close(logits_collisions(logits), ours, atol=1e-5, rtol=0)


def test_no_logits_are_kept_where_no_gradient_is_wanted(monkeypatch):
    """Though `needs_input_grad` of an autograd function is True under no_grad, too."""
    monkeypatch.setattr("stages.scoring.head.TILE_TOKENS", 8)
    alive, most = [], []
    compute = _Tiles.products

    def watched(*of_tile):
        most.append(sum(reference() is not None for reference in alive))
        logits = compute(*of_tile)
        alive.append(weakref.ref(logits))
        return logits

    monkeypatch.setattr(_Tiles, "products", watched)
    weight = torch.nn.Parameter(torch.randn(80, 4))
    with torch.no_grad():
        token_logps(torch.randn(5, 4), torch.arange(5), OutputLayer(weight))
    assert max(most) <= 1
