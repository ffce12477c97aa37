"""What of a model's last step the head may do itself, and what it must leave to the model."""

import pytest
import torch

from stages.scoring.output_layer import find_output_layer
from stages.scoring.scorer import Scorer
from tests.families import PACKED, ROWS, build, naive_sum, random_responses


def found(model):
    return find_output_layer(model, model.get_decoder())


@pytest.mark.parametrize(
    ("family", "scale", "softcap"),
    [("llama", 1.0, None), ("gemma2", 1.0, 3.0), ("cohere2", 0.5, None), ("granite", 0.25, None)],
)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_scale_and_cap_are_those_of_the_configuration(family, scale, softcap, dtype):
    model = build(family).to(dtype)
    layer = found(model)
    assert layer.weight is model.lm_head.weight
    assert (layer.bias, layer.scale, layer.softcap) == (None, scale, softcap)


def test_a_bias_is_part_of_it():
    model = build("gptj")
    torch.nn.init.normal_(model.lm_head.bias)
    layer = found(model)
    assert layer.weight is model.lm_head.weight and layer.bias is model.lm_head.bias


@pytest.mark.parametrize("family", [*PACKED, *ROWS])
def test_every_family_is_scored_by_tiles(family):
    assert found(build(family)) is not None


@pytest.mark.parametrize("spread", [0.02, 0.2])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_cap_that_the_configuration_does_not_name_is_noticed_even_where_logits_are_small(spread, dtype):
    model = build("llama", initializer_range=spread).to(dtype)
    assert found(model) is not None
    model.register_forward_hook(lambda _, __, output: output | {"logits": 30 * torch.tanh(output.logits / 30)})
    assert found(model) is None


def test_a_scale_that_the_configuration_does_not_name_is_noticed():
    model = build("llama")
    model.register_forward_hook(lambda _, __, output: output | {"logits": output.logits * 1.5})
    assert found(model) is None


def test_a_cap_that_the_configuration_names_and_the_model_ignores_is_noticed():
    model = build("llama")
    model.config.final_logit_softcapping = 30.0
    assert found(model) is None


def test_hidden_states_that_are_changed_on_their_way_to_the_head_are_noticed():
    model = build("llama")
    model.lm_head.register_forward_pre_hook(lambda _, inputs: (inputs[0] * 2,))
    assert found(model) is None


def test_a_head_that_is_more_than_a_linear_layer_is_left_to_the_model():
    class Lora(torch.nn.Linear):
        pass

    model = build("llama", tie_word_embeddings=False)
    model.lm_head.__class__ = Lora
    assert found(model) is None


def test_a_model_without_a_decoder_of_its_own_is_left_alone():
    model = build("llama")
    assert find_output_layer(model, model) is None


def test_watching_leaves_nothing_behind():
    model = build("llama")
    ids = torch.arange(8)[None]
    with torch.no_grad():
        before = model(input_ids=ids).logits
        assert found(model) is not None
        assert torch.equal(model(input_ids=ids).logits, before)
    assert all(parameter.grad is None for parameter in model.parameters())


@pytest.mark.parametrize("how", ["hook", "forward"])
def test_logits_changed_inside_the_head_are_noticed(how):
    """By a forward hook on a plain linear layer, or another `forward`."""
    model = build("llama")
    if how == "hook":
        model.lm_head.register_forward_hook(lambda _, __, output: 2 * torch.tanh(output / 2))
    else:
        own = model.lm_head.forward
        model.lm_head.forward = lambda x: own(x) * 0.5
    responses = random_responses(3)
    with torch.no_grad():
        naive = torch.stack([naive_sum(model, r) for r in responses])
        ours = Scorer(model, 256).logps(responses)
    torch.testing.assert_close(ours.double(), naive, atol=1e-4, rtol=0)


def test_a_logit_scale_that_is_a_word_is_no_crash():
    model = build("mpt", logit_scale="inv_sqrt_d_model")
    assert find_output_layer(model, model.get_decoder()) is not None
