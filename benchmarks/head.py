"""Shapes of the head's tiles, and keeping logits against computing them again: `python benchmarks/head.py`."""

import time
from collections.abc import Callable
from importlib import import_module
from typing import Any

import torch

import pipeline  # noqa: F401 - finds our packages

head: Any = import_module("stages.scoring.head")  # its sizes are changed where it looks them up

ROWS, WIDTH, VOCABULARY = 1024, 576, 49_152  # SmolLM2's head, a pack's worth of scored tokens
FORWARD = 2 * ROWS * WIDTH * VOCABULARY


def gigaflops(flops: int, run: Callable[[], object]) -> float:
    """Best of five, in GFLOP/s."""
    run()
    times = []
    for _ in range(5):
        started = time.perf_counter()
        run()
        times.append(time.perf_counter() - started)
    return flops / min(times) / 1e9


def main() -> None:
    """Print useful GFLOP/s forward for each tile, then forward and backward for the chosen one."""
    generator = torch.Generator().manual_seed(0)
    hidden = torch.randn(ROWS, WIDTH, generator=generator)
    weight = (torch.randn(VOCABULARY, WIDTH, generator=generator) * 0.05).requires_grad_()
    targets = torch.randint(0, VOCABULARY, (ROWS,), generator=generator)
    layer = head.OutputLayer(weight)
    chosen = head.TILE_ROWS, head.TILE_TOKENS
    print(f"matrix product alone {gigaflops(FORWARD, lambda: hidden @ weight.detach().T):6.0f} GFLOP/s")
    for head.TILE_ROWS, head.TILE_TOKENS in [(256, 1024), (256, 4096), (1024, 512), (1024, 1024), (1024, 4096)]:
        with torch.no_grad():
            rate = gigaflops(FORWARD, lambda: head.token_scores(hidden, targets, layer).logps)
        print(f"tiles of {head.TILE_ROWS:4} rows by {head.TILE_TOKENS:4} tokens {rate:6.0f} GFLOP/s forward")
    head.TILE_ROWS, head.TILE_TOKENS = chosen
    hidden.requires_grad_()

    def both_ways() -> None:
        head.token_scores(hidden, targets, layer).logps.sum().backward()

    for name, kept in (("kept", ROWS * VOCABULARY), ("computed again", 0)):
        head.KEPT_LOGITS = kept
        rate = gigaflops(3 * FORWARD, both_ways)
        print(f"forward and backward, logits {name:14} {rate:6.0f} GFLOP/s")


if __name__ == "__main__":
    main()
