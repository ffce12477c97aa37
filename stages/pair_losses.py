"""From sums of log-probs to the losses of pairs: the one way in which training and evaluation apply an objective."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from torch import Tensor

from data.schema import TokenPair
from stages.objectives.config import ObjectiveConfig
from stages.objectives.pair_sums import PairSums
from stages.objectives.preference import summed_losses
from stages.objectives.terms import Term
from stages.objectives.weighting import length_desensitized, wpo_weights
from stages.policy_sums import PolicySums, Side
from stages.reference_rows import ReferenceLogps
from stages.scoring.transfer import on_device


@dataclass(frozen=True)
class PairLosses:
    """An objective, and the reference side of the pairs that it is applied to."""

    config: ObjectiveConfig
    reference: Mapping[str, ReferenceLogps] | None
    """By pair key; None where the objective reads none."""

    def __call__(self, pairs: Sequence[TokenPair], policy: PolicySums, chosen_tokens_per_pair: float) -> Tensor:
        """Losses (B,) of pairs of an optimiser step; of all of them at once where the objective is over the step.

        `chosen_tokens_per_pair`: scored tokens of chosen, mean over the step.
        """
        losses = summed_losses(self._terms, self._sums(pairs, policy, chosen_tokens_per_pair), self.config.beta)
        if self.config.use_weighting:
            assert policy.chosen.alignment is not None and policy.rejected.alignment is not None
            losses = losses * wpo_weights(policy.chosen.alignment, policy.rejected.alignment)
        if any(pair.weight != 1 for pair in pairs):
            losses = losses * _like(losses, [pair.weight for pair in pairs])
        return losses

    @cached_property
    def _terms(self) -> list[Term]:
        return self.config.terms()

    def _sums(self, pairs: Sequence[TokenPair], policy: PolicySums, chosen_tokens_per_pair: float) -> PairSums:
        whole = policy.chosen.whole
        policy_chosen, policy_rejected = (self._weighed(side) for side in policy)
        ref_chosen, ref_rejected = self._reference_sums(pairs, whole)
        return PairSums(
            policy_chosen=policy_chosen,
            policy_rejected=policy_rejected,
            ref_chosen=ref_chosen,
            ref_rejected=ref_rejected,
            chosen_logps=whole,
            chosen_tokens=_like(whole, [pair.chosen.n_scored for pair in pairs]),
            rejected_tokens=_like(whole, [pair.rejected.n_scored for pair in pairs]),
            chosen_tokens_per_pair=chosen_tokens_per_pair,
            m=_like(whole, [pair.margin for pair in pairs]) if any(pair.margin for pair in pairs) else 0.0,
            divergence=self.config.f_divergence_type,
            divergence_alpha=self.config.f_alpha_divergence_coef,
        )

    def _reference_sums(self, pairs: Sequence[TokenPair], like: Tensor) -> tuple[Tensor | None, Tensor | None]:
        if self.reference is None:
            return None, None
        rows = [self.reference[pair.key] for pair in pairs]
        chosen = [row.chosen for row in rows], [row.chosen_shared for row in rows]
        rejected = [row.rejected for row in rows], [row.rejected_shared for row in rows]
        return self._weighed(self._side(*chosen, like)), self._weighed(self._side(*rejected, like))

    def _side(self, whole: Sequence[float], shared: Sequence[float | None], like: Tensor) -> Side:
        return Side(_like(like, whole), None if self.config.ld_alpha is None else _like(like, shared))

    def _weighed(self, side: Side) -> Tensor:
        """The sum with the weights that LD-DPO gives to tokens."""
        if self.config.ld_alpha is None:
            return side.whole
        assert side.shared is not None
        return length_desensitized(side.whole, side.shared, self.config.ld_alpha)


def mean_chosen_tokens(pairs: Sequence[TokenPair]) -> float:
    """Scored tokens of chosen a pair."""
    return sum(pair.chosen.n_scored for pair in pairs) / len(pairs)


def _like(tensor: Tensor, values: Sequence[float | None]) -> Tensor:
    return on_device(values, tensor.device, tensor.dtype)
