"""Attention over packs on CUDA for models that cap their scores, which variable-length FlashAttention cannot.

torch's flex attention compiles the rule "who reads whom" and the cap into one kernel.
"""

from collections.abc import Sequence
from functools import cache
from typing import Any

import numpy as np
import torch
from torch.nn.attention.flex_attention import BlockMask, create_block_mask, flex_attention

from stages.scoring.attention.contract import Segment, Terms, UnsupportedModel
from stages.scoring.transfer import on_device

SHARED = -1  # stands for the segment where a whole tree may read: a prompt, or padding, which is tree -1


class FlexAttention:
    """The attention of one pack; its padding reads padding."""

    def __init__(self, segments: Sequence[Segment], n_tokens: int, device: torch.device) -> None:
        self._n_tokens = n_tokens
        tree, segment, position = np.full(n_tokens, -1), np.full(n_tokens, SHARED), np.empty(n_tokens, dtype=np.int64)
        for number, s in enumerate(segments):
            is_prompt = s.prefix_start == s.prefix_stop
            tree[s.start : s.stop] = s.start if is_prompt else s.prefix_start
            segment[s.start : s.stop] = SHARED if is_prompt else number
            position[s.start : s.stop] = np.arange(s.stop - s.start) + s.prefix_stop - s.prefix_start
        position[segments[-1].stop :] = np.arange(n_tokens - segments[-1].stop)
        self._tree, self._segment, self._position = (on_device(part, device) for part in (tree, segment, position))
        self._masks: dict[int | None, BlockMask] = {}

    def __call__(self, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, terms: Terms) -> torch.Tensor:
        """See PackAttention; knows no sinks."""
        softcap = terms.softcap
        if terms.sinks is not None:
            raise UnsupportedModel("flex attention knows no sinks here")

        def capped(score: torch.Tensor, *_: torch.Tensor) -> torch.Tensor:
            return score if softcap is None else softcap * torch.tanh(score / softcap)

        out: torch.Tensor = _kernel(query.device.type)(
            query,
            key,
            value,
            score_mod=None if softcap is None else capped,
            block_mask=self._mask(terms.window),
            scale=terms.scale,
            enable_gqa=query.shape[1] != key.shape[1],
        )
        return out.transpose(1, 2).contiguous()

    def _mask(self, window: int | None) -> BlockMask:
        if window not in self._masks:

            def reads(_: torch.Tensor, __: torch.Tensor, q: torch.Tensor, k: torch.Tensor) -> torch.Tensor:
                same_tree = self._tree[q] == self._tree[k]
                prompt_or_own = (self._segment[k] == SHARED) | (self._segment[k] == self._segment[q])
                distance = self._position[q] - self._position[k]
                near = distance >= 0 if window is None else (distance >= 0) & (distance < window)
                return same_tree & prompt_or_own & near

            self._masks[window] = create_block_mask(
                reads, None, None, self._n_tokens, self._n_tokens, device=self._tree.device.type
            )
        return self._masks[window]


@cache
def _kernel(device: str) -> Any:
    return torch.compile(flex_attention, dynamic=True) if device == "cuda" else flex_attention
