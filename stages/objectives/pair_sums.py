"""What the losses read of a batch of pairs: sums of log-probs under policy and reference, and what is made of them."""

from dataclasses import dataclass

from torch import Tensor

from stages.objectives.divergences import divergence_score


@dataclass(frozen=True, kw_only=True)
class PairSums:
    """B pairs. Sums over scored tokens, in nats; counts are scored tokens. LD-DPO has weighed the first four."""

    policy_chosen: Tensor
    policy_rejected: Tensor
    ref_chosen: Tensor | None
    """None: the objective reads no reference."""
    ref_rejected: Tensor | None
    chosen_logps: Tensor
    """Of the whole chosen response, whatever LD-DPO did to `policy_chosen`."""
    chosen_tokens: Tensor
    rejected_tokens: Tensor
    chosen_tokens_per_pair: float | Tensor
    """Mean of chosen_tokens over the optimiser step."""
    m: Tensor | float = 0.0
    """Margins."""
    divergence: str | None = None
    divergence_alpha: float | None = None

    @property
    def c(self) -> Tensor:
        """Log-ratio of the chosen response."""
        assert self.ref_chosen is not None
        return self.policy_chosen - self.ref_chosen

    @property
    def r(self) -> Tensor:
        """Log-ratio of the rejected response."""
        assert self.ref_rejected is not None
        return self.policy_rejected - self.ref_rejected

    @property
    def D(self) -> Tensor:  # noqa: N802
        """The difference c - r, or under another f-divergence the difference of its scores."""
        if self.divergence is None:
            return self.c - self.r
        chosen, rejected = (divergence_score(x, self.divergence, self.divergence_alpha) for x in (self.c, self.r))
        return chosen - rejected

    @property
    def policy_margin(self) -> Tensor:
        """Of the policy: log pi(y+) - log pi(y-)."""
        return self.policy_chosen - self.policy_rejected

    @property
    def ref_margin(self) -> Tensor:
        """Of the reference: log ref(y+) - log ref(y-)."""
        assert self.ref_chosen is not None and self.ref_rejected is not None
        return self.ref_chosen - self.ref_rejected
