"""The step-0 check: a policy that starts from the reference must score as the reference did.

A sample of stored responses is scored again through the training path before the first update. A wrong template, mask,
truncation, checkpoint or model shows here, before it costs a night.
"""

import logging
import math
from collections.abc import Sequence

import numpy as np
import torch

from data.errors import StoreError
from data.schema import Response, TokenPair
from stages.reference_rows import ReferenceLogps
from stages.scoring.scorer import Scorer

logger = logging.getLogger(__name__)

SAMPLE = 256  # responses
FP32_LIMIT = 1e-3  # nats, of one response's sum
# Rows in other batches differ legitimately in bf16 (by up to 0.033 rms and 0.15 at most, per root of a token).
BF16_RMS_LIMIT = 0.06
BF16_MAX_LIMIT = 0.4


def check_step_zero(
    scorer: Scorer, pairs: Sequence[TokenPair], reference: dict[str, ReferenceLogps], dtype: str
) -> dict[str, float]:
    """Score the sample and compare; returns the figures that were looked at.

    Raises:
        StoreError: the policy does not score as the stored reference did.
    """
    stored = _stored_sums(pairs, reference)
    sample = _by_length(list(stored))
    differences, counts = [], []
    with torch.no_grad():
        for batch in scorer.plan([[response] for response in sample]):
            sums = scorer.logps(batch.responses).tolist()
            differences += [s - stored[r] for s, r in zip(sums, batch.responses, strict=True)]
            counts += [response.n_scored for response in batch.responses]
    d, n = np.array(differences), np.array(counts)
    figures = {
        "responses": float(len(d)),
        "max_abs": float(np.abs(d).max()),
        "rms_per_root_token": math.sqrt(float(np.mean(d**2 / n))),
        "max_per_root_token": float((np.abs(d) / np.sqrt(n)).max()),
        "mean_per_token": float(np.mean(d / n)),
    }
    _judge(figures, dtype)
    return figures


def _judge(figures: dict[str, float], dtype: str) -> None:
    if dtype == "float32":
        passed = figures["max_abs"] <= FP32_LIMIT
        limit = f"at most {FP32_LIMIT} nats a response"
    else:
        passed = figures["rms_per_root_token"] <= BF16_RMS_LIMIT and figures["max_per_root_token"] <= BF16_MAX_LIMIT
        limit = f"at most {BF16_RMS_LIMIT} rms and {BF16_MAX_LIMIT} at worst, per root of a token"
    if not passed:  # also where a figure is not a number
        raise StoreError(
            f"Step-0 check failed before the first update: the policy starts from the reference, but scores "
            f"{figures['responses']:.0f} stored responses differently: up to {figures['max_abs']:.4g} nats apart, "
            f"{figures['rms_per_root_token']:.4g} rms and {figures['max_per_root_token']:.4g} at worst per root of a "
            f"token ({limit} is expected in {dtype}; mean {figures['mean_per_token']:+.4g} a token). The stored "
            "log-probs were not made by this model from these tokens, or were changed. Delete the reference's folder "
            "in the store and run `pipeline precompute-ref`; if it fails again, compare the machines' torch versions."
        )
    logger.info(
        "step-0 check passed: %.0f responses, at most %.2g nats apart", figures["responses"], figures["max_abs"]
    )


def _stored_sums(pairs: Sequence[TokenPair], reference: dict[str, ReferenceLogps]) -> dict[Response, float]:
    unique: dict[str, tuple[Response, float]] = {}
    for pair in pairs:
        unique[pair.chosen.key] = (pair.chosen, reference[pair.key].chosen)
        unique[pair.rejected.key] = (pair.rejected, reference[pair.key].rejected)
    return dict(unique[key] for key in sorted(unique))


def _by_length(responses: list[Response]) -> list[Response]:
    """`SAMPLE` of the responses, evenly spread over their lengths."""
    if len(responses) <= SAMPLE:
        return responses
    ordered = sorted(responses, key=len)
    return [ordered[round(i * (len(ordered) - 1) / (SAMPLE - 1))] for i in range(SAMPLE)]
