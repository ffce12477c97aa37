"""bf16 matrix products and attention on processors that have none: computed in fp32, rounded once.

Without AVX-512 or better, torch's bf16 products on a CPU are many times slower than its fp32 products
(docs/experiments.md, benchmarks/bf16_products.py). bf16 numbers multiply exactly in fp32, and a hardware product too
accumulates in fp32 and rounds at the end, so this is the same arithmetic in another order of summation. Weights and
activations stay bf16 in memory.
"""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch.nn.functional import linear, scaled_dot_product_attention
from torch.overrides import TorchFunctionMode

_SLOW_CAPABILITIES = ("DEFAULT", "NO AVX", "AVX2")


def fast_bf16_products(device: torch.device) -> AbstractContextManager[Any]:
    """A context in which a model's bf16 layers are fast on this device; changes nothing where they are already."""
    slow = device.type == "cpu" and torch.backends.cpu.get_cpu_capability() in _SLOW_CAPABILITIES
    return _Fp32Products() if slow else nullcontext()


class _Fp32Products(TorchFunctionMode):
    """Sends bf16 `linear` calls through `_Linear`, bf16 attention through fp32, all else where it was going."""

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if func is linear and args[0].dtype == args[1].dtype == torch.bfloat16:
            bias = args[2] if len(args) > 2 else (kwargs or {}).get("bias")
            product = _Linear.apply(args[0], args[1])  # type: ignore[no-untyped-call]
            return product if bias is None else product + bias
        if func is scaled_dot_product_attention and args[0].dtype == torch.bfloat16:
            query, key, value = (tensor.float() for tensor in args[:3])
            return func(query, key, value, *args[3:], **(kwargs or {})).bfloat16()
        return func(*args, **(kwargs or {}))


class _Linear(torch.autograd.Function):
    """x (..., K) times w (N, K) transposed -> (..., N), all bf16; what is saved for the backward pass is bf16 too."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, w: torch.Tensor) -> torch.Tensor:
        ctx.save_for_backward(x, w)
        return linear(x.float(), w.float()).bfloat16()

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor | None, torch.Tensor | None]:
        x, w = ctx.saved_tensors
        gradient = gradients[0].float()
        to_x = (gradient @ w.float()).bfloat16() if ctx.needs_input_grad[0] else None
        to_w = None
        if ctx.needs_input_grad[1]:
            to_w = (gradient.flatten(0, -2).T @ x.float().flatten(0, -2)).bfloat16()
        return to_x, to_w
