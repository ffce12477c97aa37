"""The scorer against plain arithmetic: one sequence at a time, the model's own logits, a log-softmax and a sum."""

import logging

import numpy as np
import pytest
import torch

from data.schema import Response
from stages.objectives.preference import preference_loss
from stages.scoring.bf16_products import fast_bf16_products
from stages.scoring.head import logits_logps
from stages.scoring.scorer import Scorer, doubling_sums
from stages.training.gradient_checkpointing import checkpoint_layers
from tests.families import (
    PACKED,
    ROWS,
    build,
    gradients,
    make_response,
    naive_sum,
    random_responses,
    relative_difference,
)
from tests.tiny import build_model

DTYPES = [torch.float32, torch.bfloat16]


@pytest.fixture
def model(request):
    return build_model(**getattr(request, "param", {}))


@pytest.fixture
def wide_model(tmp_path):
    """A Llama wide enough for matrix products to be cut up, in the dtype asked for, loaded as jobs load theirs."""
    from transformers import AutoModelForCausalLM

    sizes = {"hidden_size": 128, "intermediate_size": 384, "head_dim": 32, "num_hidden_layers": 2}
    build("llama", max_position_embeddings=2048, **sizes).save_pretrained(tmp_path)
    return lambda dtype: AutoModelForCausalLM.from_pretrained(tmp_path, dtype=dtype).eval()


def long_responses() -> list[Response]:
    """Prompts and responses from one token to more than a block of queries, shared prompts and single ones."""
    rng = np.random.default_rng(1)
    lengths = {337: (311, 5, 40), 20: (300, 61), 1: (7, 290), 260: (1,)}
    responses = []
    for n_prompt, counts in lengths.items():
        prompt = rng.integers(0, 320, n_prompt)
        for n in counts:
            mask = rng.random(n) < 0.8
            mask[-1] = True
            responses.append(make_response(prompt, rng.integers(0, 320, n), mask))
    return responses


def step_gradient(scorer: Scorer, pairs: list[tuple[Response, Response]]) -> torch.Tensor:
    """Gradient of the mean preference loss over the pairs, batch by batch as the plan says."""
    total = torch.zeros(())
    for batch in scorer.plan(pairs):
        logps = dict(zip([r.key for r in batch.responses], scorer.logps(batch.responses), strict=True))
        chosen, rejected = (torch.stack([logps[pairs[i][side].key] for i in batch.groups]) for side in (0, 1))
        counts = [torch.tensor([pairs[i][side].n_scored for i in batch.groups]) for side in (0, 1)]
        reference = torch.linspace(-3, 3, len(pairs))[batch.groups]
        losses = preference_loss("sigmoid", chosen, rejected, chosen.detach() + reference, rejected.detach(), *counts)
        total = total + losses.sum() / len(pairs)
    return gradients(scorer.model, total)


@pytest.mark.parametrize("family", [*PACKED, *ROWS])
def test_packs_equal_rows_equal_the_models_own_logits(family):
    model = build(family)
    responses = random_responses(6, siblings=3, longest=(12, 14))
    weights = torch.linspace(-1, 1.5, len(responses))
    naive = torch.stack([naive_sum(model, response) for response in responses])
    naive_gradient = gradients(model, (naive * weights).sum())
    for backend, used in (("rows", "rows"), ("auto", "segments" if family in PACKED else "rows")):
        scorer = Scorer(model, pack_tokens=256, backend=backend)
        ours = scorer.logps(responses)
        assert scorer.backend == used
        assert ours.dtype == torch.float32
        torch.testing.assert_close(ours.double(), naive, atol=1e-4, rtol=0)
        assert relative_difference(gradients(model, (ours * weights).sum()), naive_gradient) < 1e-5


@pytest.mark.parametrize("model", [{}, {"tie_word_embeddings": False}], indirect=True, ids=["tied", "untied"])
def test_sums_equal_the_naive_computation(model):
    responses = random_responses(13)
    with torch.no_grad():
        naive = torch.stack([naive_sum(model, response) for response in responses])
        ours = Scorer(model, pack_tokens=256).logps(responses)
    assert ours.dtype == torch.float32
    torch.testing.assert_close(ours.double(), naive, atol=1e-4, rtol=0)


def test_gradients_equal_the_naive_computation(model):
    responses = random_responses(6)
    weights = torch.linspace(-1, 1, len(responses))
    naive = gradients(model, sum(w * naive_sum(model, r) for w, r in zip(weights, responses, strict=True)))
    ours = gradients(model, (Scorer(model, pack_tokens=256).logps(responses) * weights).sum())
    assert relative_difference(ours, naive) < 1e-5


@pytest.mark.parametrize("backend", ["rows", "segments"])
def test_logits_are_never_rounded_to_bf16(model, backend, tmp_path):
    """With bf16 weights the head still works in fp32: its sums are those of exact products of the hidden states."""
    from transformers import AutoModelForCausalLM

    model.save_pretrained(tmp_path)
    rounded = AutoModelForCausalLM.from_pretrained(tmp_path, dtype=torch.bfloat16).eval()
    one = random_responses(1)[0]
    seen = []
    with torch.no_grad():
        own = naive_sum(rounded, one)
        scorer = Scorer(rounded, pack_tokens=256, backend=backend)
        rounded.model.register_forward_hook(lambda *call: seen.append(call[-1].last_hidden_state[0].double()))
        ours = scorer.logps([one])[0]
        logps = torch.log_softmax(seen[-1] @ rounded.lm_head.weight.double().T, dim=-1)
    start = len(one.prompt_ids)
    exact = sum(logps[start + i - 1, one.ids[i]] for i in np.flatnonzero(one.mask))
    assert abs(float(ours - exact)) < 1e-4
    assert abs(float(own - exact)) > 1e-3  # what rounding would have cost


def test_rows_in_bf16_have_the_hidden_states_of_the_plain_model(model, tmp_path):
    """Rows are the model's plain causal path, bit for bit, up to the products that the processor lacks."""
    from transformers import AutoModelForCausalLM

    model.save_pretrained(tmp_path)
    rounded = AutoModelForCausalLM.from_pretrained(tmp_path, dtype=torch.bfloat16).eval()
    one = random_responses(1)[0]
    ids = torch.tensor(np.concatenate([one.prompt_ids, one.ids]), dtype=torch.long)
    with torch.no_grad():
        with fast_bf16_products(torch.device("cpu")):
            hidden = rounded.model(input_ids=ids[None]).last_hidden_state[0].double()
        logps = torch.log_softmax(hidden @ rounded.lm_head.weight.double().T, dim=-1)
        start = len(one.prompt_ids)
        exact = sum(logps[start + i - 1, one.ids[i]] for i in np.flatnonzero(one.mask))
        ours = Scorer(rounded, pack_tokens=256, backend="rows").logps([one])[0]
    assert abs(float(ours - exact)) < 1e-4


def test_a_large_vocabulary_is_added_up_without_bias():
    """An fp32 log_softmax on a CPU is up to 1e-5 off here, always to one side, and a sum over tokens adds that up."""
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(64, 60_000, generator=generator) * 3
    targets = torch.arange(64)
    exact = torch.log_softmax(logits.double(), dim=-1)[targets, targets]
    assert float((logits_logps(logits, targets).double() - exact).abs().max()) < 4e-6


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_response_has_the_same_bits_in_any_company(wide_model, dtype):
    scorer = Scorer(wide_model(dtype), pack_tokens=4096)
    responses = long_responses()
    with torch.no_grad():
        alone = torch.cat([scorer.logps([response]) for response in responses])
        assert torch.equal(scorer.logps(responses), alone)
        for order in ([7, 0, 3, 5], [2, 1, 0], [6, 4, 2], [5, 7, 4, 3, 6, 1]):  # other siblings, other offsets
            assert torch.equal(scorer.logps([responses[i] for i in order]), alone[order])
        for budget in (400, 1100):
            other = Scorer(wide_model(dtype), pack_tokens=budget)
            plan = other.plan([(response,) for response in responses])
            assert len(plan) > 1
            for batch in plan:
                assert torch.equal(other.logps(batch.responses), alone[batch.groups])


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_response_has_the_same_bits_in_training_and_in_scoring(wide_model, dtype):
    model = wide_model(dtype)
    scorer = Scorer(model, pack_tokens=4096)
    responses = long_responses()[:5]
    with torch.inference_mode():
        scored = scorer.logps(responses)
    with torch.no_grad():
        assert torch.equal(scorer.logps(responses), scored)
    trained = scorer.logps(responses)
    assert trained.requires_grad and torch.equal(trained.detach(), scored)
    model.train()
    trained = scorer.logps(responses)
    assert torch.equal(trained.detach(), scored)
    checkpoint_layers(model)
    assert torch.equal(scorer.logps(responses).detach(), scored)


def test_gradient_checkpointing_changes_no_bit_of_a_gradient(wide_model):
    model = wide_model(torch.float32)
    scorer = Scorer(model, pack_tokens=4096)
    responses = long_responses()[:5]
    plain = gradients(model, scorer.logps(responses).sum())
    checkpoint_layers(model)
    calls = []
    model.model.layers[0].self_attn.register_forward_hook(lambda *_: calls.append(1))
    assert torch.equal(gradients(model, scorer.logps(responses).sum()), plain)
    assert len(calls) == 2  # once for the backward pass


@pytest.mark.parametrize("dtype", DTYPES)
def test_the_number_of_threads_changes_no_bit(wide_model, dtype, threads):
    scorer = Scorer(wide_model(dtype), pack_tokens=4096)
    responses = long_responses()
    threads(1)
    with torch.no_grad():
        expected = scorer.logps(responses)
    for n in (2, 3):
        threads(n)
        with torch.inference_mode():
            assert torch.equal(scorer.logps(responses), expected)
            assert torch.equal(scorer.logps([responses[6], responses[1]]), expected[[6, 1]])
            assert torch.equal(scorer.logps(responses[:1]), expected[:1])
        assert torch.equal(scorer.logps(responses[3:]).detach(), expected[3:])


def test_the_gradient_of_a_step_does_not_depend_on_its_packs():
    pool = random_responses(12, siblings=4)
    pairs = [(pool[4 * p + i], pool[4 * p + j]) for p in range(3) for i, j in ((0, 1), (2, 3), (1, 2), (0, 3))]
    whole = Scorer(build_model(), pack_tokens=2048)
    assert len(whole.plan(pairs)) == 1
    expected = step_gradient(whole, pairs)
    for budget, n_packs in ((1, 12), (100, 4), (250, 2)):
        scorer = Scorer(build_model(), pack_tokens=budget)
        assert len(scorer.plan(pairs)) >= n_packs
        assert relative_difference(step_gradient(scorer, pairs), expected) < 1e-6


@pytest.mark.parametrize("backend", ["rows", "segments"])
def test_a_pair_longer_than_the_budget_is_scored_alone_and_whole(model, backend):
    pairs = [(random_responses(8)[i], random_responses(8)[i + 1]) for i in (0, 2, 4, 6)]
    generator = np.random.default_rng(0)
    prompt = generator.integers(0, 320, 100)
    pairs[1] = (
        make_response(prompt, generator.integers(0, 320, 150)),
        make_response(prompt, generator.integers(0, 320, 80)),
    )
    with torch.no_grad():
        naive = torch.stack([naive_sum(model, response) for response in pairs[1]])
        scorer = Scorer(model, pack_tokens=200, backend=backend)
        (batch,) = [batch for batch in scorer.plan(pairs) if 1 in batch.groups]
        assert batch.groups == [1] and batch.responses == list(pairs[1])
        assert batch.n_tokens == 100 + 150 + 100 + 80
        torch.testing.assert_close(scorer.logps(batch.responses).double(), naive, atol=1e-3, rtol=1e-6)


def test_many_tiles_give_what_one_tile_gives(model, monkeypatch):
    responses = random_responses(5)
    scorer = Scorer(model, pack_tokens=256)
    with torch.no_grad():
        whole = scorer.logps(responses)
        monkeypatch.setattr("stages.scoring.head.TILE_ROWS", 3)
        monkeypatch.setattr("stages.scoring.head.TILE_TOKENS", 7)
        torch.testing.assert_close(scorer.logps(responses), whole, atol=1e-5, rtol=1e-6)


def test_the_rest_of_a_batch_of_rows_hardly_matters(model):
    responses = random_responses(8)
    scorer = Scorer(model, pack_tokens=256, backend="rows")
    with torch.no_grad():
        together = scorer.logps(responses)
        alone = torch.cat([scorer.logps([response]) for response in responses])
    torch.testing.assert_close(together, alone, atol=1e-5, rtol=1e-6)


@pytest.mark.parametrize("family", ["llama", "gemma2", "cohere2", "granite"])
@pytest.mark.parametrize("dtype", DTYPES)
def test_plain_scaled_and_capped_models_are_scored_by_tiles(family, dtype, caplog):
    with caplog.at_level(logging.INFO):
        Scorer(build(family).to(dtype), pack_tokens=256)
    assert "own logits" not in caplog.text


@pytest.mark.parametrize("backend", ["rows", "segments"])
@pytest.mark.parametrize("family", ["llama", "qwen3"])
def test_a_model_that_is_more_than_its_output_layer_is_scored_by_its_own_logits(family, backend, caplog):
    """A cap that its configuration does not name, put around the model's forward."""
    model = build(family)
    model.register_forward_hook(lambda _, __, output: output | {"logits": 2 * torch.tanh(output.logits / 2)})
    responses = random_responses(4, siblings=2)
    weights = torch.linspace(-1, 1, len(responses))
    naive = torch.stack([naive_sum(model, response) for response in responses])
    naive_gradient = gradients(model, (naive * weights).sum())
    with caplog.at_level(logging.INFO):
        ours = Scorer(model, pack_tokens=256, backend=backend).logps(responses)
    torch.testing.assert_close(ours.double(), naive, atol=1e-4, rtol=0)
    assert relative_difference(gradients(model, (ours * weights).sum()), naive_gradient) < 1e-5
    assert "ForCausalLM is scored by its own logits: they are more than its output layer" in caplog.text


def test_scoring_leaves_the_global_random_state_alone(model):
    scorer = Scorer(model, pack_tokens=256)
    before = torch.get_rng_state()
    scorer.logps(random_responses(3)).sum().backward()
    assert torch.equal(before, torch.get_rng_state())


@pytest.mark.parametrize("backend", ["rows", "segments"])
def test_a_plan_holds_every_group_once_and_each_response_once(model, backend):
    scorer = Scorer(model, pack_tokens=400, backend=backend)
    responses = random_responses(12)
    groups = [(responses[i], responses[(i + 1) % 12]) for i in range(12)]
    batches = scorer.plan(groups)
    assert sorted(index for batch in batches for index in batch.groups) == list(range(12))
    for batch in batches:
        keys = [response.key for response in batch.responses]
        assert len(keys) == len(set(keys))
        assert {r.key for index in batch.groups for r in groups[index]} == set(keys)


def test_batches_of_rows_keep_to_the_budget_and_a_longer_group_stands_alone(model):
    scorer = Scorer(model, pack_tokens=60, backend="rows")
    groups = [(response,) for response in random_responses(20)]
    for batch in scorer.plan(groups):
        padded = len(batch.responses) * max(len(response) for response in batch.responses)
        assert padded <= 60 or len(batch.groups) == 1


def test_packs_keep_to_the_budget_with_their_padding_and_a_longer_group_stands_alone(model):
    scorer = Scorer(model, pack_tokens=128)
    widths = []
    model.model.register_forward_pre_hook(
        lambda _, __, inputs: widths.append(inputs["input_ids"].shape), with_kwargs=True
    )
    with torch.no_grad():
        for batch in scorer.plan([(response,) for response in random_responses(20, longest=(90, 90))]):
            scorer.logps(batch.responses)
            assert widths[-1] <= (1, 128) or len(batch.groups) == 1
    assert (1, 128) in widths and max(widths) > (1, 128)


def test_a_pack_has_room_for_a_token_of_padding(model):
    one, other, shorter = (make_response([n], range(n_ids)) for n, n_ids in ((1, 63), (2, 63), (3, 62)))
    scorer = Scorer(model, pack_tokens=128)
    assert len(scorer.plan([(one,), (other,)])) == 2
    assert len(scorer.plan([(one,), (shorter,)])) == 1


def test_the_stack_names_what_made_the_scores(model):
    rows = Scorer(model, pack_tokens=128, backend="rows")
    assert rows.attention == "rows" and not rows.reproduces(rows.stack())
    scorer = Scorer(model, pack_tokens=128)
    stack = scorer.stack()
    assert (scorer.attention, stack["backend"], stack["pack_tokens"]) == ("packs", "segments", "128")
    assert scorer.reproduces(stack | {"pack_tokens": "256"})
    assert not scorer.reproduces(stack | {"torch": "0.0"})


def test_a_model_has_one_scorer():
    model = build("llama")
    Scorer(model, 256)
    with pytest.raises(AssertionError, match="this model has a scorer already"):
        Scorer(model, 256)


@pytest.mark.parametrize("length", [1, 2, 3, 8, 37])
def test_sums_by_doubling_are_prefix_sums_and_differentiable(length):
    """What stands in for cumsum on a GPU under train.deterministic, where torch refuses cumsum."""
    values = torch.randn(3, length, dtype=torch.float64, generator=torch.Generator().manual_seed(length))
    assert torch.allclose(doubling_sums(values), values.cumsum(dim=1), rtol=0, atol=1e-12)
    assert torch.equal(doubling_sums(values)[:, 0], values[:, 0])
    longer = torch.cat([values, torch.ones(3, 20, dtype=torch.float64)], dim=1)
    assert torch.equal(doubling_sums(longer)[:, :length], doubling_sums(values))
    assert torch.autograd.gradcheck(doubling_sums, values.requires_grad_())
