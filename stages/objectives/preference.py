"""The preference losses by name, and the implicit rewards that all of them share."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from stages.objectives.losses import LOSSES
from stages.objectives.pair_sums import PairSums
from stages.objectives.terms import Term, resolve_terms


def preference_loss(
    name: str | Mapping[str, float],
    policy_chosen_logps: Tensor,
    policy_rejected_logps: Tensor,
    ref_chosen_logps: Tensor | None,
    ref_rejected_logps: Tensor | None,
    chosen_tokens: Tensor,
    rejected_tokens: Tensor,
    beta: float = 0.1,
    label_smoothing: float | None = None,
    **parameters: Any,
) -> Tensor:
    """Losses (B,) of the pairs of an optimiser step.

    `name` is an objective of catalogue.py or a sum of them, {name: coefficient}. All log-probs are (B,) sums in nats
    (those of the reference None where `name` reads none), `*_tokens` (B,) counts of scored tokens. `label_smoothing`
    None is the objective's default. `parameters`: the objective's own, `f_divergence_type`, `f_alpha_divergence_coef`,
    `margins` (B,), and `weights` (B,), which multiply the losses.

    Raises:
        ValueError: an objective or a parameter that does not exist: a parameter without effect is never accepted.
    """
    margins, weights = parameters.pop("margins", None), parameters.pop("weights", None)
    divergence, alpha = parameters.pop("f_divergence_type", None), parameters.pop("f_alpha_divergence_coef", None)
    if label_smoothing is not None:
        parameters["label_smoothing"] = label_smoothing
    terms = resolve_terms(
        name,
        parameters,
        f_divergence_type=divergence,
        f_alpha_divergence_coef=alpha,
        margins=margins is not None,
    )
    if ref_chosen_logps is None and not all(term.objective.reference_free for term in terms):
        raise ValueError(f"the objective {' + '.join(t.objective.name for t in terms)} needs the reference's log-probs")
    sums = PairSums(
        policy_chosen=policy_chosen_logps,
        policy_rejected=policy_rejected_logps,
        ref_chosen=ref_chosen_logps,
        ref_rejected=ref_rejected_logps,
        chosen_logps=policy_chosen_logps,
        chosen_tokens=chosen_tokens,
        rejected_tokens=rejected_tokens,
        chosen_tokens_per_pair=chosen_tokens.double().mean().to(policy_chosen_logps.dtype),
        m=0.0 if margins is None else margins,
        divergence=divergence,
        divergence_alpha=alpha,
    )
    losses = summed_losses(terms, sums, beta)
    return losses if weights is None else losses * weights


def summed_losses(terms: Sequence[Term], sums: PairSums, beta: float) -> Tensor:
    """The weighted sum of the terms' losses (B,)."""
    return torch.stack([term.coefficient * _losses(term, sums, beta) for term in terms]).sum(0)


def _losses(term: Term, sums: PairSums, beta: float) -> Tensor:
    objective = term.objective
    arguments = [getattr(sums, name) for name in objective.reads]
    scale = {"beta": beta} if objective.takes_beta else {}
    return LOSSES[objective.name](*arguments, **scale, **term.parameters)


def implicit_rewards(
    policy_chosen_logps: Tensor,
    policy_rejected_logps: Tensor,
    ref_chosen_logps: Tensor,
    ref_rejected_logps: Tensor,
    beta: float = 0.1,
) -> tuple[Tensor, Tensor]:
    """Beta times the log-ratios of chosen and rejected, (B,) each (arXiv 2305.18290, after eq. 5)."""
    return beta * (policy_chosen_logps - ref_chosen_logps), beta * (policy_rejected_logps - ref_rejected_logps)
