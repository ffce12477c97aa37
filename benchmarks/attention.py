"""The segments back-end's block sizes, and stock attention over padded rows: `python benchmarks/attention.py`."""

import time

import numpy as np
import torch
from torch.nn.functional import scaled_dot_product_attention

import pipeline  # noqa: F401 - finds our packages
from stages.scoring.attention import blocks
from stages.scoring.attention.contract import Segment, Terms
from stages.scoring.attention.segments import SegmentsAttention

HEADS, KEY_HEADS, WIDTH = 9, 3, 64  # SmolLM2's
MEANS = {"politeness": (32, 22), "gsm8k": (100, 80), "long": (250, 300)}  # tokens of prompts and responses


def random_segments(prompt: int, response: int, n_tokens: int) -> list[Segment]:
    """Trees of two responses each, of lengths around the means, up to about `n_tokens`."""
    generator = np.random.default_rng(0)
    found, at = [], 0
    while at < n_tokens:
        start, stop = at, at + int(generator.integers(prompt // 2, prompt * 3 // 2))
        found.append(Segment(start, stop, start, start))
        at = stop
        for length in generator.integers(response // 2, response * 3 // 2, 2):
            found.append(Segment(at, at + int(length), start, stop))
            at += int(length)
    return found


def states(rows: int, n_tokens: int) -> list[torch.Tensor]:
    """Query, key, value as projections leave them: (rows, heads, n_tokens, WIDTH), token by token in memory."""
    shapes = [(rows, n_tokens, heads, WIDTH) for heads in (HEADS, KEY_HEADS, KEY_HEADS)]
    return [torch.randn(shape).transpose(1, 2).requires_grad_() for shape in shapes]


def milliseconds(attend: object, inputs: list[torch.Tensor]) -> tuple[float, float]:
    """Forward and backward, best of seven."""
    forward, backward = [], []
    for _ in range(7):
        started = time.perf_counter()
        out = attend(*inputs)  # type: ignore[operator]
        forward.append(time.perf_counter() - started)
        started = time.perf_counter()
        out.backward(torch.ones_like(out))
        backward.append(time.perf_counter() - started)
    return min(forward) * 1e3, min(backward) * 1e3


def stock(segments_of: list[Segment]) -> tuple[float, float]:
    """The same responses as padded rows, prompts and all."""
    lengths = [s.stop - s.start + s.prefix_stop - s.prefix_start for s in segments_of if s.prefix_stop > s.prefix_start]

    def attend(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
        return scaled_dot_product_attention(query, key, value, is_causal=True, enable_gqa=True)

    return milliseconds(attend, states(len(lengths), max(lengths)))


def ours(segments_of: list[Segment]) -> tuple[float, float]:
    """One layer over the pack."""
    n_tokens = -(-(segments_of[-1].stop + 1) // 64) * 64
    pack = SegmentsAttention(segments_of, n_tokens, torch.device("cpu"))

    def attend(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
        return pack(query, key, value, Terms(WIDTH**-0.5))

    return milliseconds(attend, states(1, n_tokens))


def main() -> None:
    """Print milliseconds of one layer, forward and backward."""
    for name, (prompt, response) in MEANS.items():
        found = random_segments(prompt, response, 2000)
        print(f"{name:<11} padded rows, stock attention        {{:6.1f}} {{:6.1f}} ms".format(*stock(found)))
        for granule, rows in ((8, 128), (16, 64), (16, 128), (16, 256), (32, 128)):
            blocks.GRANULE, blocks.BLOCK_ROWS = granule, rows
            print(
                f"{name:<11} pack, granule {granule:2}, blocks of {rows:3} rows {{:6.1f}} {{:6.1f}} ms".format(
                    *ours(found)
                )
            )


if __name__ == "__main__":
    main()
