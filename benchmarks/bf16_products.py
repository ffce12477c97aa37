"""Linear layers and attention on this CPU: torch's bf16, ours (stages/scoring/bf16_products.py), and fp32 beside them.

    python benchmarks/bf16_products.py

Shapes are those of SmolLM2-135M: one product of its MLP at 1,024 tokens, its attention over two sequences of 512. Each
is timed forward and backward, the three in turn; the median of five rounds.
"""

import statistics
import time
from collections.abc import Callable

import torch
from torch.nn.functional import linear, scaled_dot_product_attention

import pipeline  # noqa: F401 - finds our packages
from stages.scoring.bf16_products import _Fp32Products

ROUNDS = 5


def linear_layer(dtype: torch.dtype) -> Callable[[], None]:
    """Inputs (1024, 576), weights (1536, 576)."""
    x, w = random_tensors((1024, 576), (1536, 576), dtype=dtype)
    return lambda: linear(x, w).sum().backward()  # type: ignore[no-untyped-call]


def attention(dtype: torch.dtype) -> Callable[[], None]:
    """Two sequences of 512 tokens, 9 heads of 64, causal, forward and backward."""
    q, k, v = random_tensors(*[(2, 9, 512, 64)] * 3, dtype=dtype)
    return lambda: scaled_dot_product_attention(q, k, v, is_causal=True).sum().backward()  # type: ignore[no-untyped-call]


def random_tensors(*shapes: tuple[int, ...], dtype: torch.dtype) -> list[torch.Tensor]:
    """Leaves that want gradients."""
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(shape, generator=generator).to(dtype).requires_grad_() for shape in shapes]


def seconds(work: Callable[[], None]) -> float:
    """One call."""
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def main() -> None:
    """Print the table."""
    print(f"{torch.backends.cpu.get_cpu_capability()}, {torch.get_num_threads()} threads, torch {torch.__version__}")
    print(f"{'ms, forward and backward':<26}{'torch bf16':>12}{'ours bf16':>12}{'torch fp32':>12}")
    for name, build in (("linear layer", linear_layer), ("attention", attention)):
        bf16, fp32 = build(torch.bfloat16), build(torch.float32)
        rounds = []
        for _ in range(ROUNDS + 1):
            plain = seconds(bf16)
            with _Fp32Products():
                ours = seconds(bf16)
            rounds.append((plain, ours, seconds(fp32)))
        medians = [1000 * statistics.median(column) for column in zip(*rounds[1:], strict=True)]  # the first warms up
        print(f"{name:<26}" + "".join(f"{value:>12.1f}" for value in medians))


if __name__ == "__main__":
    main()
