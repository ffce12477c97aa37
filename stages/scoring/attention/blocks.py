"""Cuts a pack's queries into blocks and puts blocks of one shape together, for attention in batched products.

Each segment's queries are cut into blocks; a block reads its prompt and its own segment up to its last row. Blocks are
padded to a shape that only the response decides, so that a block is computed alike whatever stands beside it.

Legend: T tokens of the pack, H query heads, K key heads, G = H / K, n blocks of a group, r query rows and c keys of a
block.
"""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import torch

from stages.scoring.attention.contract import Segment
from stages.scoring.attention.gather import GatherPlan
from stages.scoring.transfer import on_device

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


class Group(NamedTuple):
    """Blocks of one shape: token numbers of their queries (n, r) and keys (n, c), and each row's last key (n, r)."""

    query_tokens: np.ndarray
    key_tokens: np.ndarray
    last_key: np.ndarray


class Blocks:
    """The blocks of a pack of `n_tokens` tokens, the last of which is padding."""

    def __init__(self, segments: Sequence[Segment], n_tokens: int, device: torch.device) -> None:
        self.n_tokens = n_tokens
        self.device = device
        self._by_shape: dict[tuple[int, int], list[Block]] = {}
        for block in _cut(segments):
            self._by_shape.setdefault(block.shape, []).append(block)
        self._places: dict[tuple[int, int], Places] = {}

    def places(self, n_heads: int, n_key_heads: int) -> "Places":
        """The places of the groups for this number of heads; made once a pack."""
        heads = (n_heads, n_key_heads)
        if heads not in self._places:
            self._places[heads] = Places(self, n_heads, n_key_heads)
        return self._places[heads]

    def groups(self, n_heads: int) -> Iterator[Group]:
        """Groups of blocks small enough for this number of heads."""
        padding = self.n_tokens - 1
        for (rows, keys), blocks in self._by_shape.items():
            most = max(1, GROUP_SCORES // (rows * keys * n_heads))
            for start in range(0, len(blocks), most):
                yield _group(blocks[start : start + most], rows, keys, padding)


class Places:
    """Where the groups' rows lie in the flat (T * H, d) queries and (T * K, d) keys, for one number of heads.

    Group by group a slice of query rows, laid out (K, n, G, r), and one of key rows, laid out (K, n, c).
    """

    def __init__(self, blocks: Blocks, n_heads: int, n_key_heads: int) -> None:
        self.groups = list(blocks.groups(n_heads))
        head = np.arange(n_heads).reshape(n_key_heads, 1, -1, 1)
        key_head = np.arange(n_key_heads).reshape(-1, 1, 1)
        queries = [(g.query_tokens[None, :, None, :] * n_heads + head).ravel() for g in self.groups]
        keys = [(g.key_tokens[None] * n_key_heads + key_head).ravel() for g in self.groups]

        def plan(index: list[np.ndarray], heads: int) -> GatherPlan:
            n_rows = blocks.n_tokens * heads
            return GatherPlan(np.concatenate(index), n_rows, n_rows - heads, blocks.device)

        self.queries, self.keys = plan(queries, n_heads), plan(keys, n_key_heads)
        self.query_slices, self.key_slices = _slices(queries), _slices(keys)
        self._device = blocks.device
        self._masks: dict[int | None, list[torch.Tensor]] = {}

    def masks(self, window: int | None) -> list[torch.Tensor]:
        """For each group (n, 1, r, c): 0 where a row may read a key, -inf elsewhere."""
        if window not in self._masks:
            self._masks[window] = [on_device(_mask(group, window), self._device) for group in self.groups]
        return self._masks[window]


def _cut(segments: Sequence[Segment]) -> Iterator[Block]:
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


def _mask(group: Group, window: int | None) -> np.ndarray:
    last, key = group.last_key[:, None, :, None], np.arange(group.key_tokens.shape[1])
    seen = key <= last if window is None else (key <= last) & (key > last - window)
    return np.where(seen, np.float32(0), np.float32("-inf"))


def _slices(parts: Sequence[np.ndarray]) -> list[slice]:
    stops = np.cumsum([len(part) for part in parts])
    return [slice(int(stop) - len(part), int(stop)) for part, stop in zip(parts, stops, strict=True)]
