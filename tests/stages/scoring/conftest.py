"""What the tests of scoring share besides tests/families.py: random packs for the attention back-ends, threads."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch

from stages.scoring.attention.contract import Segment, Terms


class RandomPack(NamedTuple):
    """Segments, the length with padding, and one layer's states; padding holds large numbers."""

    segments: list[Segment]
    n_tokens: int
    query: torch.Tensor
    key: torch.Tensor
    value: torch.Tensor
    gradient: torch.Tensor  # of the output; nothing comes back from padding

    def values_and_gradients(self, maker: Any, **terms: Any) -> tuple[torch.Tensor, list[torch.Tensor]]:
        """What an attention makes of it: the output, and gradients of query, key, value and, if given, sinks."""
        inputs = [t.detach().clone().requires_grad_() for t in (self.query, self.key, self.value)]
        if "sinks" in terms:
            inputs.append(terms["sinks"].detach().clone().requires_grad_())
            terms["sinks"] = inputs[-1]
        output = maker(self.segments, self.n_tokens, torch.device("cpu"))(*inputs[:3], Terms(**{"scale": 0.3} | terms))
        output.backward(self.gradient.to(output.dtype))
        return output.detach(), [tensor.grad for tensor in inputs]


@pytest.fixture
def random_pack() -> Callable[..., RandomPack]:
    """Two trees and more padding than one token: `heads` of queries and keys, `widths` of keys and values."""

    def make(
        heads: Sequence[int] = (4, 2),
        widths: Sequence[int] = (8, 8),
        dtype: torch.dtype = torch.float32,
        seed: int = 0,
        longest: int = 40,
    ) -> RandomPack:
        rng = np.random.default_rng(seed)
        segments, at = [], 0
        for n_responses in (3, 1):
            prefix = at, at + int(rng.integers(1, longest + 1))
            segments.append(Segment(*prefix, prefix[0], prefix[0]))
            at = prefix[1]
            for _ in range(n_responses):
                segments.append(Segment(at, at + int(rng.integers(1, longest + 1)), *prefix))
                at = segments[-1].stop
        n_tokens = at + 5
        generator = torch.Generator().manual_seed(seed)

        def states(n_heads: int, width: int) -> torch.Tensor:
            # Memory lies as projections leave it: (1, T, heads, d), seen as (1, heads, T, d).
            rows = torch.randn(1, n_tokens, n_heads, width, generator=generator)
            rows[:, at:] = 1e3
            return rows.to(dtype).transpose(1, 2)

        states_of = states(heads[0], widths[0]), states(heads[1], widths[0]), states(heads[1], widths[1])
        gradient = torch.randn(1, n_tokens, heads[0], widths[1], generator=generator).to(dtype)
        gradient[:, at:] = 0
        return RandomPack(segments, n_tokens, *states_of, gradient)

    return make


@pytest.fixture
def threads() -> Iterator[Callable[[int], None]]:
    """Sets the number of threads for one test."""
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)
