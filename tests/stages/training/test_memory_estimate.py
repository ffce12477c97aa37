"""What training is said to need, held against what autograd really keeps, and against real parameters and adapters."""

import json

import pytest
import torch
from torch.autograd.graph import saved_tensors_hooks

from data.schema import TokenPair
from data.tokens.token_pairs import TokenPairs
from stages.scoring.config import Numerics
from stages.scoring.scorer import Scorer
from stages.training.config import TrainConfig
from stages.training.gradient_checkpointing import checkpoint_layers
from stages.training.lora import LoraSettings
from stages.training.memory_estimate import (
    LIKE_LLAMA,
    BatchSize,
    estimate_peak,
    kept_activations,
    kept_logits,
    largest_batch,
)
from stages.training.model_sizes import n_trained, read_shapes, read_sizes
from stages.training.policy import add_lora
from tests.families import build, make_response
from tests.tiny import save_model

DTYPES = {torch.float32: 4, torch.bfloat16: 2}
T = 256


def kept_bytes(model, backend, checkpointing):
    """In distinct pieces of memory, weights aside, that autograd holds on to after the forward pass of T tokens."""
    scorer = Scorer(model, 4096, backend)
    if checkpointing:
        checkpoint_layers(model)
    held = {}
    with saved_tensors_hooks(lambda t: held.setdefault(t.untyped_storage().data_ptr(), t), lambda t: t):
        logps = scorer.logps([make_response(range(64), range(T - 65))])  # noqa: F841 - holds on to what is saved
    weights = {p.untyped_storage().data_ptr() for p in model.parameters()}
    return sum(t.untyped_storage().nbytes() for place, t in held.items() if place not in weights)


@pytest.mark.parametrize("checkpointing", [False, True])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("family", LIKE_LLAMA)
def test_what_a_layer_keeps_is_exact(family, dtype, checkpointing, tmp_path):
    """Widths that are all different, so that none is taken for another."""
    sizes = {"hidden_size": 48, "intermediate_size": 112, "num_attention_heads": 4, "num_key_value_heads": 2}
    kept, estimated = [], []
    for layers in (4, 8):  # smollm3 turns every fourth layer's positions off
        model = build(family, **sizes, head_dim=10, num_hidden_layers=layers, sliding_window=None).to(dtype)
        model.config.save_pretrained(tmp_path)
        kept.append(kept_bytes(model, "segments", checkpointing))
        batch = BatchSize(T, T, False)
        estimated.append(kept_activations(read_sizes(tmp_path), batch, DTYPES[dtype], checkpointing=checkpointing))
    assert estimated[1] - estimated[0] == kept[1] - kept[0]


@pytest.mark.parametrize("backend", ["segments", "rows"])
@pytest.mark.parametrize("dtype", DTYPES)
def test_all_that_is_kept_is_within_3_per_cent(dtype, backend, tmp_path):
    model = build("llama", hidden_size=64, intermediate_size=160, vocab_size=2000).to(dtype)
    model.config.save_pretrained(tmp_path)
    sizes, batch = read_sizes(tmp_path), BatchSize(T, 192, False)
    estimated = kept_activations(sizes, batch, DTYPES[dtype], checkpointing=False) + kept_logits(
        sizes, batch, on_gpu=False
    )
    assert kept_bytes(model, backend, checkpointing=False) == pytest.approx(estimated, rel=0.03)


@pytest.fixture
def pairs():
    """Twenty of 40 tokens, of which 20 are scored; one of 100, of which 50 are."""

    def pair(row, n):
        prompt = [row] * (n // 2)
        return TokenPair(row, f"x:{row}", make_response(prompt, [1] * (n // 4)), make_response(prompt, [2] * (n // 4)))

    return TokenPairs.of([pair(row, 40) for row in range(20)] + [pair(20, 100)])


@pytest.mark.parametrize(
    ("numerics", "pairs_per_step", "on_gpu", "expected"),
    [
        (Numerics("float32", "auto", 64), 4, False, BatchSize(100, 50, False)),  # the long pair alone
        (Numerics("float32", "auto", 200), 21, False, BatchSize(200, 100, False)),  # steps are larger than batches
        (Numerics("float32", "auto", 2048), 21, False, BatchSize(900, 450, True)),  # a step is a batch
        (Numerics("float32", "auto", 2048), 21, True, BatchSize(2048, 1024, True)),  # filled up
        (Numerics("float32", "rows", 2048), 21, False, BatchSize(1350, 450, True)),  # the prompt twice
    ],
)
def test_the_largest_batch(pairs, numerics, pairs_per_step, on_gpu, expected):
    assert largest_batch(pairs, numerics, pairs_per_step, on_gpu=on_gpu) == expected


def parts(folder, pairs, numerics=Numerics("bfloat16", "auto", 64), on_gpu=True, **train):  # noqa: B008
    return estimate_peak(folder, numerics, TrainConfig(**train), pairs, on_gpu=on_gpu).parts


def test_weights_masters_and_moments(model_folder, pairs):
    n = sum(p.numel() for p in build_from(model_folder).parameters())
    bf16 = parts(model_folder, pairs)
    names = ("weights", "fp32 masters", "optimiser states", "gradients")
    assert [bf16[name] for name in names] == [2 * n, 4 * n, 8 * n, 4 * n]
    assert parts(model_folder, pairs, optim="adamw_8bit")["optimiser states"] == int(n * (2 + 8 / 256))
    fp32 = parts(model_folder, pairs, Numerics("float32", "auto", 64))
    assert [fp32[name] for name in names] == [4 * n, 0, 8 * n, 4 * n]
    assert fp32.keys().isdisjoint({"the program", "gaps in the heap", "checkpoint being written"})


@pytest.mark.parametrize("target_modules", ["all-linear", ["q_proj", "v_proj"]])
def test_the_parameters_of_an_adapter(model_folder, pairs, target_modules):
    settings = LoraSettings(r=4, target_modules=target_modules)
    model = build_from(model_folder)
    add_lora(model, settings, seed=0)
    n = sum(p.numel() for p in model.parameters() if p.requires_grad)
    assert n_trained(read_shapes(model_folder), settings) == n
    assert parts(model_folder, pairs, lora=settings)["gradients"] == 4 * n


def test_gradients_and_activations_of_a_step_of_one_batch_are_not_there_at_once(tmp_path, pairs):
    large, small = save_model(tmp_path / "large", hidden_size=512), save_model(tmp_path / "small")
    whole = {"numerics": Numerics("float32", "auto", 4096), "pairs_per_step": 21}
    several = parts(small, pairs, numerics=Numerics("float32", "auto", 200), pairs_per_step=21)
    assert several["gradients"] > 0 and several["activations"] > 0
    assert parts(small, pairs, **whole)["gradients"] == 0 < parts(small, pairs, **whole)["activations"]
    few = TokenPairs.of(pairs[i] for i in range(2))
    larger = parts(large, few, numerics=Numerics("float32", "auto", 4096), on_gpu=False)
    assert larger["activations"] == larger["logits"] == 0 < larger["gradients"]


def test_on_a_cpu_a_checkpoint_is_copied_before_it_is_written(model_folder, pairs):
    without = parts(model_folder, pairs, on_gpu=False)
    copied = parts(model_folder, pairs, on_gpu=False, checkpoint_every=1)
    assert copied["checkpoint being written"] == without["fp32 masters"] + without["optimiser states"]


@pytest.mark.parametrize(
    ("pack_tokens", "train", "text"),
    [
        (800, {}, "activations: train.gradient_checkpointing: true, or a smaller scoring.pack_tokens"),
        (800, {"gradient_checkpointing": True}, "activations: a smaller scoring.pack_tokens"),
        (64, {"gradient_checkpointing": True}, "optimiser states: train.optim: adamw_8bit, or train.lora"),
        (64, {"gradient_checkpointing": True, "optim": "adamw_8bit"}, "fp32 masters: train.lora"),
    ],
)
def test_the_sentence_says_what_lowers_the_largest_part(tmp_path, pairs, pack_tokens, train, text):
    folder = save_model(tmp_path, num_hidden_layers=16)
    estimate = estimate_peak(
        folder, Numerics("bfloat16", "auto", pack_tokens), TrainConfig(**train), pairs, on_gpu=True
    )
    assert estimate.sentence().startswith(f"peak memory about {estimate.total / 1e9:.2f} GB (weights 0.00, ")
    assert estimate.sentence().endswith(f"most of what a key can lower is {text}")


def test_other_architectures_are_rough_and_folders_without_sizes_have_none(tmp_path, pairs):
    numerics = Numerics("float32", "auto", 64)
    for family in ("gpt2", "mixtral"):
        build(family).save_pretrained(tmp_path / family)
        assert (
            "GB, roughly (weights"
            in estimate_peak(tmp_path / family, numerics, TrainConfig(), pairs, on_gpu=True).sentence()
        )
    mixtral, dense = (read_sizes(tmp_path / "mixtral").mlp, read_sizes(tmp_path / "gpt2").mlp)
    assert mixtral == 2 * dense  # two experts a token
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "unheard_of"}))
    for folder in (tmp_path, tmp_path / "no_folder"):
        assert estimate_peak(folder, numerics, TrainConfig(), pairs, on_gpu=True) is None


def build_from(folder):
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(folder)
