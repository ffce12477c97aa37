"""The preference losses by name, and the implicit rewards that all of them share."""

from collections.abc import Callable
from typing import Any

import torch
from torch.nn.functional import logsigmoid

Loss = Callable[..., torch.Tensor]


def sigmoid(D: torch.Tensor, *, beta: float, label_smoothing: float) -> torch.Tensor:
    """-(1-e) log s(bD) - e log s(-bD): DPO (arXiv 2305.18290, eq. 7); e > 0 is conservative DPO (Mitchell 2023).

    D (B,) nats -> losses (B,). Finite in fp32 for |bD| up to 1e4 and beyond.
    """
    return -(1 - label_smoothing) * logsigmoid(beta * D) - label_smoothing * logsigmoid(-beta * D)


OBJECTIVES: dict[str, Loss] = {"sigmoid": sigmoid}


def preference_loss(
    name: str,
    policy_chosen_logps: torch.Tensor,
    policy_rejected_logps: torch.Tensor,
    ref_chosen_logps: torch.Tensor,
    ref_rejected_logps: torch.Tensor,
    chosen_tokens: torch.Tensor,
    rejected_tokens: torch.Tensor,
    beta: float = 0.1,
    label_smoothing: float | None = None,
    **parameters: Any,
) -> torch.Tensor:
    """Losses (B,) of a batch of pairs; all log-probs are (B,) sums in nats, `*_tokens` (B,) counts of scored tokens.

    Raises:
        ValueError: an objective or a parameter that does not exist: a parameter without effect is never accepted.
    """
    if name not in OBJECTIVES:
        raise ValueError(f"unknown objective {name!r}; known: {', '.join(OBJECTIVES)}")
    if parameters:
        raise ValueError(f"{', '.join(sorted(parameters))} has no effect on the objective {name!r}; remove it")
    D = (policy_chosen_logps - ref_chosen_logps) - (policy_rejected_logps - ref_rejected_logps)
    return OBJECTIVES[name](D, beta=beta, label_smoothing=label_smoothing or 0.0)


def implicit_rewards(
    policy_chosen_logps: torch.Tensor,
    policy_rejected_logps: torch.Tensor,
    ref_chosen_logps: torch.Tensor,
    ref_rejected_logps: torch.Tensor,
    beta: float = 0.1,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Beta times the log-ratios of chosen and rejected, (B,) each (arXiv 2305.18290, after eq. 5)."""
    return beta * (policy_chosen_logps - ref_chosen_logps), beta * (policy_rejected_logps - ref_rejected_logps)
