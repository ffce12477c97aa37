"""Page faults of a training step with and without `keep_freed_memory`: `python benchmarks/page_faults.py`."""

import resource
import subprocess
import sys
import time

import torch
from torch.nn.functional import silu

import pipeline  # noqa: F401 - finds our packages
from stages.scoring.allocator import keep_freed_memory

TOKENS, WIDTH, INNER, LAYERS = 1536, 576, 1536, 8  # the MLP layers of a small model
SCORED, VOCABULARY = 256, 49152  # its head, whose gradient is larger than what glibc keeps by itself


def step(weights: list[torch.Tensor]) -> None:
    """Forward and backward through all layers and the head."""
    hidden = torch.randn(TOKENS, WIDTH)
    head, *layers = weights
    for up, down in zip(layers[::2], layers[1::2], strict=True):
        hidden = hidden + silu(hidden @ up) @ down * 1e-4
    (hidden[:SCORED] @ head.t()).logsumexp(1).sum().backward()  # type: ignore[no-untyped-call]
    for weight in weights:
        weight.grad = None


def measure(*, keep: bool) -> str:
    """Faults, system and wall time of ten steps after two of warm-up."""
    if keep:
        keep_freed_memory()
    shapes = [(VOCABULARY, WIDTH), *[(WIDTH, INNER), (INNER, WIDTH)] * LAYERS]
    weights = [torch.randn(shape).requires_grad_() for shape in shapes]
    for _ in range(2):
        step(weights)
    before, started = resource.getrusage(resource.RUSAGE_SELF), time.perf_counter()
    for _ in range(10):
        step(weights)
    seconds, after = time.perf_counter() - started, resource.getrusage(resource.RUSAGE_SELF)
    faults, system = after.ru_minflt - before.ru_minflt, after.ru_stime - before.ru_stime
    return f"{faults:8} page faults, {system:5.2f} s of system time, {seconds:5.2f} s in all"


def main() -> None:
    """Each way in a process of its own, twice, in turn."""
    if len(sys.argv) > 1:
        print(measure(keep=sys.argv[1] == "keep"))
        return
    for way in ("as it is", "keep") * 2:
        print(f"{way:<9}", end="", flush=True)
        subprocess.run([sys.executable, __file__, way], check=True)


if __name__ == "__main__":
    main()
