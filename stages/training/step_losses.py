"""The losses of one optimiser step and their gradients, batch by batch.

The loss of a pair is a function of a few sums of log-probs. So a batch's gradient is that of its sums, weighed by the
slopes of the step's loss by each of them. Most objectives give each pair its loss, and a batch its slopes. For one over
the whole step (aot) all pairs are scored first, without gradients, for the slopes: the step is the whole step, whatever
its batches, and whichever processes they are scored by.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from data.schema import TokenPair
from stages.pair_losses import PairLosses, mean_chosen_tokens
from stages.policy_sums import PolicySums, Side, sums_of_batch
from stages.processes import ALONE, Processes
from stages.scoring.scorer import Batch, Scorer
from stages.scoring.transfer import on_device
from stages.shares import rounds


class BatchLosses(NamedTuple):
    """Of the B pairs of a batch, detached, (B,) each."""

    losses: Tensor
    policy: PolicySums
    weights: Tensor
    """How hard each pair pulls: mean over its sides of |d loss / d log pi|, of its own loss."""


class StepLosses:
    """One step: its pairs, and the batches in which each process puts its share of them through the model."""

    def __init__(
        self,
        pairs: Sequence[TokenPair],
        plans: Sequence[Sequence[Batch]],
        scorer: Scorer,
        losses: PairLosses,
        between: Callable[[], None],
        processes: Processes = ALONE,
    ) -> None:
        """`between` is called before each batch that is looked at ahead: it may raise what stops the job."""
        self._pairs = pairs
        self._scorer = scorer
        self._losses = losses
        self._chosen_tokens = mean_chosen_tokens(pairs)
        self._whole = self._look_ahead(plans, between, processes) if losses.config.over_the_step else None

    def backward(self, batch: Batch) -> BatchLosses:
        """Add the gradient of the batch's share of the step's mean loss."""
        policy = self._score(batch)
        losses, slopes = self._slopes(batch, policy)
        torch.autograd.backward(policy.differentiable(), slopes.differentiable())
        return BatchLosses(losses, _detached(policy), slopes.pull() * len(self._pairs))

    def backward_nothing(self, batch: Batch) -> None:
        """Go through the model and back and add no gradient: where the others do, and all have to do it together."""
        sums = self._score(batch).differentiable()
        torch.autograd.backward(sums, [torch.zeros_like(values) for values in sums])

    def _score(self, batch: Batch) -> PolicySums:
        return sums_of_batch(self._members(batch), batch, self._scorer, self._losses.config)

    def _members(self, batch: Batch) -> list[TokenPair]:
        return [self._pairs[place] for place in batch.groups]

    def _slopes(self, batch: Batch, policy: PolicySums) -> tuple[Tensor, "_Slopes"]:
        """The losses of the batch's pairs, and the slopes of the step's mean loss by their sums."""
        if self._whole is not None:
            losses, slopes = self._whole
            at = on_device(batch.groups, losses.device)
            return losses[at], _Slopes(*(slope[at] for slope in slopes.differentiable()))
        leaves = _leaves(policy)
        losses = self._losses(self._members(batch), leaves, self._chosen_tokens)
        return losses.detach(), _Slopes.of(losses.sum() / len(self._pairs), leaves)

    def _look_ahead(
        self, plans: Sequence[Sequence[Batch]], between: Callable[[], None], processes: Processes
    ) -> tuple[Tensor, "_Slopes"]:
        """Losses and slopes of all pairs of the step."""
        parts: list[PolicySums] = []
        with torch.no_grad():
            for batch, counts in rounds(plans, processes):
                between()
                sums = self._score(batch)
                parts += [sums] if counts else []
        places = [place for batch in plans[processes.rank] for place in batch.groups]
        policy = _leaves(PolicySums(*(self._joined(parts, side, places, processes) for side in (0, 1))))
        losses = self._losses(self._pairs, policy, self._chosen_tokens)
        return losses.detach(), _Slopes.of(losses.mean(), policy)

    def _joined(self, parts: Sequence[PolicySums], side: int, places: Sequence[int], processes: Processes) -> Side:
        """One side of all pairs of the step, from the batches of all processes."""
        device = self._scorer.model.device
        at = on_device(places, device, torch.long)

        def whole_step(name: str, asked: bool) -> Tensor | None:
            if not asked:
                return None
            table = torch.zeros(len(self._pairs), device=device)
            if parts:
                table[at] = torch.cat([getattr(part[side], name) for part in parts])
            return processes.add_up(table)

        config = self._losses.config
        whole = whole_step("whole", asked=True)
        assert whole is not None
        return Side(
            whole, whole_step("shared", config.ld_alpha is not None), whole_step("alignment", config.use_weighting)
        )


class _Slopes(NamedTuple):
    """Of a loss, by the sums of pairs: (B,) each, None where the loss reads no such sum."""

    chosen: Tensor
    rejected: Tensor
    chosen_shared: Tensor | None = None
    rejected_shared: Tensor | None = None

    @classmethod
    def of(cls, loss: Tensor, policy: PolicySums) -> "_Slopes":
        return cls(*torch.autograd.grad(loss, policy.differentiable(), materialize_grads=True))

    def differentiable(self) -> list[Tensor]:
        return [slope for slope in self if slope is not None]

    def pull(self) -> Tensor:
        """Mean of the absolute slopes by the log-prob of either side."""
        sides = ((self.chosen, self.chosen_shared), (self.rejected, self.rejected_shared))
        by_side = [whole if shared is None else whole + shared for whole, shared in sides]
        return (by_side[0].abs() + by_side[1].abs()) / 2


def _leaves(policy: PolicySums) -> PolicySums:
    """The same sums, as what gradients are asked by."""
    return PolicySums(
        *(
            Side(_leaf(side.whole), None if side.shared is None else _leaf(side.shared), side.alignment)
            for side in policy
        )
    )


def _leaf(values: Tensor) -> Tensor:
    return values.detach().requires_grad_()


def _detached(policy: PolicySums) -> PolicySums:
    return PolicySums(*(Side(side.whole.detach(), None, None) for side in policy))
