"""AdamW over the parameters of a 135M model, fused and not: `python benchmarks/adamw.py`."""

import time

import torch

LAYER = [(1536, 576), (1536, 576), (576, 1536), (576, 576), (576, 576), (192, 576), (192, 576)]  # SmolLM2's matrices
SHAPES = [(49_152, 576), *LAYER * 30]


def milliseconds(fused: bool) -> float:
    """One step, best of five."""
    parameters = [torch.nn.Parameter(torch.randn(shape)) for shape in SHAPES]
    optimizer = torch.optim.AdamW(parameters, lr=1e-6, fused=fused)
    for parameter in parameters:
        parameter.grad = torch.randn_like(parameter)
    times = []
    for _ in range(6):
        started = time.perf_counter()
        optimizer.step()
        times.append(time.perf_counter() - started)
    return min(times[1:]) * 1e3


def main() -> None:
    """Print both, twice, in turn."""
    for _ in range(2):
        print(f"for-each {milliseconds(False):6.0f} ms   fused {milliseconds(True):6.0f} ms")


if __name__ == "__main__":
    main()
