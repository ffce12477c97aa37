"""Flex attention on a CPU, which computes it uncompiled and forward only, against segments attention."""

import pytest
import torch

from stages.scoring.attention.contract import Terms, UnsupportedModel
from stages.scoring.attention.flex import FlexAttention
from stages.scoring.attention.segments import SegmentsAttention
from tests.families import relative_difference

CPU = torch.device("cpu")
TERMS = {
    "plain": {},
    "window": {"window": 7},
    "window_of_one": {"window": 1},
    "cap": {"softcap": 1.5},
    "both": {"window": 7, "softcap": 1.5, "scale": 0.7},
}


@pytest.mark.filterwarnings("ignore:flex_attention called without torch.compile:UserWarning")
@pytest.mark.parametrize("heads", [(4, 2), (4, 4)])
@pytest.mark.parametrize("terms", TERMS.values(), ids=TERMS)
def test_values_are_those_of_segments(random_pack, heads, terms):
    pack = random_pack(heads=heads)
    terms = Terms(**{"scale": 0.3} | terms)
    live = pack.segments[-1].stop
    ours, theirs = (
        maker(pack.segments, pack.n_tokens, CPU)(pack.query, pack.key, pack.value, terms)
        for maker in (FlexAttention, SegmentsAttention)
    )
    assert ours.shape == theirs.shape and ours.is_contiguous()
    assert ours.isfinite().all()
    assert relative_difference(ours[:, :live], theirs[:, :live]) < 1e-6


@pytest.mark.filterwarnings("ignore:flex_attention called without torch.compile:UserWarning")
def test_one_pack_serves_layers_of_unlike_windows(random_pack):
    pack = random_pack()
    live = pack.segments[-1].stop
    flex, segments = (maker(pack.segments, pack.n_tokens, CPU) for maker in (FlexAttention, SegmentsAttention))
    for window in (None, 7, None, 3):
        ours, theirs = (
            attention(pack.query, pack.key, pack.value, Terms(0.3, window)) for attention in (flex, segments)
        )
        assert relative_difference(ours[:, :live], theirs[:, :live]) < 1e-6


def test_sinks_are_refused(random_pack):
    with pytest.raises(UnsupportedModel) as refusal:
        random_pack().values_and_gradients(FlexAttention, sinks=torch.zeros(4))
    assert str(refusal.value) == "flex attention knows no sinks here"
