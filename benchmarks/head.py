"""Shapes of the head's tiles; logits kept or computed again; plain or compiled: `python benchmarks/head.py`."""

import time
from collections.abc import Callable
from functools import partial
from importlib import import_module
from typing import Any

import torch

import pipeline  # noqa: F401 - finds our packages
from stages.scoring.tile import compiled

head: Any = import_module("stages.scoring.head")  # its sizes are changed where it looks them up

ROWS, WIDTH, VOCABULARY = 1024, 576, 49_152  # SmolLM2's head, a pack's worth of scored tokens
FORWARD = 2 * ROWS * WIDTH * VOCABULARY
TILES = [(256, 1024), (256, 4096), (1024, 512), (1024, 1024), (1024, 4096)]
ROUNDS = 7


def main() -> None:
    """Print useful GFLOP/s forward for each tile, then forward and backward for the chosen one, in several ways."""
    generator = torch.Generator().manual_seed(0)
    hidden = torch.randn(ROWS, WIDTH, generator=generator)
    weight = (torch.randn(VOCABULARY, WIDTH, generator=generator) * 0.05).requires_grad_()
    targets = torch.randint(0, VOCABULARY, (ROWS,), generator=generator)
    layer = head.OutputLayer(weight)
    fast = layer._replace(functions=compiled("inductor"))
    chosen = head.TILE_ROWS, head.TILE_TOKENS

    @torch.no_grad()
    def forward(tile: tuple[int, int], layer: Any) -> None:
        head.TILE_ROWS, head.TILE_TOKENS = tile
        head.token_scores(hidden, targets, layer)

    def both_ways(kept: int, layer: Any) -> None:
        head.TILE_ROWS, head.TILE_TOKENS = chosen
        head.KEPT_LOGITS = kept
        head.token_scores(hidden, targets, layer).logps.sum().backward()

    hidden.requires_grad_()
    in_turn(
        FORWARD,
        {
            "matrix product alone": lambda: hidden.detach() @ weight.detach().T,
            **{f"forward, tiles of {tile[0]} by {tile[1]}": partial(forward, tile, layer) for tile in TILES},
            "forward, compiled": lambda: forward(chosen, fast),
        },
    )
    in_turn(
        3 * FORWARD,
        {
            "both ways, logits kept": lambda: both_ways(ROWS * VOCABULARY, layer),
            "both ways, logits kept, compiled": lambda: both_ways(ROWS * VOCABULARY, fast),
            "both ways, logits computed again": lambda: both_ways(0, layer),
            "both ways, logits computed again, compiled": lambda: both_ways(0, fast),
        },
    )


def in_turn(flops: int, contenders: dict[str, Callable[[], object]]) -> None:
    """Best of all rounds, in GFLOP/s; a first round does not count."""
    times: dict[str, list[float]] = {name: [] for name in contenders}
    for _ in range(1 + ROUNDS):
        for name, run in contenders.items():
            started = time.perf_counter()
            run()
            times[name].append(time.perf_counter() - started)
    for name, seconds in times.items():
        print(f"{name:<45}{flops / min(seconds[1:]) / 1e9:6.0f} GFLOP/s")


if __name__ == "__main__":
    main()
