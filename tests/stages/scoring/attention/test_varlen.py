"""Varlen attention as far as a CPU goes: what the kernel is handed, with a plain kernel in its place."""

import inspect
import sys
from itertools import pairwise

import pytest
import torch
from torch.nn.attention.varlen import varlen_attn

from stages.scoring.attention import varlen
from stages.scoring.attention.contract import Segment, Terms, UnsupportedModel
from stages.scoring.attention.segments import SegmentsAttention
from stages.scoring.attention.varlen import VarlenAttention, key_tokens
from tests.families import relative_difference

CPU = torch.device("cpu")
SEGMENTS = [Segment(0, 3, 0, 0), Segment(3, 5, 0, 3), Segment(5, 6, 0, 3), Segment(6, 8, 6, 6), Segment(8, 9, 6, 8)]


def plain_kernel(query, key, value, cu_seq_q, cu_seq_k, max_q, max_k, *, scale, window_size):
    """Sequence by sequence; a causal mask ends with the last query and the last key, as FlashAttention's does."""
    assert query.is_contiguous() and query.shape[1] == key.shape[1] == value.shape[1]
    left, right = window_size
    assert right == 0
    bounds_q, bounds_k = cu_seq_q.tolist(), cu_seq_k.tolist()
    assert max_q == max(stop - start for start, stop in pairwise(bounds_q))
    assert max_k == max(stop - start for start, stop in pairwise(bounds_k))
    outs = []
    for i in range(len(bounds_q) - 1):
        q, k, v = (
            states[bounds[i] : bounds[i + 1]].transpose(0, 1)
            for states, bounds in ((query, bounds_q), (key, bounds_k), (value, bounds_k))
        )
        last = torch.arange(q.shape[1])[:, None] + k.shape[1] - q.shape[1]
        at = torch.arange(k.shape[1])
        seen = (at <= last) & ((left < 0) | (at >= last - left))
        scores = (q @ k.transpose(1, 2) * scale).masked_fill(~seen, float("-inf"))
        outs.append((scores.softmax(-1) @ v).transpose(0, 1))
    return torch.cat(outs)


def newer_kernel(query, key, value, *places, scale, window_size, enable_gqa=False, num_splits=None):
    """As newer versions of torch have it: heads may be grouped if that is said, and splits may be forbidden."""
    assert num_splits == 1
    assert enable_gqa == (query.shape[1] != key.shape[1])
    key, value = (states.repeat_interleave(query.shape[1] // states.shape[1], dim=1) for states in (key, value))
    return plain_kernel(query, key, value, *places, scale=scale, window_size=window_size)


def oldest_kernel(query, *others, is_causal=False):
    """As torch 2.10 has it: no window, and one scale."""
    assert is_causal
    return plain_kernel(query, *others, scale=query.shape[-1] ** -0.5, window_size=(-1, 0))


KERNELS = {"2.10": oldest_kernel, "2.11": plain_kernel, "2.12": newer_kernel}


@pytest.fixture
def torch_with(monkeypatch):
    """Puts the kernel of a version of torch into its place."""

    def put(version):
        monkeypatch.setattr(varlen, "_varlen_attention", lambda: KERNELS[version])
        varlen._parameters.cache_clear()

    yield put
    varlen._parameters.cache_clear()


def same_as_segments(pack, **terms):
    ours, to_ours = pack.values_and_gradients(VarlenAttention, **terms)
    theirs, to_theirs = pack.values_and_gradients(SegmentsAttention, **terms)
    assert not ours[:, pack.segments[-1].stop :].any()
    for mine, other in zip([ours, *to_ours], [theirs, *to_theirs], strict=True):
        assert mine.shape == other.shape
        assert relative_difference(mine, other) < 1e-6


@pytest.mark.parametrize("window", [None, 2, 7])
@pytest.mark.parametrize("heads", [(4, 2), (4, 4)])
@pytest.mark.parametrize("version", ["2.11", "2.12"])
def test_values_and_gradients_are_those_of_segments(torch_with, random_pack, version, heads, window):
    torch_with(version)
    same_as_segments(random_pack(heads=heads), window=window)


@pytest.mark.parametrize("heads", [(4, 2), (4, 4)])
def test_before_windows_and_scales_packs_have_neither(torch_with, random_pack, heads):
    torch_with("2.10")
    pack = random_pack(heads=heads)
    usual = pack.query.shape[-1] ** -0.5
    same_as_segments(pack, scale=usual)
    for terms in ({"scale": usual, "window": 2}, {"scale": 1.01 * usual}):
        with pytest.raises(UnsupportedModel) as refusal:
            pack.values_and_gradients(VarlenAttention, **terms)
        assert str(refusal.value) == "varlen attention knows neither windows nor scales before torch 2.11"


def test_the_keys_of_a_segment_are_its_prefix_and_itself():
    assert key_tokens(SEGMENTS).tolist() == [0, 1, 2, 0, 1, 2, 3, 4, 0, 1, 2, 5, 6, 7, 6, 7, 8]


def test_what_the_kernel_is_handed(monkeypatch):
    calls = []

    def kernel(*tensors, **options):
        calls.append((tensors, options))
        return tensors[0]

    monkeypatch.setattr(varlen, "_varlen_attention", lambda: kernel)
    monkeypatch.setattr(varlen, "_parameters", lambda: frozenset({"scale", "window_size"}))
    query, key, value = torch.randn(3, 1, 2, 12, 8, generator=torch.Generator().manual_seed(0))
    for window, window_size in ((None, (-1, 0)), (1, (0, 0)), (8, (7, 0))):
        out = VarlenAttention(SEGMENTS, 12, CPU)(query, key, value, Terms(0.5, window))
        (queries, keys, values, cu_q, cu_k, max_q, max_k), options = calls[-1]
        assert options == {"scale": 0.5, "window_size": window_size}
        assert cu_q.tolist() == [0, 3, 5, 6, 8, 9] and cu_k.tolist() == [0, 3, 8, 12, 14, 17]
        assert cu_q.dtype == cu_k.dtype == torch.int32
        assert (max_q, max_k) == (3, 5)
        assert torch.equal(queries, query[0].transpose(0, 1)[:9])
        assert torch.equal(keys, key[0].transpose(0, 1)[key_tokens(SEGMENTS)])
        assert torch.equal(values, value[0].transpose(0, 1)[key_tokens(SEGMENTS)])
        assert out.shape == (1, 12, 2, 8) and not out[:, 9:].any()


@pytest.mark.parametrize("heads", [(4, 2), (4, 4)])
def test_the_installed_torch_knows_every_argument(random_pack, heads, monkeypatch):
    varlen._parameters.cache_clear()
    signature = inspect.signature(varlen_attn)

    def kernel(*tensors, **options):
        bound = signature.bind(*tensors, **options)
        assert list(bound.arguments)[:7] == ["query", "key", "value", "cu_seq_q", "cu_seq_k", "max_q", "max_k"]
        return bound.arguments["query"]

    expected = varlen._parameters()
    assert expected == set(signature.parameters)
    monkeypatch.setattr(varlen, "_varlen_attention", lambda: kernel)
    pack = random_pack(heads=heads)
    attention = VarlenAttention(pack.segments, pack.n_tokens, CPU)
    attention(pack.query, pack.key, pack.value, Terms(pack.query.shape[-1] ** -0.5))


@pytest.mark.parametrize("terms", [{"softcap": 2.0}, {"sinks": torch.zeros(4)}])
def test_caps_and_sinks_are_refused(random_pack, terms):
    with pytest.raises(UnsupportedModel) as refusal:
        random_pack().values_and_gradients(VarlenAttention, **terms)
    assert str(refusal.value) == "varlen attention knows neither soft caps nor sinks"


def test_a_torch_without_the_kernel_is_refused(random_pack, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch.nn.attention.varlen", None)
    with pytest.raises(UnsupportedModel) as refusal:
        random_pack().values_and_gradients(VarlenAttention)
    assert str(refusal.value) == "this version of torch has no variable-length attention"
