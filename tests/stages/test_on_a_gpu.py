"""What can be told of a GPU without one: every pass stays on it, and nothing in it waits for it."""

import traceback
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM, LlamaConfig

from data.schema import Response, TokenPair
from stages.pair_losses import PairLosses, mean_chosen_tokens
from stages.policy_sums import sums_of_batch
from stages.reference_rows import ReferenceLogps
from stages.scoring import scorer as scoring
from stages.scoring.attention.registered import NAME, register
from stages.scoring.head import OutputLayer
from stages.scoring.scorer import Scorer
from stages.training.config import TrainConfig
from tests.fake_gpu import GPU, on_fake_gpu, traced

PACK = 512
BACKENDS = ("varlen", "segments", "rows")
DTYPES = (torch.bfloat16, torch.float32)
SETTINGS: tuple[dict[str, Any], ...] = (
    {},
    {"ld_alpha": 0.5},
    {"use_weighting": True},
    {"objective": "ipo"},
    {"objective": {"sigmoid": 1, "sft": 0.2}},
)


@pytest.fixture(scope="module")
def seen():
    """All of what is traced, from one process: what each case came to, or its error."""
    return on_fake_gpu(trace_all)


def trace_all():
    cases = [(scored, backend, dtype) for backend in BACKENDS for dtype in DTYPES]
    cases += [(lost, settings) for settings in SETTINGS]
    cases += [(gradients_of_the_head, keep) for keep in (True, False)]
    return {case_name(*case): outcome(*case) for case in cases}


def case_name(function, *arguments):
    return f"{function.__name__} {arguments}"


def outcome(function, *arguments):
    try:
        return function(*arguments)
    except Exception:
        return traceback.format_exc()


def some_pairs(n=6):
    generator = np.random.default_rng(0)

    def tokens(most):
        return generator.integers(0, 320, generator.integers(3, most)).astype(np.int32)

    def response(prompt):
        ids = tokens(40)
        return Response(prompt, ids, np.ones(len(ids), bool))

    prompts = [tokens(20) for _ in range(n)]
    return [TokenPair(i, f"made:{i}", response(prompt), response(prompt)) for i, prompt in enumerate(prompts)]


def fake_scorer(backend, dtype=torch.bfloat16):
    """A scorer as it is once the start-up trials, which look at numbers, have chosen."""
    config = LlamaConfig(
        vocab_size=320, hidden_size=64, intermediate_size=96, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2,
    )  # fmt: skip
    register()
    with torch.device(GPU):
        model = AutoModelForCausalLM.from_config(config, dtype=dtype).eval()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(scoring, "choose_backend", lambda *_: backend)
        patch.setattr(scoring, "find_output_layer", lambda model, _: OutputLayer(model.lm_head.weight))
        scorer = Scorer(model, PACK)
    if backend != "rows":
        model.set_attn_implementation(NAME)
    return scorer


def scored(backend, dtype):
    with traced() as copies:
        scorer, pairs = fake_scorer(backend, dtype), some_pairs()
        copies.queued = copies.waited_for = 0  # of making the model
        tables = []
        for batch in scorer.plan([(pair.chosen, pair.rejected) for pair in pairs]):
            layout = scorer._lay_out(batch.responses)
            assert backend == "rows" or layout.input_ids.shape == (1, PACK)
            tables.append(scorer.token_logps(batch.responses))
        assert all(table.device == GPU and table.dtype == torch.float32 for table in tables)
        return len(tables), copies.queued, copies.waited_for, copies.back


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("dtype", DTYPES)
def test_scoring_waits_for_nothing(seen, backend, dtype):
    found = seen[case_name(scored, backend, dtype)]
    assert isinstance(found, tuple), found
    n_batches, queued, waited_for, back = found
    assert n_batches >= 1 and queued > n_batches
    assert (waited_for, back) == (0, 0)


def lost(settings):
    """The losses of a step's batch and what goes into its table, bar the gradient."""
    with traced() as copies:
        scorer, pairs, config = fake_scorer("varlen"), some_pairs(), TrainConfig(**settings)
        reference = {
            pair.key: ReferenceLogps(chosen=-3.0, rejected=-4.0, chosen_shared=-1.0, rejected_shared=-2.0)
            for pair in pairs
        }
        copies.waited_for = 0
        losses = PairLosses(config, reference)
        (batch,) = scorer.plan([(pair.chosen, pair.rejected) for pair in pairs])
        sums = sums_of_batch(pairs, batch, scorer, config)
        values = losses(pairs, sums, mean_chosen_tokens(pairs))
        assert values.device == GPU and values.shape == (len(pairs),)
        return copies.waited_for, copies.back


@pytest.mark.parametrize("settings", SETTINGS, ids=str)
def test_losses_wait_for_nothing(seen, settings):
    assert seen[case_name(lost, settings)] == (0, 0)


def gradients_of_the_head(keep):
    from stages.scoring import head

    with traced() as copies:
        hidden = torch.empty(128, 64, device=GPU, dtype=torch.bfloat16)
        weight = torch.empty(320, 64, device=GPU, dtype=torch.bfloat16)
        targets = torch.empty(128, device=GPU, dtype=torch.int64)
        saved = []
        context = SimpleNamespace(
            needs_input_grad=(True, True, False), save_for_backward=lambda *given: saved.extend(given)
        )
        head.KEPT_LOGITS = 2**26 if keep else 0
        head._TokenLogps.forward(context, hidden, weight, None, targets, OutputLayer(weight), True, False)
        context.saved_tensors = saved
        to_hidden, to_weight, *_ = head._TokenLogps.backward(context, torch.empty(128, device=GPU), None)
        assert (to_hidden.shape, to_weight.shape) == (hidden.shape, weight.shape)
        assert (to_hidden.device, to_weight.dtype) == (GPU, torch.bfloat16)
        return len(saved), copies.waited_for, copies.back


@pytest.mark.parametrize("keep", [True, False])
def test_the_heads_gradient_waits_for_nothing(seen, keep):
    found = seen[case_name(gradients_of_the_head, keep)]
    assert isinstance(found, tuple), found
    n_saved, *waits = found
    assert (n_saved > 5) == keep and waits == [0, 0]
