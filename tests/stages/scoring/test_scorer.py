"""The scorer against plain arithmetic: one sequence at a time, the model's own logits, a log-softmax and a sum."""

import logging

import numpy as np
import pytest
import torch

from data.schema import Response
from stages.scoring.bf16_products import fast_bf16_products
from stages.scoring.head import logits_logps
from stages.scoring.scorer import Scorer
from tests.tiny import build_model


def naive_sum(model, response: Response) -> torch.Tensor:
    """Sum of log p of the scored tokens, from the model's own logits over the unpadded sequence."""
    ids = torch.tensor(np.concatenate([response.prompt_ids, response.ids]), dtype=torch.long)
    logps = torch.log_softmax(model(input_ids=ids[None]).logits[0].double(), dim=-1)
    start = len(response.prompt_ids)
    scored = [logps[start + i - 1, response.ids[i]] for i in range(len(response.ids)) if response.mask[i]]
    return torch.stack(scored).sum()


def random_responses(n: int, vocab: int = 320, seed: int = 0) -> list[Response]:
    """Responses of many lengths, some with tokens that are not scored, some holding the padding id and the end id."""
    rng = np.random.default_rng(seed)
    responses = []
    for _ in range(n):
        prompt = rng.integers(0, vocab, rng.integers(1, 30)).astype(np.int32)
        ids = rng.integers(0, vocab, rng.integers(1, 40)).astype(np.int32)
        mask = rng.random(len(ids)) < 0.8
        mask[0] = True
        responses.append(Response(prompt, ids, mask))
    return responses


def relative_difference(ours: torch.Tensor, theirs: torch.Tensor) -> float:
    return float((ours - theirs).norm() / theirs.norm())


@pytest.fixture
def model(request):
    return build_model(**getattr(request, "param", {}))


@pytest.mark.parametrize("model", [{}, {"tie_word_embeddings": False}], indirect=True, ids=["tied", "untied"])
def test_sums_equal_the_naive_computation(model):
    responses = random_responses(13)
    with torch.no_grad():
        ours = Scorer(model, pack_tokens=256).logps(responses)
        naive = torch.stack([naive_sum(model, response) for response in responses])
    assert ours.dtype == torch.float32
    torch.testing.assert_close(ours.double(), naive, atol=1e-4, rtol=0)


def test_gradients_equal_the_naive_computation(model):
    responses = random_responses(6)
    weights = torch.linspace(-1, 1, len(responses))
    (Scorer(model, pack_tokens=256).logps(responses) * weights).sum().backward()
    ours = torch.cat([p.grad.flatten() for p in model.parameters()])
    model.zero_grad()
    sum(w * naive_sum(model, response) for w, response in zip(weights, responses, strict=True)).backward()
    naive = torch.cat([p.grad.flatten() for p in model.parameters()])
    assert relative_difference(ours, naive) < 1e-5


def test_logits_are_never_rounded_to_bf16(model, tmp_path):
    """With bf16 weights the head still works in fp32: its sums are those of exact products of the hidden states."""
    from transformers import AutoModelForCausalLM

    model.save_pretrained(tmp_path)
    rounded = AutoModelForCausalLM.from_pretrained(tmp_path, dtype=torch.bfloat16).eval()
    response = random_responses(1)[0]
    ids = torch.tensor(np.concatenate([response.prompt_ids, response.ids]), dtype=torch.long)
    with torch.no_grad():
        with fast_bf16_products(torch.device("cpu")):
            hidden = rounded.model(input_ids=ids[None]).last_hidden_state[0].double()
        logps = torch.log_softmax(hidden @ rounded.lm_head.weight.double().T, dim=-1)
        start = len(response.prompt_ids)
        exact = sum(logps[start + i - 1, response.ids[i]] for i in np.flatnonzero(response.mask))
        ours = Scorer(rounded, pack_tokens=256).logps([response])[0]
        own = naive_sum(rounded, response)
    assert abs(float(ours - exact)) < 1e-4
    assert abs(float(own - exact)) > 1e-3  # what rounding would have cost


def test_a_large_vocabulary_is_added_up_without_bias():
    """An fp32 log_softmax on a CPU is up to 1e-5 off here, always to one side, and a sum over tokens adds that up."""
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(64, 60_000, generator=generator) * 3
    targets = torch.arange(64)
    exact = torch.log_softmax(logits.double(), dim=-1)[targets, targets]
    assert float((logits_logps(logits, targets).double() - exact).abs().max()) < 4e-6


def test_many_tiles_give_what_one_tile_gives(model, monkeypatch):
    responses = random_responses(5)
    scorer = Scorer(model, pack_tokens=256)
    whole = scorer.logps(responses)
    monkeypatch.setattr("stages.scoring.head.TILE_LOGITS", 3 * 320)
    torch.testing.assert_close(scorer.logps(responses), whole, atol=1e-5, rtol=0)


def test_the_rest_of_a_batch_does_not_matter(model):
    responses = random_responses(8)
    scorer = Scorer(model, pack_tokens=256)
    with torch.no_grad():
        together = scorer.logps(responses)
        alone = torch.cat([scorer.logps([response]) for response in responses])
    torch.testing.assert_close(together, alone, atol=1e-5, rtol=1e-6)


def test_a_model_that_scales_its_logits_is_scored_by_its_own(caplog):
    from transformers import GraniteConfig, GraniteForCausalLM

    with torch.random.fork_rng():
        torch.manual_seed(0)
        config = GraniteConfig(
            vocab_size=320, hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4,
            num_key_value_heads=2, logits_scaling=8.0, initializer_range=0.2, bos_token_id=1, eos_token_id=2,
            pad_token_id=2,
        )  # fmt: skip
        model = GraniteForCausalLM(config).eval()
    responses = random_responses(4)
    with caplog.at_level(logging.INFO), torch.no_grad():
        ours = Scorer(model, pack_tokens=256).logps(responses)
        naive = torch.stack([naive_sum(model, response) for response in responses])
    torch.testing.assert_close(ours.double(), naive, atol=1e-4, rtol=0)
    assert "scoring by its own logits" in caplog.text


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_plain_model_is_scored_by_tiles(model, dtype, caplog):
    with caplog.at_level(logging.INFO):
        Scorer(model.to(dtype), pack_tokens=256)
    assert "own logits" not in caplog.text


def test_a_soft_cap_is_noticed_even_where_logits_are_small(caplog):
    from transformers import Gemma2Config, Gemma2ForCausalLM

    config = Gemma2Config(
        vocab_size=320, hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4, head_dim=8,
        num_key_value_heads=2, initializer_range=0.02, bos_token_id=1, eos_token_id=2, pad_token_id=2,
    )  # fmt: skip
    with caplog.at_level(logging.INFO):
        Scorer(Gemma2ForCausalLM(config).eval(), pack_tokens=256)
    assert "scoring by its own logits" in caplog.text


def test_scoring_leaves_the_global_random_state_alone(model):
    scorer = Scorer(model, pack_tokens=256)
    before = torch.get_rng_state()
    scorer.logps(random_responses(3)).sum().backward()
    assert torch.equal(before, torch.get_rng_state())


def test_a_plan_holds_every_group_once_and_each_response_once(model):
    scorer = Scorer(model, pack_tokens=400)
    responses = random_responses(12)
    groups = [(responses[i], responses[(i + 1) % 12]) for i in range(12)]
    batches = scorer.plan(groups)
    assert sorted(index for batch in batches for index in batch.groups) == list(range(12))
    for batch in batches:
        keys = [response.key for response in batch.responses]
        assert len(keys) == len(set(keys))
        assert {r.key for index in batch.groups for r in groups[index]} == set(keys)


def test_batches_keep_to_the_budget_and_a_longer_group_stands_alone(model):
    scorer = Scorer(model, pack_tokens=60)
    groups = [(response,) for response in random_responses(20)]
    for batch in scorer.plan(groups):
        padded = len(batch.responses) * max(len(response) for response in batch.responses)
        assert padded <= 60 or len(batch.groups) == 1
