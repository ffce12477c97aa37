"""Exact attention over packs on any device: blocks of queries, batched by shape.

All blocks of one shape are multiplied together, so that neither the neighbours nor their number can change a bit of the
result. Products are fp32; the scores of one group of blocks live at a time, and the backward pass computes them again.

Legend: T tokens of the pack, H query heads, K key heads, G = H / K, n blocks of a group, r query rows and c keys of a
block, d head width, e width of the values.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch.autograd.function import once_differentiable

from stages.scoring.attention.blocks import Blocks
from stages.scoring.attention.contract import Segment, Terms
from stages.scoring.attention.gather import GatherPlan


class SegmentsAttention:
    """The attention of one pack; its padding gets zeros."""

    def __init__(self, segments: Sequence[Segment], n_tokens: int, device: torch.device) -> None:
        self._blocks = Blocks(segments, n_tokens, device)

    def __call__(self, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, terms: Terms) -> torch.Tensor:
        """See PackAttention; knows every term."""
        output: torch.Tensor = _Attention.apply(query, key, value, terms.sinks, terms, self._blocks)  # type: ignore[no-untyped-call]
        return output


class _Attention(torch.autograd.Function):
    """Scores are scale * q k^T, capped, masked, soft-maxed in fp32; the output is rounded once."""

    @staticmethod
    def forward(
        ctx: Any,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        sinks: torch.Tensor | None,
        terms: Terms,
        blocks: Blocks,
    ) -> torch.Tensor:
        ctx.save_for_backward(query, key, value, sinks)
        ctx.terms, ctx.blocks = terms._replace(sinks=None), blocks
        work = _Work(query, key, value, terms, blocks)
        out = work.sources(work.places.queries, value.shape[-1])
        for number in range(len(work.places.groups)):
            _, _, v, _, p = work.softmax(number)
            torch.bmm(p, v, out=out[work.places.query_slices[number]].view(len(p), -1, v.shape[-1]))
        rows = work.places.queries.sum_back(out)
        return rows.view(1, query.shape[2], -1, value.shape[-1]).to(query.dtype)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        query, key, value, sinks = ctx.saved_tensors
        work = _Work(query, key, value, ctx.terms._replace(sinks=sinks), ctx.blocks)
        to_query = work.sources(work.places.queries, query.shape[-1])
        to_key = work.sources(work.places.keys, key.shape[-1])
        to_value = work.sources(work.places.keys, value.shape[-1])
        to_sinks = None if sinks is None else torch.zeros_like(sinks, dtype=to_query.dtype)
        rows = _rows(gradient.transpose(1, 2)).clone()
        rows[-query.shape[1] :] = 0  # the last token is padding: what rows of padding read
        for number in range(len(work.places.groups)):
            q, k, v, tanh, p = work.softmax(number)
            query_slice, key_slice = work.places.query_slices[number], work.places.key_slices[number]
            do = rows[work.places.queries.index[query_slice]].to(q.dtype).view(len(p), -1, v.shape[-1])
            torch.bmm(p.transpose(1, 2), do, out=to_value[key_slice].view(v.shape))
            ds = torch.bmm(do, v.transpose(1, 2)).mul_(p)
            delta = ds.sum(-1, keepdim=True)
            ds.addcmul_(p, delta, value=-1)
            if to_sinks is not None:
                to_sinks -= work.sink_share(number, p, delta)
            if tanh is not None:
                ds.addcmul_(ds, tanh.square_(), value=-1)
            torch.bmm(ds, k, out=to_query[query_slice].view(q.shape)).mul_(ctx.terms.scale)
            torch.bmm(ds.transpose(1, 2), q, out=to_key[key_slice].view(k.shape))
        return (
            _heads(work.places.queries.sum_back(to_query), query),
            _heads(work.places.keys.sum_back(to_key), key),
            _heads(work.places.keys.sum_back(to_value), value),
            None if to_sinks is None or sinks is None else to_sinks.to(sinks.dtype),
            None,
            None,
        )


class _Softmax(NamedTuple):
    """Of one group: scaled queries, keys, values, tanh of the capped scores (if they are), and probabilities."""

    q: torch.Tensor  # (K * n, G * r, d)
    k: torch.Tensor  # (K * n, c, d)
    v: torch.Tensor  # (K * n, c, e)
    tanh: torch.Tensor | None  # (K * n, G * r, c)
    p: torch.Tensor  # (K * n, G * r, c)


class _Work:
    """One layer's tensors as the groups want them."""

    def __init__(
        self, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, terms: Terms, blocks: Blocks
    ) -> None:
        n_heads, n_key_heads = query.shape[1], key.shape[1]
        self.places = blocks.places(n_heads, n_key_heads)
        self._masks = self.places.masks(terms.window)
        self._rows = _rows(query), _rows(key), _rows(value)
        self._heads = n_key_heads, n_heads // n_key_heads
        self._terms = terms
        self.dtype = torch.promote_types(query.dtype, torch.float32)

    def sources(self, plan: GatherPlan, width: int) -> torch.Tensor:
        """Room for a row of each place, and the row of zeros."""
        room = self._rows[0].new_empty((plan.n_sources + 1, width), dtype=self.dtype)
        room[-1] = 0
        return room

    def softmax(self, number: int) -> "_Softmax":
        """The softmax of one group."""
        n_keys = self.places.groups[number].key_tokens.shape[1]
        query_rows, key_rows, value_rows = self._rows
        key_index = self.places.keys.index[self.places.key_slices[number]]
        k = key_rows.index_select(0, key_index).to(self.dtype).view(-1, n_keys, key_rows.shape[1])
        v = value_rows.index_select(0, key_index).to(self.dtype).view(-1, n_keys, value_rows.shape[1])
        query_index = self.places.queries.index[self.places.query_slices[number]]
        q = query_rows.index_select(0, query_index).to(self.dtype).mul_(self._terms.scale)
        q = q.view(len(k), -1, query_rows.shape[1])
        scores = torch.bmm(q, k.transpose(1, 2))
        tanh = None
        if self._terms.softcap is not None:
            tanh = scores.div_(self._terms.softcap).tanh_()
            scores = tanh * self._terms.softcap
        mask = self._masks[number]
        n_heads, group = self._heads
        scores.view(n_heads, len(mask), group, *mask.shape[2:]).add_(mask)
        if self._terms.sinks is None:
            return _Softmax(q, k, v, tanh, torch.softmax(scores, -1))
        columns = self._sink_columns(self._terms.sinks, scores, len(mask))
        p = torch.softmax(torch.cat([scores, columns], -1), -1)[..., :-1].contiguous()
        return _Softmax(q, k, v, tanh, p)

    def sink_share(self, number: int, p: torch.Tensor, delta: torch.Tensor) -> torch.Tensor:
        """(H,): each sink's probability times delta, summed over the rows of a group."""
        n = len(self.places.groups[number].query_tokens)
        share = (1 - p.sum(-1, keepdim=True)).mul_(delta)
        n_heads, group = self._heads
        return share.view(n_heads, n, group, -1).sum((1, 3)).flatten()

    def _sink_columns(self, sinks: torch.Tensor, scores: torch.Tensor, n: int) -> torch.Tensor:
        n_heads, group = self._heads
        rows = scores.shape[1] // group
        sinks = sinks.to(self.dtype).view(n_heads, 1, group, 1)
        return sinks.expand(n_heads, n, group, rows).reshape(len(scores), -1, 1)


def _rows(states: torch.Tensor) -> torch.Tensor:
    """(1, heads, T, d) -> (T * heads, d): a view, where memory lies as projections leave it."""
    return states[0].transpose(0, 1).reshape(-1, states.shape[-1])


def _heads(rows: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
    """The inverse of `_rows`, in the dtype of `like`."""
    return rows.view(like.shape[2], like.shape[1], -1).transpose(0, 1)[None].to(like.dtype)
