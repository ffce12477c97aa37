"""The losses: one function each, of what it reads of the pairs, (B,) tensors in nats -> losses (B,).

catalogue.py says what each is called, reads and takes; notation in __init__.py. All are finite in fp32 at |D| = 1e4.
"""

import math
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid


def sigmoid(D: Tensor, m: Tensor | float, *, beta: float, label_smoothing: float) -> Tensor:
    """-(1-e) log s(bD - m) - e log s(m - bD)."""
    return _smoothed(beta * D - m, label_smoothing)


def robust(D: Tensor, *, beta: float, label_smoothing: float) -> Tensor:
    """[-(1-e) log s(bD) + e log s(-bD)] / (1-2e): its mean over labels flipped with chance e is the clean loss."""
    x, e = beta * D, label_smoothing
    return (-(1 - e) * logsigmoid(x) + e * logsigmoid(-x)) / (1 - 2 * e)


def hinge(D: Tensor, *, beta: float) -> Tensor:
    """max(0, 1 - bD)."""
    return (1 - beta * D).relu()


def ipo(c: Tensor, r: Tensor, chosen_tokens: Tensor, rejected_tokens: Tensor, *, beta: float, average: bool) -> Tensor:
    """(c/L+ - r/L- - 1/(2b))^2; without `average` of the sums c and r."""
    difference = c / chosen_tokens - r / rejected_tokens if average else c - r
    return torch.square(difference - 1 / (2 * beta))


def sigmoid_norm(c: Tensor, r: Tensor, chosen_tokens: Tensor, rejected_tokens: Tensor, *, beta: float) -> Tensor:
    """-log s(b (c/L+ - r/L-))."""
    return -logsigmoid(beta * (c / chosen_tokens - r / rejected_tokens))


def exo_pair(D: Tensor, *, beta: float, label_smoothing: float) -> Tensor:
    """KL of q = s(bD) from the label: q log(q / (1-e)) + (1-q) log((1-q) / e), e > 0."""
    x, e = beta * D, label_smoothing
    return x.sigmoid() * (logsigmoid(x) - math.log1p(-e)) + (-x).sigmoid() * (logsigmoid(-x) - math.log(e))


def nca_pair(c: Tensor, r: Tensor, *, beta: float) -> Tensor:
    """-log s(bc) - 1/2 log s(-bc) - 1/2 log s(-br)."""
    return -logsigmoid(beta * c) - (logsigmoid(-beta * c) + logsigmoid(-beta * r)) / 2


def bco_pair(c: Tensor, r: Tensor, *, beta: float, bco_delta: float) -> Tensor:
    """-log s(bc - d) - log s(d - br)."""
    return -logsigmoid(beta * c - bco_delta) - logsigmoid(bco_delta - beta * r)


def sppo_hard(c: Tensor, r: Tensor, *, beta: float) -> Tensor:
    """(c - 1/(2b))^2 + (r + 1/(2b))^2."""
    return torch.square(c - 1 / (2 * beta)) + torch.square(r + 1 / (2 * beta))


def apo_zero(c: Tensor, r: Tensor, *, beta: float) -> Tensor:
    """1 - s(bc) + s(br)."""
    return (-beta * c).sigmoid() + (beta * r).sigmoid()


def apo_down(c: Tensor, r: Tensor, *, beta: float) -> Tensor:
    """s(bc) + 1 - s(b(c - r))."""
    return (beta * c).sigmoid() + (-beta * (c - r)).sigmoid()


def discopop(D: Tensor, *, beta: float, discopop_tau: float) -> Tensor:
    """(1-w)(-log s(x)) + w exp(-x) with x = bD and w = s(x/tau)."""
    x = beta * D
    # w exp(-x) as one exponential: exp(-x) alone overflows where w is 0
    return (-x / discopop_tau).sigmoid() * -logsigmoid(x) + (logsigmoid(x / discopop_tau) - x).exp()


def dpop(D: Tensor, c: Tensor, *, beta: float, dpop_lambda: float) -> Tensor:
    """-log s(b (D - lambda max(0, -c)))."""
    return -logsigmoid(beta * (D - dpop_lambda * (-c).relu()))


def aot(policy_margin: Tensor, ref_margin: Tensor, *, beta: float, label_smoothing: float) -> Tensor:
    """Smoothed -log s(bD_k), D_k = k-th smallest policy margin less k-th smallest reference margin of the step.

    A margin is log p(y+) - log p(y-). The loss at rank k is given to the pair whose policy margin has that rank.
    """
    return _smoothed(beta * (policy_margin - ref_margin.sort().values[_ranks(policy_margin)]), label_smoothing)


def aot_unpaired(c: Tensor, r: Tensor, *, beta: float, label_smoothing: float) -> Tensor:
    """Smoothed -log s(bD_k), D_k = k-th smallest c less k-th smallest r of the step; given to the pair of that c."""
    return _smoothed(beta * (c - r.sort().values[_ranks(c)]), label_smoothing)


def sft(chosen_logps: Tensor, chosen_tokens_per_pair: Tensor | float) -> Tensor:
    """-log pi(y+) * pairs / chosen tokens of the step, so that the mean over pairs is the mean over tokens."""
    return -chosen_logps / chosen_tokens_per_pair


def simpo(
    policy_chosen: Tensor,
    policy_rejected: Tensor,
    chosen_tokens: Tensor,
    rejected_tokens: Tensor,
    *,
    beta: float,
    simpo_gamma: float,
) -> Tensor:
    """-log s(b (log pi(y+)/L+ - log pi(y-)/L-) - gamma)."""
    return -logsigmoid(beta * (policy_chosen / chosen_tokens - policy_rejected / rejected_tokens) - simpo_gamma)


def naive(policy_margin: Tensor, *, beta: float) -> Tensor:
    """-log s(b (log pi(y+) - log pi(y-)))."""
    return -logsigmoid(beta * policy_margin)


def _smoothed(x: Tensor, e: float) -> Tensor:
    return -(1 - e) * logsigmoid(x) - e * logsigmoid(-x)


def _ranks(values: Tensor) -> Tensor:
    """The place of each value in their order; equal ones in the order of the step."""
    return values.argsort(stable=True).argsort()


LOSSES: dict[str, Callable[..., Tensor]] = {
    loss.__name__: loss
    for loss in (
        *(sigmoid, robust, hinge, ipo, sigmoid_norm, exo_pair, nca_pair, bco_pair, sppo_hard, aot, aot_unpaired),
        *(apo_zero, apo_down, discopop, dpop, sft, simpo, naive),
    )
}
