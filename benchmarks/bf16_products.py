"""Rates of linear layers on this CPU: torch's bf16, ours (stages/scoring/bf16_products.py), and fp32 for comparison.

    python benchmarks/bf16_products.py

Shapes are those of SmolLM2-135M's MLP at 1,024 tokens. The three are measured in turn, the median of five rounds.
"""

import statistics
import time
from collections.abc import Callable

import torch
from torch.nn.functional import linear

import pipeline  # noqa: F401 - finds our packages
from stages.scoring.bf16_products import _Fp32Products

TOKENS, WIDTH, INNER = 1024, 576, 1536
ROUNDS = 5


def forward_backward(x: torch.Tensor, w: torch.Tensor) -> None:
    """One training use of the layer: three products."""
    linear(x, w).sum().backward()  # type: ignore[no-untyped-call]


def gflops(work: Callable[[], None], flops: float) -> float:
    """Rate of one call."""
    started = time.perf_counter()
    work()
    return flops / (time.perf_counter() - started) / 1e9


def main() -> None:
    """Print the table."""
    generator = torch.Generator().manual_seed(0)
    x32 = torch.randn(TOKENS, WIDTH, generator=generator).requires_grad_()
    w32 = torch.randn(INNER, WIDTH, generator=generator).requires_grad_()
    x16, w16 = x32.detach().bfloat16().requires_grad_(), w32.detach().bfloat16().requires_grad_()

    def ours() -> None:
        with _Fp32Products():
            forward_backward(x16, w16)

    variants: dict[str, Callable[[], None]] = {
        "torch, bf16": lambda: forward_backward(x16, w16),
        "ours, bf16": ours,
        "torch, fp32": lambda: forward_backward(x32, w32),
    }
    flops = 3 * 2 * TOKENS * WIDTH * INNER
    rates: dict[str, list[float]] = {name: [] for name in variants}
    for round_ in range(ROUNDS + 1):
        for name, work in variants.items():
            rate = gflops(work, flops)
            if round_:  # the first round warms up
                rates[name].append(rate)
    print(f"{torch.backends.cpu.get_cpu_capability()}, {torch.get_num_threads()} threads, torch {torch.__version__}")
    for name, values in rates.items():
        print(f"  {name:<12} {statistics.median(values):>7.1f} GFLOP/s")


if __name__ == "__main__":
    main()
