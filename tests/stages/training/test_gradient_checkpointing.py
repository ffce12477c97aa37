"""Layers computed again in the backward pass: no other bit, less memory, and no need for training mode."""

from collections import Counter

import pytest
import torch
from torch.autograd.graph import saved_tensors_hooks

from data.errors import ConfigError
from stages.scoring import bf16_products
from stages.scoring.scorer import Scorer
from stages.training.gradient_checkpointing import checkpoint_layers
from tests.families import PACKED, ROWS, build, random_responses


def gradient(scorer):
    scorer.model.zero_grad()
    scorer.logps(random_responses(5, siblings=2)).sum().backward()
    return torch.cat([p.grad.flatten() for p in scorer.model.parameters() if p.grad is not None])


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("backend", ["segments", "rows"])
def test_no_bit_of_loss_or_gradient_changes(backend, dtype, monkeypatch):
    """Also where bf16 products are ours (stages/scoring/bf16_products.py): layers must be given them both times."""
    monkeypatch.setattr(bf16_products, "_SLOW_CAPABILITIES", [torch.backends.cpu.get_cpu_capability()])
    responses = random_responses(5, siblings=2)
    scorer = Scorer(build("llama").to(dtype), 256, backend)
    before, logps = gradient(scorer), scorer.logps(responses)
    checkpoint_layers(scorer.model)
    assert torch.equal(scorer.logps(responses), logps)
    assert torch.equal(gradient(scorer), before)
    assert not any(module.training for module in scorer.model.modules())


@pytest.mark.parametrize("family", [*PACKED, *ROWS])
def test_every_family_that_transformers_marks(family):
    scorer = Scorer(build(family), 256)
    before = gradient(scorer)
    checkpoint_layers(scorer.model)
    torch.testing.assert_close(gradient(scorer), before, atol=0, rtol=0)


def test_each_layer_runs_again_in_the_backward_pass_and_nowhere_else():
    scorer = Scorer(build("llama"), 256)
    checkpoint_layers(scorer.model)
    calls = Counter()
    for number, layer in enumerate(scorer.model.model.layers):
        layer.self_attn.register_forward_hook(lambda *_, number=number: calls.update([number]))
    gradient(scorer)
    assert calls == dict.fromkeys(range(4), 2)
    calls.clear()
    with torch.no_grad():
        scorer.logps(random_responses(5))
    assert calls == dict.fromkeys(range(4), 1)


def test_a_layer_keeps_its_input_alone():
    scorer, responses = Scorer(build("llama", num_hidden_layers=8), 256), random_responses(5)

    def kept_bytes():
        storages = {}
        with saved_tensors_hooks(lambda t: storages.setdefault(t.untyped_storage().data_ptr(), t), lambda t: t):
            kept = scorer.logps(responses)  # noqa: F841 - holds on to what is saved
        weights = {p.untyped_storage().data_ptr() for p in scorer.model.parameters()}
        return sum(t.untyped_storage().nbytes() for place, t in storages.items() if place not in weights)

    plain = kept_bytes()
    checkpoint_layers(scorer.model)
    assert kept_bytes() < plain / 4


def test_a_model_whose_layers_are_not_marked_is_refused():
    with pytest.raises(
        ConfigError, match=r"train.gradient_checkpointing does not work with Linear: .* Set it to false"
    ):
        checkpoint_layers(torch.nn.Linear(2, 2))
