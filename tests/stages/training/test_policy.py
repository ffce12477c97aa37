"""LoRA in training: it begins as the base to the last bit, and its gradients are those of W + s B A written by hand."""

import json
import math

import pytest
import torch
from torch.func import functional_call

from data.errors import ConfigError
from stages.objectives.preference import preference_loss
from stages.scoring.config import Numerics
from stages.scoring.model import load_model
from stages.scoring.scorer import Scorer, load_scorer
from stages.training.config import TrainConfig
from stages.training.lora import LoraSettings
from stages.training.policy import add_lora, load_policy, save_policy
from tests.families import PACKED, build, naive_sum, random_responses, relative_difference
from tests.tiny import build_model, save_adapter

DTYPES = pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
BETA = 0.1


def adapters(model):
    return {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}


def randomise(model):
    """A B that is no longer 0."""
    generator = torch.Generator().manual_seed(3)
    for name, parameter in adapters(model).items():
        if "lora_B" in name:
            parameter.data.normal_(std=0.05, generator=generator)


@DTYPES
def test_a_new_adapter_scores_as_its_base_to_the_last_bit(model_folder, dtype):
    numerics, responses = Numerics(dtype, "auto", 256), random_responses(12, siblings=2)
    policy = load_policy(model_folder, numerics, responses, TrainConfig(lora=LoraSettings()))
    assert torch.equal(policy.logps(responses), load_scorer(model_folder, numerics, responses).logps(responses))


@pytest.mark.filterwarnings("ignore:The following (rank|alpha)_pattern keys")  # of experts, which get no adapter
@pytest.mark.filterwarnings("ignore:fan_in_fan_out is set")  # of gpt2, whose layers are Conv1D
@pytest.mark.parametrize("family", PACKED)
def test_so_it_does_for_every_family(family):
    responses = random_responses(4)
    with torch.no_grad():
        base = Scorer(build(family), pack_tokens=256).logps(responses)
        adapted = build(family)
        add_lora(adapted, LoraSettings(r=2), seed=0)
        assert torch.equal(Scorer(adapted, pack_tokens=256).logps(responses), base)


@pytest.mark.filterwarnings("ignore:The following (rank|alpha)_pattern keys")
@pytest.mark.parametrize("family", ["llama", "phi3", "mixtral", "gpt_oss"])
def test_what_is_saved_scores_the_same_when_it_is_loaded(family, tmp_path):
    model, responses = build(family), random_responses(4)
    model.save_pretrained(tmp_path / "base")
    add_lora(model, LoraSettings(r=2), seed=0)
    randomise(model)
    save_policy(model, tmp_path / "policy", tmp_path / "base", (str(tmp_path / "base"), None), None)
    with torch.no_grad():
        loaded = Scorer(load_model(tmp_path / "policy", "float32"), pack_tokens=256).logps(responses)
        assert torch.equal(loaded, Scorer(model, pack_tokens=256).logps(responses))
    config = json.loads((tmp_path / "policy" / "adapter_config.json").read_text())
    names = [config["target_modules"], config["target_parameters"] or []]
    assert names == [sorted(each) for each in names]  # peft's sets, which come in any order


@DTYPES
def test_only_the_adapter_is_trained_in_the_compute_dtype(model_folder, dtype):
    policy = load_policy(model_folder, Numerics(dtype, "auto", 256), [], TrainConfig(lora=LoraSettings(r=2)))
    trained = adapters(policy.model)
    assert len(trained) == 2 * 2 * 7 and all("lora_" in name for name in trained)
    assert {parameter.dtype for parameter in trained.values()} == {getattr(torch, dtype)}
    assert not any(module.training for module in policy.model.modules())


def test_an_adapter_that_training_starts_from_is_trained_itself(model_folder, tmp_path):
    start = save_adapter(tmp_path / "adapter", model_folder, r=3, target_modules=["v_proj"])
    policy = load_policy(start, Numerics("float32", "auto", 256), [], TrainConfig())
    assert {tuple(parameter.shape) for parameter in adapters(policy.model).values()} == {(3, 32), (16, 3)}


def test_its_first_values_are_the_seeds_and_no_global_generator_moves():
    state, values = torch.get_rng_state(), []
    for seed in (0, 0, 1):
        torch.rand(seed + len(values))  # whatever ran before
        before = torch.get_rng_state()
        model = build_model()
        add_lora(model, LoraSettings(r=2), seed)
        assert torch.equal(torch.get_rng_state(), before)
        values.append(torch.cat([parameter.flatten() for parameter in adapters(model).values()]))
    torch.set_rng_state(state)
    assert torch.equal(values[0], values[1]) and not torch.equal(values[0], values[2])


def by_hand(model, lora, responses, reference):
    """Gradients of A and B of the DPO loss over pairs, one sequence at a time, in fp64, through W + s B A."""
    plain, matrices, weights = build_model().double(), {}, {}
    s = lora.lora_alpha / (math.sqrt(lora.r) if lora.use_rslora else lora.r)
    for name, parameter in adapters(model).items():
        matrices[name] = parameter.detach().double().requires_grad_()
    for name in matrices:
        if "lora_A" in name:
            layer = name.split(".lora_A")[0]
            a, b = matrices[name], matrices[name.replace("lora_A", "lora_B")]
            weights[f"{layer}.weight"] = plain.get_submodule(layer).weight + s * b @ a

    def changed(**inputs):
        return functional_call(plain, weights, (), inputs)

    sums = torch.stack([naive_sum(changed, response) for response in responses]) - reference.double()
    loss = -torch.nn.functional.logsigmoid(BETA * (sums[0::2] - sums[1::2])).mean()
    return dict(zip(matrices, torch.autograd.grad(loss, list(matrices.values())), strict=True))


@pytest.mark.parametrize(
    "lora",
    [LoraSettings(r=4), LoraSettings(r=4, lora_alpha=2, use_rslora=True, target_modules=["q_proj", "down_proj"])],
)
def test_gradients_are_those_of_the_changed_weights_written_out(lora):
    """In packs, by the scorer that trains, with a B that is no longer 0."""
    model, responses = build_model(), random_responses(8, siblings=2)
    add_lora(model, lora, seed=0)
    randomise(model)
    scorer, reference = Scorer(model, pack_tokens=512), torch.linspace(-80, -60, len(responses))
    assert scorer.backend == "segments"
    sums, counts = scorer.logps(responses), torch.tensor([response.n_scored for response in responses])
    policy, stored = (sums[0::2], sums[1::2]), (reference[0::2], reference[1::2])
    preference_loss("sigmoid", *policy, *stored, counts[0::2], counts[1::2], beta=BETA).mean().backward()
    theirs = by_hand(model, lora, responses, reference)
    assert len(theirs) == 2 * 2 * (7 if lora.target_modules == "all-linear" else 2)
    for name, parameter in adapters(model).items():
        assert relative_difference(parameter.grad.double(), theirs[name]) < 1e-5, name
    assert all(parameter.grad is None for parameter in model.parameters() if not parameter.requires_grad)


def test_layers_that_the_model_does_not_have_are_refused(model_folder):
    with pytest.raises(ConfigError, match=r"train.lora cannot be put on LlamaForCausalLM: NoMatching.*all-linear"):
        add_lora(load_model(model_folder, "float32"), LoraSettings(target_modules=["c_attn"]), 0)
