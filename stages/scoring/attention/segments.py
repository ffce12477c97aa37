"""Exact attention over packs on any device: blocks of queries, batched by shape.

Each segment's queries are cut into blocks; a block reads its prompt and its own segment up to its last row. Blocks are
padded to a shape that only the response decides, and all blocks of one shape are multiplied together, so that neither
the neighbours nor their number can change a bit of the result. Products are fp32; the scores of one group of blocks
live at a time, and the backward pass computes them again.

Legend: T tokens of the pack, H query heads, K key heads, G = H / K, n blocks of a group, r query rows and c keys of a
block, d head width, e width of the values.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from torch.autograd.function import once_differentiable

from stages.scoring.attention.gather import GatherPlan
from stages.scoring.attention.segment import Segment

BLOCK_ROWS = 128  # longer blocks waste more of the upper triangle, shorter ones more calls
GRANULE = 16  # block shapes are multiples of this
GROUP_SCORES = 2**22  # scores alive at a time (16 MiB in fp32): what stays in the cache


class Block(NamedTuple):
    """Query rows [start, stop) of a pack and the keys they read, in order: [prefix) and [own_start, stop)."""

    start: int
    stop: int
    prefix_start: int
    prefix_stop: int
    own_start: int

    @property
    def n_keys(self) -> int:
        """Keys of the last row."""
        return self.prefix_stop - self.prefix_start + self.stop - self.own_start

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and keys, padded."""
        return _round_up(self.stop - self.start), _round_up(self.n_keys)


@dataclass(frozen=True)
class Group:
    """Blocks of one shape: token numbers of their queries (n, r) and keys (n, c), and each row's last key (n, r)."""

    query_tokens: np.ndarray
    key_tokens: np.ndarray
    last_key: np.ndarray


@dataclass(frozen=True)
class Places:
    """Where the groups' rows come from and go to, for one number of query and key heads.

    Group by group a slice of query rows, laid out (K, n, G, r), and one of key rows, laid out (K, n, c).
    """

    queries: GatherPlan
    keys: GatherPlan
    query_slices: list[slice]
    key_slices: list[slice]


class SegmentsAttention:
    """The attention of one pack: `n_tokens` tokens, of which the last ones are padding and belong to no segment."""

    def __init__(self, segments: Sequence[Segment], n_tokens: int, device: torch.device) -> None:
        self.n_tokens = n_tokens
        self._device = device
        self._blocks: dict[tuple[int, int], list[Block]] = {}
        for block in _blocks(segments):
            self._blocks.setdefault(block.shape, []).append(block)
        self._places: dict[tuple[int, int], tuple[list[Group], Places]] = {}
        self._masks: dict[tuple[int, int | None], list[torch.Tensor]] = {}

    def __call__(
        self,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        *,
        scale: float,
        window: int | None,
        softcap: float | None,
        sinks: torch.Tensor | None,
    ) -> torch.Tensor:
        """Query (1, H, T, d), key (1, K, T, d), value (1, K, T, e) -> (1, T, H, e); padding gets zeros.

        A row sees the last `window` tokens only, if given; scores are capped by softcap * tanh(score / softcap); each
        head's sink (H,) takes part in the softmax as a key without a value.
        """
        terms = Terms(scale, window, softcap)
        output: torch.Tensor = _Attention.apply(query, key, value, sinks, self, terms)  # type: ignore[no-untyped-call]
        return output

    def places(self, n_heads: int, n_key_heads: int) -> tuple[list[Group], Places]:
        """Groups of blocks small enough for this number of heads, and their places; made once a pack."""
        heads = (n_heads, n_key_heads)
        if heads not in self._places:
            groups = list(self._groups(n_heads))
            self._places[heads] = groups, _places(groups, n_heads, n_key_heads, self.n_tokens, self._device)
        return self._places[heads]

    def masks(self, n_heads: int, groups: Sequence[Group], window: int | None) -> list[torch.Tensor]:
        """For each group (n, 1, r, c): 0 where a row may read a key, -inf elsewhere."""
        which = (n_heads, window)
        if which not in self._masks:
            self._masks[which] = [_mask(group, window).to(self._device) for group in groups]
        return self._masks[which]

    def _groups(self, n_heads: int) -> Iterator[Group]:
        padding = self.n_tokens - 1
        for (rows, keys), blocks in self._blocks.items():
            most = max(1, GROUP_SCORES // (rows * keys * n_heads))
            for start in range(0, len(blocks), most):
                yield _group(blocks[start : start + most], rows, keys, padding)


class Terms(NamedTuple):
    """What a model's scores go through before the softmax."""

    scale: float
    window: int | None
    softcap: float | None


class _Attention(torch.autograd.Function):
    """Scores are scale * q k^T, capped, masked, soft-maxed in fp32; the output is rounded once."""

    @staticmethod
    def forward(
        ctx: Any,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        sinks: torch.Tensor | None,
        pack: SegmentsAttention,
        terms: Terms,
    ) -> torch.Tensor:
        ctx.save_for_backward(query, key, value, sinks)
        ctx.pack, ctx.terms = pack, terms
        work = _Work(query, key, value, sinks, pack, terms)
        out = work.sources(work.places.queries, value.shape[-1])
        for number in range(len(work.groups)):
            _, _, v, _, p = work.softmax(number)
            torch.bmm(p, v, out=out[work.places.query_slices[number]].view(len(p), -1, v.shape[-1]))
        rows = work.places.queries.sum_back(out)
        return rows.view(1, pack.n_tokens, -1, value.shape[-1]).to(query.dtype)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        query, key, value, sinks = ctx.saved_tensors
        work = _Work(query, key, value, sinks, ctx.pack, ctx.terms)
        to_query = work.sources(work.places.queries, query.shape[-1])
        to_key = work.sources(work.places.keys, key.shape[-1])
        to_value = work.sources(work.places.keys, value.shape[-1])
        to_sinks = None if sinks is None else torch.zeros_like(sinks, dtype=to_query.dtype)
        rows = _rows(gradient.transpose(1, 2)).clone()
        rows[-query.shape[1] :] = 0  # the last token is padding: what rows of padding read
        for number in range(len(work.groups)):
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


class _Work:
    """One layer's tensors as the groups want them."""

    def __init__(
        self,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        sinks: torch.Tensor | None,
        pack: SegmentsAttention,
        terms: Terms,
    ) -> None:
        n_heads, n_key_heads = query.shape[1], key.shape[1]
        self.groups, self.places = pack.places(n_heads, n_key_heads)
        self._masks = pack.masks(n_heads, self.groups, terms.window)
        self._rows = _rows(query), _rows(key), _rows(value)
        self._heads = n_key_heads, n_heads // n_key_heads
        self._sinks = sinks
        self._terms = terms
        self.dtype = torch.promote_types(query.dtype, torch.float32)

    def sources(self, plan: GatherPlan, width: int) -> torch.Tensor:
        """Room for a row of each place, and the row of zeros."""
        room = self._rows[0].new_empty((plan.n_sources + 1, width), dtype=self.dtype)
        room[-1] = 0
        return room

    def softmax(
        self, number: int
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor | None, torch.Tensor]:
        """Of one group: scaled queries, keys, values, tanh of the capped scores (or None), and probabilities."""
        n_keys = self.groups[number].key_tokens.shape[1]
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
        if self._sinks is None:
            return q, k, v, tanh, torch.softmax(scores, -1)
        columns = self._sink_columns(scores, len(mask))
        return q, k, v, tanh, torch.softmax(torch.cat([scores, columns], -1), -1)[..., :-1].contiguous()

    def sink_share(self, number: int, p: torch.Tensor, delta: torch.Tensor) -> torch.Tensor:
        """(H,): each sink's probability times delta, summed over the rows of a group."""
        n = len(self.groups[number].query_tokens)
        share = (1 - p.sum(-1, keepdim=True)).mul_(delta)
        n_heads, group = self._heads
        return share.view(n_heads, n, group, -1).sum((1, 3)).flatten()

    def _sink_columns(self, scores: torch.Tensor, n: int) -> torch.Tensor:
        assert self._sinks is not None
        n_heads, group = self._heads
        rows = scores.shape[1] // group
        sinks = self._sinks.to(self.dtype).view(n_heads, 1, group, 1)
        return sinks.expand(n_heads, n, group, rows).reshape(len(scores), -1, 1)


def _blocks(segments: Sequence[Segment]) -> Iterator[Block]:
    for segment in segments:
        for start in range(segment.start, segment.stop, BLOCK_ROWS):
            stop = min(start + BLOCK_ROWS, segment.stop)
            yield Block(start, stop, segment.prefix_start, segment.prefix_stop, segment.start)


def _round_up(n: int) -> int:
    return -(-n // GRANULE) * GRANULE


def _group(blocks: Sequence[Block], rows: int, keys: int, padding: int) -> Group:
    query_tokens = np.full((len(blocks), rows), padding)
    key_tokens = np.full((len(blocks), keys), padding)
    last_key = np.empty((len(blocks), rows), dtype=np.int64)
    for i, block in enumerate(blocks):
        n_rows, n_prefix = block.stop - block.start, block.prefix_stop - block.prefix_start
        query_tokens[i, :n_rows] = np.arange(block.start, block.stop)
        key_tokens[i, :n_prefix] = np.arange(block.prefix_start, block.prefix_stop)
        key_tokens[i, n_prefix : block.n_keys] = np.arange(block.own_start, block.stop)
        # Rows of padding read what the last row reads: a softmax over nothing would not be a number.
        last_key[i] = np.minimum(np.arange(rows), n_rows - 1) + block.n_keys - n_rows
    return Group(query_tokens, key_tokens, last_key)


def _mask(group: Group, window: int | None) -> torch.Tensor:
    last, key = group.last_key[:, None, :, None], np.arange(group.key_tokens.shape[1])
    seen = key <= last if window is None else (key <= last) & (key > last - window)
    return torch.from_numpy(np.where(seen, np.float32(0), np.float32("-inf")))


def _places(groups: Sequence[Group], n_heads: int, n_key_heads: int, n_tokens: int, device: torch.device) -> Places:
    """Rows of the flat (T * heads, d) matrices, group by group."""
    head = np.arange(n_heads).reshape(n_key_heads, 1, -1, 1)
    key_head = np.arange(n_key_heads).reshape(-1, 1, 1)
    queries = [(g.query_tokens[None, :, None, :] * n_heads + head).ravel() for g in groups]
    keys = [(g.key_tokens[None] * n_key_heads + key_head).ravel() for g in groups]
    padding = n_tokens - 1
    return Places(
        GatherPlan(np.concatenate(queries), n_tokens * n_heads, padding * n_heads, device),
        GatherPlan(np.concatenate(keys), n_tokens * n_key_heads, padding * n_key_heads, device),
        _slices(queries),
        _slices(keys),
    )


def _slices(parts: Sequence[np.ndarray]) -> list[slice]:
    stops = np.cumsum([len(part) for part in parts])
    return [slice(int(stop) - len(part), int(stop)) for part, stop in zip(parts, stops, strict=True)]


def _rows(states: torch.Tensor) -> torch.Tensor:
    """(1, heads, T, d) -> (T * heads, d): a view, where memory lies as projections leave it."""
    return states[0].transpose(0, 1).reshape(-1, states.shape[-1])


def _heads(rows: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
    """The inverse of `_rows`, in the dtype of `like`."""
    return rows.view(like.shape[2], like.shape[1], -1).transpose(0, 1)[None].to(like.dtype)
