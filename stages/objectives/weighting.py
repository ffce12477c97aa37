"""What tokens and pairs weigh: LD-DPO for tokens, WPO for pairs."""

from torch import Tensor


def length_desensitized(whole: Tensor, shared: Tensor, alpha: float) -> Tensor:
    """LD-DPO: shared sum + alpha * the rest (arXiv 2409.06411), of policy and reference alike: (B,) nats each.

    `shared` is the sum over the first min(L+, L-) scored tokens. alpha 1: DPO; 0: nothing beyond the shorter length.
    """
    return shared + alpha * (whole - shared)


def wpo_weights(chosen_alignment: Tensor, rejected_alignment: Tensor) -> Tensor:
    """WPO: w(y+) w(y-), w = exp of the mean over a response's tokens of log pi_t - log sum_v pi_v^2 (arXiv 2406.11827).

    The arguments are those means, (B,) nats. Near 1 where the policy would have written the pair itself. Detached.
    """
    return (chosen_alignment + rejected_alignment).exp().detach()
