"""Attention over packs on CUDA: one variable-length FlashAttention call a layer.

Keys and values are gathered to [prompt; own] behind one another, segment by segment. FlashAttention aligns a causal
mask with the last query and the last key, so queries of a response alone read exactly prompt and own: no mask exists.
This file is the only one that knows torch.nn.attention.varlen, whose arguments differ between versions of torch.
"""

import inspect
import math
from collections.abc import Sequence
from functools import cache
from typing import Any

import numpy as np
import torch

from stages.scoring.attention.contract import Segment, Terms, UnsupportedModel
from stages.scoring.attention.gather import GatherPlan, gather
from stages.scoring.transfer import on_device


class VarlenAttention:
    """The attention of one pack; its padding gets zeros."""

    def __init__(self, segments: Sequence[Segment], n_tokens: int, device: torch.device) -> None:
        self._n_tokens = n_tokens
        self._n_live = segments[-1].stop
        queries = [segment.stop - segment.start for segment in segments]
        keys = [n + segment.prefix_stop - segment.prefix_start for n, segment in zip(queries, segments, strict=True)]
        self._max_q, self._max_k = max(queries), max(keys)
        self._cu_q, self._cu_k = _cumulative(queries, device), _cumulative(keys, device)
        self._plan = GatherPlan(key_tokens(segments), n_tokens, n_tokens, device)

    def __call__(self, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, terms: Terms) -> torch.Tensor:
        """See PackAttention; the kernel wants values as wide as keys, and knows neither soft caps nor sinks."""
        if terms.softcap is not None or terms.sinks is not None:
            raise UnsupportedModel("varlen attention knows neither soft caps nor sinks")
        n_heads, n_key_heads = query.shape[1], key.shape[1]
        varlen_attn = _varlen_attention()
        options = _rule(terms, query.shape[-1]) | _extras(n_heads != n_key_heads)
        keys, values = self._gathered(key, n_heads), self._gathered(value, n_heads)
        out = varlen_attn(
            query[0].transpose(0, 1)[: self._n_live].contiguous(),
            keys,
            values,
            self._cu_q,
            self._cu_k,
            self._max_q,
            self._max_k,
            **options,
        )
        padding = out.new_zeros((self._n_tokens - self._n_live, *out.shape[1:]))
        return torch.cat([out, padding])[None]

    def _gathered(self, states: torch.Tensor, n_heads: int) -> torch.Tensor:
        """(1, K, T, d) -> (keys of all segments, K or H, d)."""
        _, n_key_heads, n_tokens, width = states.shape
        rows = states[0].transpose(0, 1).reshape(n_tokens, n_key_heads * width)
        gathered = gather(rows, self._plan).view(-1, n_key_heads, width)
        if n_heads != n_key_heads and "enable_gqa" not in _parameters():
            gathered = gathered.repeat_interleave(n_heads // n_key_heads, dim=1)
        return gathered


def key_tokens(segments: Sequence[Segment]) -> np.ndarray:
    """Token numbers of the keys of each segment, prompt first, segment behind segment."""
    runs = [((s.prefix_start, s.prefix_stop), (s.start, s.stop)) for s in segments]
    return np.concatenate([np.arange(start, stop) for run in runs for start, stop in run])


def _cumulative(counts: Sequence[int], device: torch.device) -> torch.Tensor:
    return on_device(np.cumsum([0, *counts]), device, torch.int32)


def _varlen_attention() -> Any:
    try:
        from torch.nn.attention.varlen import varlen_attn
    except ImportError as error:
        raise UnsupportedModel("this version of torch has no variable-length attention") from error
    return varlen_attn


@cache
def _parameters() -> frozenset[str]:
    return frozenset(inspect.signature(_varlen_attention()).parameters)


def _rule(terms: Terms, width: int) -> dict[str, Any]:
    """The scale, and that queries read what stands before them: in torch 2.10 all of it, and no scale but its own."""
    if "window_size" in _parameters():
        return {"scale": terms.scale, "window_size": (-1 if terms.window is None else terms.window - 1, 0)}
    if terms.window is not None or not math.isclose(terms.scale, width**-0.5):
        raise UnsupportedModel("varlen attention knows neither windows nor scales before torch 2.11")
    return {"is_causal": True}


def _extras(grouped: bool) -> dict[str, Any]:
    """What newer versions of torch can be asked for: grouped heads, and no split that depends on the neighbours."""
    extras: dict[str, Any] = {}
    if "enable_gqa" in _parameters():
        extras["enable_gqa"] = grouped
    if "num_splits" in _parameters():
        extras["num_splits"] = 1
    return extras
