"""Sketches of responses: 64 bytes that tell how near two texts are, without either text.

A sketch is the bottom-k MinHash (k = 16) of the set of a response's tokens and pairs of neighbouring tokens:
A. Broder, "On the resemblance and containment of documents", 1997.
"""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from data.identity import TokenIds

SKETCH_VALUES = 16
SKETCH_BYTES = 4 * SKETCH_VALUES
Sketches = npt.NDArray[np.uint32]

_UNUSED = 0xFFFFFFFF
_AT_ONCE = 256  # responses, whose hashes stay in the cache
_FEW = 48  # hashes of a response, of which the smallest are its sketch
_HALF = np.uint64(32)
_ONE = np.uint64(1)  # token 0 would hash to 0, and stand in every sketch
_FIRST, _SECOND, _MIX = (np.uint64(odd) for odd in (0x9E3779B97F4A7C15, 0xC2B2AE3D27D4EB4F, 0xFF51AFD7ED558CCD))


def sketch(ids: TokenIds) -> bytes:
    """The 16 smallest distinct hashes of the tokens and bigrams of `ids` (L,): little-endian uint32, ascending.

    Unused places hold 0xffffffff: where there is one (as in every response of up to 8 tokens) nothing was left out.
    """
    return sketches([ids])[0]


def sketches(responses: Sequence[TokenIds]) -> list[bytes]:
    """The sketch of each response; hundreds at once cost far less than one by one."""
    starts = range(0, len(responses), _AT_ONCE)
    return [found for start in starts for found in _sketches(responses[start : start + _AT_ONCE], _FEW)]


def _sketches(responses: Sequence[TokenIds], few: int) -> list[bytes]:
    """Of a long response only the hashes below a bound are sorted, `few` of them if it repeats nothing."""
    counts = np.array([len(ids) for ids in responses], np.int64)
    wide = np.concatenate([np.empty(0, np.int32), *responses]).astype(np.uint64) + _ONE
    owners = np.repeat(np.arange(len(responses), dtype=np.uint64), counts)
    tokens = wide * _FIRST
    inside = owners[:-1] == owners[1:]  # no bigram spans two responses
    hashes = np.concatenate((tokens, (tokens[:-1] + wide[1:] * _SECOND)[inside]))
    hashes ^= hashes >> _HALF
    hashes *= _MIX
    hashes >>= _HALF
    owners = np.concatenate((owners, owners[:-1][inside]))
    bounds = np.uint64(few << 32) // np.maximum(2 * counts, few).astype(np.uint64)
    low = hashes < bounds[owners]
    keys = (owners[low] << _HALF) | hashes[low]
    keys.sort()  # by response, then by hash
    keys = keys[np.diff(keys, prepend=keys[:1] + _ONE) != 0]  # what a response has twice counts once
    owner = (keys >> _HALF).astype(np.int64)
    members = np.bincount(owner, minlength=len(responses))
    place = np.arange(len(keys)) - np.repeat(np.cumsum(members) - members, members)
    table = np.full((len(responses), SKETCH_VALUES), _UNUSED, "<u4")
    first = place < SKETCH_VALUES
    table[owner[first], place[first]] = keys[first].astype("<u4")
    found = [row.tobytes() for row in table]
    for i in np.flatnonzero((members < SKETCH_VALUES) & (2 * counts > few)).tolist():
        (found[i],) = _sketches([responses[i]], 2 * len(responses[i]))  # it repeats much, and all of it is looked at
    return found


def similarity(a: Sketches, b: Sketches) -> npt.NDArray[np.float64]:
    """Estimated Jaccard similarity of the sets behind the sketches `a` and `b` (N, 16), row by row: (N,).

    The share of common values among all values, of either sketch, below the smaller of the two largest values: up to
    there both sets are known, so these are a uniform sample of the union, of 15 to 30 values. It has no bias, and less
    variance than the 16 smallest of the union (Broder's estimator), as E. Cohen and H. Kaplan show in "Leveraging
    discarded samples for tighter estimation of multiple-set aggregates", 2009. Of two sets with less than 16 members
    everything is known, and the result is exact. Two empty sets are the same.
    """
    ours, theirs = np.ascontiguousarray(a.T), np.ascontiguousarray(b.T)  # (16, N): one value of every row at a time
    known = np.minimum(ours[-1], theirs[-1])
    common = np.zeros(len(a), np.uint8)
    for value in ours:
        common += (theirs == value).any(axis=0) & (value < known)
    union = (ours < known).sum(axis=0) + (theirs < known).sum(axis=0) - common
    return np.where(union == 0, 1.0, common / np.maximum(union, 1))
