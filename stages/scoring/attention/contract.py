"""What the attention of a pack is given and what it gives back, whichever back-end computes it."""

from collections.abc import Callable, Sequence
from typing import NamedTuple, Protocol

import torch


class Segment(NamedTuple):
    """Tokens [start, stop) of a pack, which read the tokens [prefix_start, prefix_stop) and, causally, themselves.

    A prompt has no prefix; a response's prefix is its prompt.
    """

    start: int
    stop: int
    prefix_start: int
    prefix_stop: int


class Terms(NamedTuple):
    """What a layer does to its scores before the softmax; they start as scale * q k^T."""

    scale: float
    window: int | None = None
    """A row sees the last `window` tokens only, itself among them."""
    softcap: float | None = None
    """Scores become softcap * tanh(score / softcap)."""
    sinks: torch.Tensor | None = None
    """(H,): each head's sink takes part in the softmax as a key without a value."""


class PackAttention(Protocol):
    """The attention of one pack, under one back-end."""

    def __call__(self, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, terms: Terms, /) -> torch.Tensor:
        """Query (1, H, T, d), key (1, K, T, d), value (1, K, T, e) -> (1, T, H, e); finite for padding, too.

        Raises:
            UnsupportedModel: this back-end does not know one of the terms.
        """


AttentionMaker = Callable[[Sequence[Segment], int, torch.device], PackAttention]
"""Makes the attention of a pack from its segments, its length and its device.

The last tokens of a pack, one at least, are padding and belong to no segment.
"""


class UnsupportedModel(Exception):
    """Packs, or one back-end, would give this model wrong values; the message says why, as the end of a sentence.

    It never leaves the scoring package.
    """
