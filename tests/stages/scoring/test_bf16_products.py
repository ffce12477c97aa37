"""bf16 products in fp32: rounded once, differentiable, and only where they are wanted."""

import pytest
import torch
from torch.nn.functional import linear, scaled_dot_product_attention

from stages.scoring.bf16_products import _Fp32Products, fast_bf16_products


def tensors(*shapes, dtype=torch.bfloat16):
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(shape, generator=generator).to(dtype).requires_grad_() for shape in shapes]


@pytest.mark.parametrize("with_bias", [False, True])
def test_products_and_gradients_are_exact_up_to_one_rounding(with_bias):
    x, w, b = tensors((2, 5, 33), (7, 33), (7,))
    bias = b if with_bias else None
    with _Fp32Products():
        ours = linear(x, w, bias)
    assert ours.dtype == torch.bfloat16
    exact = x.double() @ w.double().T + (b.double() if with_bias else 0)
    torch.testing.assert_close(ours.double(), exact, rtol=2**-7, atol=2**-6)
    ours.backward(torch.ones_like(ours))
    gradients = x.grad.clone(), w.grad.clone()
    x.grad = w.grad = None
    exact.sum().backward()
    torch.testing.assert_close(gradients[0], x.grad, rtol=2**-7, atol=2**-7)
    torch.testing.assert_close(gradients[1], w.grad, rtol=2**-7, atol=2**-7)


def test_other_dtypes_and_other_functions_are_left_alone():
    x, w = tensors((3, 8), (4, 8), dtype=torch.float32)
    with _Fp32Products():
        assert torch.equal(linear(x, w), x @ w.T) or torch.allclose(linear(x, w), x @ w.T)
        assert linear(x, w).dtype == torch.float32
        assert torch.add(x, 1).dtype == torch.float32


def test_attention_is_exact_up_to_one_rounding():
    query, key, value = tensors((1, 2, 9, 8), (1, 2, 9, 8), (1, 2, 9, 8))
    with _Fp32Products():
        ours = scaled_dot_product_attention(query, key, value, is_causal=True)
    exact = scaled_dot_product_attention(query.double(), key.double(), value.double(), is_causal=True)
    assert ours.dtype == torch.bfloat16
    torch.testing.assert_close(ours.double(), exact, rtol=2**-8, atol=1e-6)
    ours.backward(torch.ones_like(ours))
    assert torch.isfinite(query.grad).all() and query.grad.abs().sum() > 0


def test_no_product_of_a_bf16_model_is_missed():
    """Every linear layer of the tiny model goes through it, in both directions."""
    from tests.tiny import build_model

    model = build_model().to(torch.bfloat16)
    ids = torch.arange(12)[None]
    with _Fp32Products():
        logits = model(input_ids=ids).logits
    graph, seen, names = [logits.grad_fn], set(), []
    while graph:
        node = graph.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        names.append(node.name())
        graph += [following for following, _ in node.next_functions]
    assert names.count("_LinearBackward") == 2 * 7 + 1
    assert not [name for name in names if name in ("MmBackward0", "AddmmBackward0", "UnsafeViewBackward0")]


def test_a_gpu_keeps_its_own_products():
    assert not isinstance(fast_bf16_products(torch.device("cuda")), _Fp32Products)
