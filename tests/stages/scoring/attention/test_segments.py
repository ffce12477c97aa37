"""Segments attention against a dense masked softmax in fp64 that knows nothing of blocks."""

import pytest
import torch

from stages.scoring.attention.blocks import BLOCK_ROWS
from stages.scoring.attention.contract import Segment, Terms
from stages.scoring.attention.segments import SegmentsAttention
from tests.families import relative_difference

CPU = torch.device("cpu")


class DenseAttention:
    """Every query against every key of the pack, with what it may not read masked out; fp64."""

    def __init__(self, segments, n_tokens, _):
        self.live = segments[-1].stop
        self.distance = torch.full((n_tokens, n_tokens), -1)  # how far back a key lies, if it may be read
        for s in segments:
            readable = [*range(s.prefix_start, s.prefix_stop), *range(s.start, s.stop)]
            for place, query in enumerate(range(s.start, s.stop), s.prefix_stop - s.prefix_start):
                for back in range(place + 1):
                    self.distance[query, readable[place - back]] = back

    def __call__(self, query, key, value, terms):
        scale, window, softcap, sinks = terms
        n_heads, n_tokens = query.shape[1:3]
        query, key, value = (states[0].double() for states in (query, key, value))
        key, value = (states.repeat_interleave(n_heads // len(states), dim=0) for states in (key, value))
        scores = query @ key.transpose(1, 2) * scale
        if softcap is not None:
            scores = softcap * torch.tanh(scores / softcap)
        readable = (self.distance >= 0) & (self.distance < (window or n_tokens))
        weights = scores.masked_fill(~readable, float("-inf")).exp()
        total = weights.sum(-1) + (torch.arange(n_tokens) >= self.live)  # padding reads nothing: 0 / 1
        if sinks is not None:
            total = total + sinks.double().exp()[:, None]
        return (weights / total[..., None] @ value).transpose(0, 1)[None]


CASES = {
    "plain": {},
    "one_head": {"heads": (1, 1)},
    "many_queries_a_key": {"heads": (6, 2)},
    "a_head_each": {"heads": (4, 4)},
    "wide_values": {"widths": (8, 24)},
    "narrow_values": {"widths": (16, 4)},
    "window": {"window": 7},
    "window_of_two": {"window": 2},
    "cap": {"softcap": 1.5},
    "sinks": {"sinks": torch.tensor([-2.0, 0.0, 1.0, 3.0])},
    "all": {"window": 11, "softcap": 2.0, "sinks": torch.tensor([-2.0, 0.0, 1.0, 3.0]), "scale": 0.7, "widths": (8, 6)},
}


@pytest.fixture(params=[None, 32], ids=["whole_blocks", "blocks_of_32"])
def block_rows(request, monkeypatch):
    if request.param:
        monkeypatch.setattr("stages.scoring.attention.blocks.BLOCK_ROWS", request.param)
        monkeypatch.setattr("stages.scoring.attention.blocks.GROUP_SCORES", 8192)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_outputs_and_gradients_are_those_of_a_dense_softmax(random_pack, block_rows, case, dtype):
    shape = {name: case[name] for name in ("heads", "widths") if name in case}
    terms = {name: term for name, term in case.items() if name not in shape}
    if "sinks" in terms:
        terms["sinks"] = terms["sinks"].to(dtype)
    for seed in range(2):
        pack = random_pack(**shape, dtype=dtype, seed=seed, longest=70)
        live = pack.segments[-1].stop
        ours, to_ours = pack.values_and_gradients(SegmentsAttention, **terms)
        exact, to_exact = pack.values_and_gradients(DenseAttention, **terms)
        assert ours.shape == exact.shape and ours.dtype == dtype
        for mine, theirs in zip([ours, *to_ours], [exact, *to_exact], strict=True):
            assert mine.isfinite().all() and mine.dtype == dtype
            # Computed in fp32, rounded once.
            assert relative_difference(mine.double(), theirs.double()) < (1e-6 if dtype == torch.float32 else 2**-8)
        assert not ours[:, live:].any() and ours[:, :live].any(-1).all()
        assert not any(gradient[:, :, live:].any() for gradient in to_ours[:3])


def test_blocks_of_the_real_size_are_joined_rightly(random_pack):
    pack = random_pack(heads=(2, 1), longest=330, seed=3)
    assert max(segment.stop - segment.start for segment in pack.segments) > 2 * BLOCK_ROWS
    ours, to_ours = pack.values_and_gradients(SegmentsAttention, window=150)
    exact, to_exact = pack.values_and_gradients(DenseAttention, window=150)
    for mine, theirs in zip([ours, *to_ours], [exact, *to_exact], strict=True):
        assert relative_difference(mine, theirs) < 1e-6


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_number_of_blocks_that_are_multiplied_together_changes_no_bit(random_pack, monkeypatch, dtype):
    pack = random_pack(dtype=dtype, longest=100)
    monkeypatch.setattr("stages.scoring.attention.blocks.BLOCK_ROWS", 16)
    together = pack.values_and_gradients(SegmentsAttention, softcap=2.0)
    monkeypatch.setattr("stages.scoring.attention.blocks.GROUP_SCORES", 1)
    one_by_one = pack.values_and_gradients(SegmentsAttention, softcap=2.0)
    assert torch.equal(together[0], one_by_one[0])
    assert torch.equal(together[1][0], one_by_one[1][0])  # a query stands in one block; keys are sums over blocks


def test_one_pack_serves_layers_of_many_kinds(random_pack):
    """Plans and masks are kept from layer to layer; layers have unlike windows and numbers of heads."""
    packs = [random_pack(heads=heads) for heads in ((4, 2), (2, 2), (4, 2), (4, 4))]
    shared = SegmentsAttention(packs[0].segments, packs[0].n_tokens, CPU)
    for window in (None, 7, None, 3):
        for pack in packs:
            theirs, to_theirs = pack.values_and_gradients(SegmentsAttention, window=window)
            ours, to_ours = pack.values_and_gradients(lambda *_: shared, window=window)
            assert all(torch.equal(a, b) for a, b in zip([ours, *to_ours], [theirs, *to_theirs], strict=True))


def test_a_segment_reads_its_prefix_and_itself_and_nothing_else():
    """Values are one-hot, scores all equal: each output is the mean of what its row reads."""
    segments = [Segment(0, 2, 0, 0), Segment(2, 4, 0, 2), Segment(4, 5, 0, 2)]
    flat = torch.zeros(1, 1, 6, 8)
    values = torch.eye(6)[None, None]
    out = SegmentsAttention(segments, 6, CPU)(flat, flat, values, Terms(1.0))
    third = 1 / 3
    torch.testing.assert_close(
        out[0, :, 0],
        torch.tensor(
            [
                [1, 0, 0, 0, 0, 0],
                [0.5, 0.5, 0, 0, 0, 0],
                [third, third, third, 0, 0, 0],
                [0.25, 0.25, 0.25, 0.25, 0, 0],
                [third, third, 0, 0, third, 0],
                [0, 0, 0, 0, 0, 0],
            ]
        ),
    )


def test_scores_of_any_size_stay_finite(random_pack):
    for scale in (1e-8, 1e4):
        pack = random_pack()
        ours, to_ours = pack.values_and_gradients(SegmentsAttention, scale=scale)
        assert all(tensor.isfinite().all() for tensor in (ours, *to_ours))


def test_a_gradient_that_arrives_at_padding_reaches_no_key():
    """Padding's output is the constant 0, whatever comes back to it."""
    segments = [Segment(0, 5, 0, 0), Segment(5, 9, 0, 5)]
    states = torch.randn(3, 1, 2, 16, 8, generator=torch.Generator().manual_seed(0))
    upstream = torch.randn(1, 16, 2, 8, generator=torch.Generator().manual_seed(1))
    seen = []
    for padding in (0.0, 1.0):
        leaves = [s.clone().requires_grad_() for s in states]
        out = SegmentsAttention(segments, 16, CPU)(*leaves, Terms(0.3))
        gradient = upstream.clone()
        gradient[:, 9:] *= padding
        out.backward(gradient)
        seen.append([leaf.grad for leaf in leaves])
    for zero, some in zip(*seen, strict=True):
        torch.testing.assert_close(zero, some)
