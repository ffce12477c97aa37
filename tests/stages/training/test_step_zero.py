"""The step-0 check: exact agreement passes, an edit of one sum does not, and the sample covers all lengths."""

import json
import logging

import numpy as np
import pytest
import torch

from data.errors import StoreError
from data.schema import TokenPair
from stages.reference_rows import ReferenceLogps
from stages.scoring.scorer import Scorer
from stages.training.step_zero import check_step_zero
from tests.families import build, random_responses
from tests.tiny import build_model


@pytest.fixture(scope="module")
def scored():
    scorer = Scorer(build_model(), pack_tokens=512)
    responses = random_responses(24)
    pairs = [TokenPair(i, f"x:{i}", responses[2 * i], responses[2 * i + 1]) for i in range(12)]
    with torch.no_grad():
        sums = scorer.logps(responses).tolist()
    reference = {pair.key: ReferenceLogps(sums[2 * i], sums[2 * i + 1]) for i, pair in enumerate(pairs)}
    return scorer, pairs, reference


def scored_by(stack, reference):
    """The same values, with what scored them."""
    return {key: sums._replace(stack=json.dumps(stack)) for key, sums in reference.items()}


def test_packs_on_the_same_stack_are_held_to_the_last_bit(scored, caplog):
    scorer, pairs, reference = scored
    caplog.set_level(logging.INFO)
    reference = scored_by(scorer.stack() | {"pack_tokens": "99"}, reference)
    assert check_step_zero(scorer, pairs, reference, "float32")["max_abs"] == 0
    assert "24 responses, each the same to the last bit" in caplog.text
    stored = reference[pairs[5].key]
    ulp = float(np.nextafter(np.float32(stored.chosen), np.float32(0)))
    with pytest.raises(StoreError, match="expected: none at all on the same machine and versions"):
        check_step_zero(scorer, pairs, {**reference, pairs[5].key: stored._replace(chosen=ulp)}, "float32")


@pytest.mark.parametrize("change", [{"torch": "1.0"}, {"backend": "varlen"}, {"device": "another"}, {"reused": "some"}])
def test_another_stack_is_held_to_a_tolerance(scored, change):
    scorer, pairs, reference = scored
    stored = reference[pairs[5].key]
    nearly = {**reference, pairs[5].key: stored._replace(chosen=stored.chosen + 1e-4)}
    check_step_zero(scorer, pairs, scored_by(scorer.stack() | change, nearly), "float32")


def test_a_model_whose_scores_depend_on_the_pack_is_held_to_a_tolerance(scored, caplog, monkeypatch):
    """As a mixture of experts does: its experts see as many tokens as the pack sends them."""
    scorer, pairs, reference = scored
    caplog.set_level(logging.INFO)
    exactly = Scorer.logps
    monkeypatch.setattr(Scorer, "logps", lambda self, batch: exactly(self, batch) * (1 + 1e-7 * len(batch)))
    check_step_zero(scorer, pairs, scored_by(scorer.stack(), reference), "float32")
    assert "depend on the pack in their last bits" in caplog.text


def test_rows_are_never_held_to_bits(scored):
    _, pairs, reference = scored
    rows = Scorer(build_model(), pack_tokens=512, backend="rows")
    assert not rows.reproduces(rows.stack())
    check_step_zero(rows, pairs, scored_by(rows.stack(), reference), "float32")


def test_what_was_scored_by_this_model_passes(scored):
    figures = check_step_zero(*scored, "float32")
    assert figures["responses"] == 24 and figures["max_abs"] < 1e-4


@pytest.mark.parametrize(("edit", "dtype"), [(0.002, "float32"), (-0.5, "float32"), (9.0, "bfloat16")])
def test_one_edited_sum_fails(scored, edit, dtype):
    scorer, pairs, reference = scored
    stored = reference[pairs[5].key]
    edited = {**reference, pairs[5].key: stored._replace(chosen=stored.chosen + edit)}
    with pytest.raises(StoreError, match="Step-0 check failed before the first update"):
        check_step_zero(scorer, pairs, edited, dtype)


def test_nan_fails(scored):
    scorer, pairs, reference = scored
    edited = {**reference, pairs[0].key: ReferenceLogps(float("nan"), -1.0)}
    with pytest.raises(StoreError, match="Step-0 check failed"):
        check_step_zero(scorer, pairs, edited, "bfloat16")


def test_another_model_fails(scored):
    _, pairs, reference = scored
    with pytest.raises(StoreError, match="nats apart"):
        check_step_zero(Scorer(build_model(seed=1), pack_tokens=512), pairs, reference, "bfloat16")


def test_a_mixture_of_experts_passes_step_zero_with_another_pack_length():
    """Even if every response of the check is alone in its pack, so that none differs from itself alone."""
    responses = random_responses(24)
    pairs = [TokenPair(i, f"x:{i}", responses[2 * i], responses[2 * i + 1]) for i in range(12)]
    wide = Scorer(build("mixtral"), 4096)
    with torch.no_grad():
        sums = wide.logps(responses).tolist()
    stack = json.dumps(wide.stack())
    reference = {p.key: ReferenceLogps(sums[2 * i], sums[2 * i + 1], stack) for i, p in enumerate(pairs)}
    check_step_zero(wide, pairs, reference, "float32")
    check_step_zero(Scorer(build("mixtral"), 16), pairs, reference, "float32")
