"""Operations of a training step, by hand and as torch counts them, and the share of a device that they come to."""

import numpy as np
import pytest

from data.schema import Response, TokenPair
from stages.training.flops import ModelCost, Utilisation, Work, model_cost, peak_flops
from tests.families import build
from tests.tiny import build_model


def pair(prompt, chosen, rejected):
    """Of these token ids; every token of a response is scored but the first."""
    sides = [
        Response(np.array(prompt, np.int32), np.array(ids, np.int32), np.arange(len(ids)) > 0)
        for ids in (chosen, rejected)
    ]
    return TokenPair(0, "x:1", *sides)


def test_a_shared_prompt_is_read_once():
    work = Work.of([pair([1, 2, 3], [4, 5], [6])])
    assert work.tokens == 3 + 2 + 1
    # prompt: 1 + 2 + 3; chosen: 4 + 5; rejected: 4
    assert work.context == 6 + 9 + 4
    assert work.scored == 1 + 0


def test_a_response_that_two_pairs_have_is_read_once():
    one, other = pair([1, 2], [3, 4], [5]), pair([1, 2], [3, 4], [6, 7, 8])
    assert Work.of([one, other]).tokens == 2 + 2 + 1 + 3
    assert Work.of([one, pair([9], [3, 4], [5])]).tokens == (2 + 2 + 1) + (1 + 2 + 1)


def test_the_parameters_of_a_small_llama_by_hand():
    """32 wide, 4 heads of 8 (2 for keys), 64 within, two layers, 320 tokens; the tied matrix is the head's."""
    layer = 32 * 32 + 2 * 32 * 16 + 32 * 32 + 3 * 32 * 64
    expected = ModelCost(2 * layer, 2 * layer, 320 * 32, 320 * 32, attention=2 * 32)
    assert model_cost(build_model()) == expected
    assert model_cost(build_model(tie_word_embeddings=False)) == expected


@pytest.mark.parametrize("family", ["llama", "qwen3", "phi3", "gpt2", "gptj", "starcoder2", "granite", "falcon", "mpt"])
def test_operations_are_those_that_torch_counts(family):
    """Forward and backward of one sequence; torch counts all T x T products of attention, masked ones too.

    With older versions of transformers also the angles of rotary positions: a few hundred operations of millions.
    """
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    model, n_tokens = build(family, attn_implementation="eager"), 24
    with FlopCounterMode(display=False) as counter:
        model(input_ids=torch.arange(n_tokens)[None], use_cache=False).logits.sum().backward()
    ours = model_cost(model).flops(Work(n_tokens, n_tokens**2, n_tokens))
    assert ours == pytest.approx(counter.get_total_flops(), rel=1e-4)


def test_frozen_matrices_have_no_gradient_of_their_own():
    model = build_model()
    before = model_cost(model)
    for parameter in model.parameters():
        parameter.requires_grad_(False)
    model.model.layers[0].mlp.up_proj.weight.requires_grad_()
    cost, work = model_cost(model), Work(tokens=10, context=0, scored=3)
    assert cost == before._replace(body_trained=32 * 64, head_trained=0)
    assert cost.flops(work) == 10 * (4 * cost.body + 2 * 32 * 64) + 3 * 4 * cost.head


def test_layers_with_a_window_count_with_their_matrices_only():
    model = build("gemma2")
    assert model.config.layer_types == ["sliding_attention", "full_attention"] * 2
    assert model_cost(model).attention == 2 * 32


@pytest.mark.parametrize("family", ["mixtral", "gpt_oss", "mamba2"])
def test_where_parameters_do_not_tell_the_cost_it_is_not_known(family):
    assert model_cost(build(family)) is None


def test_packed_weights_have_no_known_cost():
    import torch

    model = build_model()
    proj = model.model.layers[1].mlp.up_proj
    proj.weight = torch.nn.Parameter(torch.zeros((1024, 1), dtype=torch.uint8), requires_grad=False)
    assert model_cost(model) is None


@pytest.mark.parametrize(
    ("device", "teraflops"),
    [
        ("NVIDIA A100-SXM4-80GB", 312),
        ("NVIDIA A100 80GB PCIe", 312),
        ("NVIDIA A100-PCIE-40GB", 312),
        ("NVIDIA H100 80GB HBM3", 989.5),
        ("NVIDIA H100 PCIe", 756.5),
        ("NVIDIA H100 NVL", 835.5),
        ("NVIDIA H200", 989.5),
        ("NVIDIA GH200 480GB", 989.5),
        ("NVIDIA B200", 2250),
        ("NVIDIA L4", 121),
        ("NVIDIA L40S", 362),
        ("NVIDIA A10", 125),
        ("NVIDIA A10G", 70),
        ("NVIDIA GeForce RTX 4090", 165.2),
        ("NVIDIA GeForce RTX 3090", 71),
    ],
)
def test_a_device_is_known_by_the_name_that_torch_gives_it(device, teraflops):
    assert peak_flops(device, "bfloat16") == pytest.approx(teraflops * 1e12)


@pytest.mark.parametrize(
    ("device", "dtype"),
    [
        ("NVIDIA H100 80GB HBM3", "float32"),
        ("NVIDIA H100 80GB HBM3 MIG 1g.10gb", "bfloat16"),
        ("NVIDIA GeForce RTX 4090 Laptop GPU", "bfloat16"),
        ("NVIDIA GeForce RTX 3090 Ti", "bfloat16"),
        ("Tesla T4", "bfloat16"),
        ("cpu AVX512", "bfloat16"),
    ],
)
def test_where_the_rate_is_not_known_there_is_no_utilisation(device, dtype):
    assert peak_flops(device, dtype) is None
    assert Utilisation(build_model(), device, dtype, 1).of([pair([1], [2], [3])], 1.0) == {}


def test_utilisation_is_operations_a_second_over_those_of_all_devices():
    model, pairs = build_model(), [pair([1, 2, 3], [4, 5], [6])]
    operations = 6 * 6 * 18432 + 6 * 1 * 10240 + 12 * 64 * 19
    one, two = (Utilisation(model, "NVIDIA L4", "bfloat16", devices).of(pairs, 0.5) for devices in (1, 2))
    assert one == {"mfu": pytest.approx(operations / 0.5 / 121e12)}
    assert two["mfu"] == pytest.approx(one["mfu"] / 2)
