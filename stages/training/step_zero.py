"""The step-0 check: a policy that starts from the reference must score as the reference did.

A sample of stored responses is scored again through the training path before the first update. A wrong template, mask,
truncation, checkpoint or model shows here, before it costs a night.
"""

import json
import logging
from collections.abc import Sequence
from typing import NamedTuple

import torch

from data.errors import StoreError
from data.schema import Response, TokenPair
from stages.agreement import agreement, agrees, in_words, limit_in_words, spread
from stages.reference_rows import ReferenceLogps
from stages.scoring.scorer import Scorer

logger = logging.getLogger(__name__)

SAMPLE = 256  # responses
_EXAMPLES = 16  # of the responses that came out differently
_COMPANY = 4  # other responses


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
    scored, stored = [c.policy for c in compared], [c.stored for c in compared]
    figures = agreement(stored, scored, [c.response.n_scored for c in compared]) | {"not_exact": float(len(off))}
    _judge(figures, dtype, exact)
    return figures


def _compare(scorer: Scorer, stored: dict[Response, tuple[float, str]]) -> list[_Compared]:
    due = {stack: scorer.reproduces(json.loads(stack)) for stack in {stack for _, stack in stored.values()}}
    compared = []
    with torch.no_grad():
        for batch in scorer.plan([[response] for response in spread(sorted(stored, key=len), SAMPLE)]):
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
        passed, limit = figures["max_abs"] == 0, "none at all on the same machine and versions"
    else:
        passed, limit = agrees(figures, dtype), limit_in_words(dtype)
    if not passed:  # also where a figure is not a number
        raise StoreError(
            f"Step-0 check failed before the first update: the policy starts from the reference, but scores "
            f"{figures['responses']:.0f} stored responses differently: {in_words(figures)} (expected: {limit}; mean "
            f"{figures['mean_per_token']:+.4g} a token). The stored log-probs were not made by this model from these "
            "tokens, or were changed. Delete the reference's folder in the store and run `pipeline precompute-ref`; if "
            "it fails again, compare the machines' torch versions."
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
