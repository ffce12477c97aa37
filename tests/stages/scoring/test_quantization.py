"""Quantised models: the same scores in any company and any job, and gradients that come through."""

import sys

import pytest
import torch

from data.errors import ConfigError
from stages.scoring.model import load_model
from stages.scoring.quantization import quantization_config
from stages.scoring.scorer import Scorer
from stages.training.lora import LoraSettings
from stages.training.policy import add_lora
from tests.families import gradients, random_responses, relative_difference
from tests.tiny import save_model

BITS = pytest.mark.parametrize("bits", ["nf4", "int8"])
DTYPES = pytest.mark.parametrize("dtype", ["float32", "bfloat16"])


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Wide enough for blocks of 64 weights, and to be laid out anew for inference if anything is."""
    sizes = {"hidden_size": 128, "intermediate_size": 256, "num_hidden_layers": 2, "initializer_range": 0.1}
    return save_model(tmp_path_factory.mktemp("model") / "wide", **sizes)


def test_nf4_is_that_of_qlora():
    config = quantization_config("nf4", torch.bfloat16)
    assert config.load_in_4bit and config.bnb_4bit_quant_type == "nf4" and config.bnb_4bit_use_double_quant
    assert config.bnb_4bit_compute_dtype == torch.bfloat16


def test_int8_looks_at_no_other_token_of_the_pass():
    config = quantization_config("int8", torch.bfloat16)
    assert config.load_in_8bit and config.llm_int8_threshold == 0


@BITS
@DTYPES
def test_linear_layers_are_small_and_all_else_is_in_the_compute_dtype(folder, bits, dtype):
    model = load_model(folder, dtype, bits)
    layer = model.model.layers[0].mlp.up_proj.weight
    assert layer.numel() * layer.element_size() == 128 * 256 * {"nf4": 0.5, "int8": 1}[bits]
    assert not layer.requires_grad and not model.training
    assert bits == "int8" or (layer.quant_state.blocksize, layer.quant_state.nested) == (64, True)
    for whole in (model.lm_head.weight, model.model.norm.weight):
        assert whole.dtype == getattr(torch, dtype)
    assert model.model.rotary_emb.inv_freq.dtype == torch.float32


@BITS
@DTYPES
def test_a_response_scores_the_same_in_any_company_and_with_gradients(folder, bits, dtype):
    scorer = Scorer(load_model(folder, dtype, bits), pack_tokens=512)
    assert scorer.attention == "packs"
    responses = random_responses(8, siblings=2)
    with torch.inference_mode():
        together = scorer.logps(responses)
        alone = torch.cat([scorer.logps([response]) for response in responses])
    assert torch.equal(together, alone)
    assert torch.equal(together, scorer.logps(responses).detach())


@BITS
@DTYPES
def test_adapters_on_it_compute_in_the_compute_dtype(folder, bits, dtype):
    model = load_model(folder, dtype, bits)
    add_lora(model, LoraSettings(r=2), seed=0)
    assert {p.dtype for p in model.parameters() if p.requires_grad} == {getattr(torch, dtype)}


@BITS
def test_gradients_come_through_after_a_pass_without_them(folder, bits):
    """As after the step-0 check; bitsandbytes lays 4-bit weights out anew for inference, where it may."""
    responses, found = random_responses(4), []
    for passes_before in (0, 1):
        model = load_model(folder, "float32", bits)
        add_lora(model, LoraSettings(r=4), seed=0)
        scorer = Scorer(model, pack_tokens=256)
        with torch.no_grad():
            for _ in range(passes_before):
                scorer.logps(responses)
        scorer.logps(responses).sum().backward()
        found.append([p.grad for name, p in model.named_parameters() if "lora_B" in name])
    assert len(found[0]) == 14 and all(gradient.any() for gradient in found[0])
    assert all(torch.equal(one, other) for one, other in zip(*found, strict=True))


def test_nf4_and_its_gradients_are_those_of_the_weights_it_stands_for(folder):
    """A plain model of the same 4-bit weights, written out."""
    from bitsandbytes.functional import dequantize_4bit

    small, plain = load_model(folder, "float32", "nf4"), load_model(folder, "float32")
    for name, module in small.named_modules():
        if hasattr(module, "quant_state"):
            weight = plain.get_submodule(name).weight
            weight.data = dequantize_4bit(module.weight.data, module.weight.quant_state).view_as(weight)
    responses, sums, gradient = random_responses(4), [], []
    for model in (small, plain):
        add_lora(model, LoraSettings(r=4), seed=0)
        scores = Scorer(model, pack_tokens=256).logps(responses)
        sums.append(scores.detach())
        trained = torch.nn.ParameterList(p for p in model.parameters() if p.requires_grad)
        gradient.append(gradients(trained, scores.sum()))
    assert torch.allclose(*sums, rtol=1e-5)
    assert relative_difference(*gradient) < 1e-4


def test_without_bitsandbytes_the_error_says_what_to_install(folder, monkeypatch):
    monkeypatch.setitem(sys.modules, "bitsandbytes", None)
    with pytest.raises(ConfigError, match=r"needs the packages bitsandbytes and peft. Install them: .*\[qlora\]'"):
        load_model(folder, "float32", "nf4")
