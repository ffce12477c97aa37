"""Other ways to multiply on a CPU than `linear`, in the shapes of a small model, GFLOP/s.

    python benchmarks/matrix_products.py

Packed weights (oneDNN's and MKL's), and the rows in chunks.
"""

import statistics
import time
from collections.abc import Callable

import torch
from torch.nn.functional import linear

import pipeline  # noqa: F401 - finds our packages
from stages.scoring.allocator import keep_freed_memory

SHAPES = [(4096, 576, 1536), (4096, 1536, 576), (4096, 576, 576), (1024, 576, 1536)]  # rows, from, to
ROUNDS = 25


def ways(rows: int, width: int, out: int) -> dict[str, Callable[[], torch.Tensor]]:
    """Each a call that multiplies the same."""
    x, w = torch.randn(rows, width), torch.randn(out, width)
    onednn = torch.ops.mkldnn._reorder_linear_weight(w, rows)

    def chunks() -> torch.Tensor:
        result = torch.empty(rows, out)
        for start in range(0, rows, 1024):
            torch.mm(x[start : start + 1024], w.t(), out=result[start : start + 1024])
        return result

    calls: dict[str, Callable[[], torch.Tensor]] = {
        "linear": lambda: linear(x, w),
        "oneDNN, packed": lambda: torch.ops.mkldnn._linear_pointwise(x, onednn, None, "none", [], ""),
        "chunks of 1,024 rows": chunks,
    }
    if torch.backends.mkl.is_available():  # type: ignore[no-untyped-call]
        mkl = torch.ops.mkl._mkl_reorder_linear_weight(w, rows)
        calls["MKL, packed"] = lambda: torch.ops.mkl._mkl_linear(x, mkl, w, None, rows)
    return calls


@torch.inference_mode()
def main() -> None:
    """All ways in turn, medians."""
    keep_freed_memory()
    for shape in SHAPES:
        calls = ways(*shape)
        seconds: dict[str, list[float]] = {name: [] for name in calls}
        for _ in range(ROUNDS):
            for name, call in calls.items():
                started = time.perf_counter()
                call()
                seconds[name].append(time.perf_counter() - started)
        operations = 2 * shape[0] * shape[1] * shape[2]
        rates = [f"{name} {operations / statistics.median(s) / 1e9:.0f}" for name, s in seconds.items()]
        print(" x ".join(map(str, shape)) + ": " + ", ".join(rates))


if __name__ == "__main__":
    main()
