"""The step-0 check: a policy that starts from the reference must score as the reference did.

A sample of stored responses is scored again through the training path before the first update. A wrong template, mask,
truncation, checkpoint or model shows here, before it costs a night.
"""

import json
import logging
import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch

from data.errors import StoreError
from data.schema import Response, TokenPair
from stages.reference_rows import ReferenceLogps
from stages.scoring.scorer import Scorer

logger = logging.getLogger(__name__)

SAMPLE = 256  # responses
_EXAMPLES = 16  # of the responses that came out differently
_COMPANY = 4  # other responses
FP32_LIMIT = 1e-3  # nats, of one response's sum
# Rows in other batches differ legitimately in bf16 (by up to 0.033 rms and 0.15 at most, per root of a token).
BF16_RMS_LIMIT = 0.06
BF16_MAX_LIMIT = 0.4


class _Compared(NamedTuple):
    """A response, what is stored for it, whether these very bits are due, and what the policy gives."""

    response: Response
    stored: float
    exact: bool
    policy: float


def check_step_zero(
    scorer: Scorer, pairs: Sequence[TokenPair], reference: dict[str, ReferenceLogps], dtype: str
) -> dict[str, float]:
    """Score the sample and compare; returns the figures that were looked at.

    Values that were scored in packs on the same stack must come out the same bit for bit, others within a tolerance.

    Raises:
        StoreError: the policy does not score as the stored reference did.
    """
    compared = _compare(scorer, _stored_sums(pairs, reference))
    off = [c for c in compared if c.exact and c.policy != c.stored]
    exact = all(c.exact for c in compared)
    if off and not all(_same_in_company(scorer, c, compared) for c in off[:_EXAMPLES]):
        logger.info("this model's scores depend on the pack in their last bits; step 0 is checked within a tolerance")
        off, exact = [], False
    d = np.array([c.policy - c.stored for c in compared])
    n = np.array([c.response.n_scored for c in compared])
    figures = {
        "responses": float(len(d)),
        "not_exact": float(len(off)),
        "max_abs": float(np.abs(d).max()),
        "rms_per_root_token": math.sqrt(float(np.mean(d**2 / n))),
        "max_per_root_token": float((np.abs(d) / np.sqrt(n)).max()),
        "mean_per_token": float(np.mean(d / n)),
    }
    _judge(figures, dtype, exact)
    return figures


def _compare(scorer: Scorer, stored: dict[Response, tuple[float, str]]) -> list[_Compared]:
    due = {stack: scorer.reproduces(json.loads(stack)) for stack in {stack for _, stack in stored.values()}}
    compared = []
    with torch.no_grad():
        for batch in scorer.plan([[response] for response in _by_length(list(stored))]):
            for response, policy in zip(batch.responses, scorer.logps(batch.responses).tolist(), strict=True):
                value, stack = stored[response]
                compared.append(_Compared(response, value, due[stack], policy))
    return compared


@torch.no_grad()
def _same_in_company(scorer: Scorer, compared: _Compared, others: Sequence[_Compared]) -> bool:
    """Whether the scorer gives the response the same bits alone and beside others (mixtures of experts do not)."""
    company = [c.response for c in others if c is not compared][:_COMPANY]
    alone, beside = scorer.logps([compared.response]), scorer.logps([compared.response, *company])
    return alone[0].item() == beside[0].item() == compared.policy


def _judge(figures: dict[str, float], dtype: str, exact: bool) -> None:
    if exact or figures["not_exact"]:
        passed = figures["max_abs"] == 0
        limit = "none at all on the same machine and versions"
    elif dtype == "float32":
        passed = figures["max_abs"] <= FP32_LIMIT
        limit = f"at most {FP32_LIMIT} nats a response in {dtype}"
    else:
        passed = figures["rms_per_root_token"] <= BF16_RMS_LIMIT and figures["max_per_root_token"] <= BF16_MAX_LIMIT
        limit = f"at most {BF16_RMS_LIMIT} rms and {BF16_MAX_LIMIT} at worst, per root of a token, in {dtype}"
    if not passed:  # also where a figure is not a number
        raise StoreError(
            f"Step-0 check failed before the first update: the policy starts from the reference, but scores "
            f"{figures['responses']:.0f} stored responses differently: up to {figures['max_abs']:.4g} nats apart, "
            f"{figures['rms_per_root_token']:.4g} rms and {figures['max_per_root_token']:.4g} at worst per root of a "
            f"token (expected: {limit}; mean {figures['mean_per_token']:+.4g} a token). The stored "
            "log-probs were not made by this model from these tokens, or were changed. Delete the reference's folder "
            "in the store and run `pipeline precompute-ref`; if it fails again, compare the machines' torch versions."
        )
    if exact:
        logger.info("step-0 check passed: %.0f responses, each the same to the last bit", figures["responses"])
    else:
        logger.info(
            "step-0 check passed: %.0f responses, at most %.2g nats apart", figures["responses"], figures["max_abs"]
        )


def _stored_sums(pairs: Sequence[TokenPair], reference: dict[str, ReferenceLogps]) -> dict[Response, tuple[float, str]]:
    """Each response's stored sum and the stack that scored it."""
    unique: dict[str, tuple[Response, tuple[float, str]]] = {}
    for pair in pairs:
        stored = reference[pair.key]
        unique[pair.chosen.key] = (pair.chosen, (stored.chosen, stored.stack))
        unique[pair.rejected.key] = (pair.rejected, (stored.rejected, stored.stack))
    return dict(unique[key] for key in sorted(unique))


def _by_length(responses: list[Response]) -> list[Response]:
    """`SAMPLE` of the responses, evenly spread over their lengths."""
    if len(responses) <= SAMPLE:
        return responses
    ordered = sorted(responses, key=len)
    return [ordered[round(i * (len(ordered) - 1) / (SAMPLE - 1))] for i in range(SAMPLE)]
