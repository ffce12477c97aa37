"""What transformers hands over: passed on whole, or refused by name, and never ignored."""

import pytest
import torch
from transformers import AttentionInterface
from transformers.masking_utils import AttentionMaskInterface

from stages.scoring.attention.contract import Terms, UnsupportedModel
from stages.scoring.attention.registered import NAME, pack_attention, register, window_marker

CPU = torch.device("cpu")
STATES = torch.randn(3, 1, 2, 5, 16, generator=torch.Generator().manual_seed(0)).unbind()


class Recorder:
    """A pack's attention that remembers its call."""

    def __call__(self, query, key, value, terms):
        self.states, self.terms = (query, key, value), terms
        return "output"


def attend(module=None, mask=None, **options):
    """Calls the attention function as a layer does; returns the pack's record."""
    mask = window_marker(use_vmap=False, device=CPU) if mask is None else mask
    pack = Recorder()
    output = pack_attention(module or torch.nn.Module(), *STATES, mask, **{"pack": pack} | options)
    assert output == ("output", None)
    assert all(mine is theirs for mine, theirs in zip(pack.states, STATES, strict=True))
    return pack.terms


def refusal(*arguments, **options):
    with pytest.raises(UnsupportedModel) as refused:
        attend(*arguments, **options)
    return str(refused.value)


def test_transformers_knows_the_name():
    register()
    assert AttentionInterface()[NAME] is pack_attention
    assert AttentionMaskInterface()[NAME] is window_marker
    assert not [word for word in ("sdpa", "flash", "flex") if word in NAME]


def test_terms_reach_the_pack():
    sinks = torch.zeros(2)
    mask = window_marker(use_vmap=False, device=CPU, local_size=3)
    terms = attend(mask=mask, scaling=0.5, sliding_window=3, softcap=2.0, s_aux=sinks)
    assert terms == Terms(scale=0.5, window=3, softcap=2.0, sinks=sinks)


def test_a_layer_that_asks_for_nothing_gets_the_usual_scale():
    assert attend() == Terms(scale=16**-0.5)


def test_an_unknown_argument_with_a_value_is_refused_by_name():
    assert refusal(position_bias=torch.zeros(1)) == "its attention takes position_bias"
    assert refusal(head_mask=1.0, alibi=True, position_ids=None) == "its attention takes alibi, head_mask"
    assert refusal(is_causal=False) == "its attention takes is_causal"


@pytest.mark.parametrize(
    "harmless",
    [
        {"position_ids": torch.arange(5)},
        {"use_cache": False},
        {"is_causal": True},
        {"is_causal": None},
        {"position_bias": None},
        {"output_attentions": False},
        {"dropout": 0.0},
    ],
    ids=lambda argument: "_".join(argument),
)
def test_an_argument_without_effect_is_not_refused(harmless):
    assert attend(**harmless) == attend()


def test_dropout_is_refused():
    assert refusal(dropout=0.1) == "dropout is on (0.1)"


def test_attention_that_is_not_causal_is_refused():
    module = torch.nn.Module()
    module.is_causal = False
    assert refusal(module) == "its attention is not causal"


def test_a_model_that_loses_the_pack_is_refused():
    assert refusal(pack=None) == "the model does not hand the pack down to its attention"


@pytest.mark.parametrize(("in_mask", "in_call"), [(None, 4), (4, None), (4, 5)])
def test_a_window_that_stands_in_the_mask_or_the_call_alone_is_refused(in_mask, in_call):
    mask = window_marker(use_vmap=False, device=CPU, local_size=in_mask)
    assert refusal(mask=mask, sliding_window=in_call) == "its mask asks for another window than its attention"


@pytest.mark.parametrize("mask", [torch.zeros(1, 1, 5, 5), torch.zeros(0)], ids=["dense", "flat"])
def test_a_mask_that_is_no_marker_is_refused(mask):
    assert refusal(mask=mask) == "the model does not make its masks the common way"


def test_no_mask_at_all_is_refused():
    with pytest.raises(UnsupportedModel) as refused:
        pack_attention(torch.nn.Module(), *STATES, None, pack=Recorder())
    assert str(refused.value) == "the model does not make its masks the common way"


def test_a_marker_holds_nothing_but_its_window():
    full = window_marker(use_vmap=False, device=CPU, batch_size=1, allow_is_causal_skip=False)
    windowed = window_marker(use_vmap=False, device=CPU, local_size=7)
    assert (full.shape, windowed.shape) == ((1, 1, 0, 0), (1, 8, 0, 0))


def test_a_mask_with_rules_of_its_own_is_refused():
    with pytest.raises(UnsupportedModel) as refused:
        window_marker(use_vmap=True, device=CPU)
    assert str(refused.value) == "its mask has rules of its own"
