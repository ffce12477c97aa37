"""The losses of one optimiser step and their gradients, batch by batch.

Most objectives give each pair its loss, so a batch is scored once. One over the whole step (aot) is scored twice: first
all pairs without gradients, for the slope of the step's loss by every sum of log-probs; then batch by batch for the
gradients that these slopes are the weights of. So the step is the whole step, whatever its batches.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from data.schema import TokenPair
from stages.pair_losses import PairLosses, mean_chosen_tokens
from stages.policy_sums import PolicySums, Side, sums_of_batch
from stages.scoring.scorer import Batch, Scorer


class _WholeStep(NamedTuple):
    """The losses of the step's pairs, and the slopes of their mean by the differentiable sums: (B,) each."""

    losses: Tensor
    slopes: list[Tensor]


class StepLosses:
    """One step: its pairs, in the batches that they go through the model in."""

    def __init__(
        self,
        pairs: Sequence[TokenPair],
        batches: Sequence[Batch],
        scorer: Scorer,
        losses: PairLosses,
        between: Callable[[], None],
    ) -> None:
        """`between` is called before each batch that is looked at ahead: it may raise what stops the job."""
        self._pairs = pairs
        self._scorer = scorer
        self._losses = losses
        self._chosen_tokens = mean_chosen_tokens(pairs)
        self._whole = self._look_ahead(batches, between) if losses.config.over_the_step else None

    def backward(self, batch: Batch) -> tuple[Tensor, PolicySums]:
        """Add the gradient of the batch's share of the step's mean loss; its pairs' losses (B,), detached, and sums."""
        pairs = [self._pairs[index] for index in batch.groups]
        policy = sums_of_batch(pairs, batch, self._scorer, self._losses.config)
        if self._whole is None:
            losses = self._losses(pairs, policy, self._chosen_tokens)
            (losses.sum() / len(self._pairs)).backward()  # type: ignore[no-untyped-call]
            return losses.detach(), policy
        at = torch.tensor(batch.groups, device=self._whole.losses.device)
        sums = zip(policy.differentiable(), self._whole.slopes, strict=True)
        torch.stack([(slope[at] * values).sum() for values, slope in sums]).sum().backward()  # type: ignore[no-untyped-call]
        return self._whole.losses[at], policy

    def _look_ahead(self, batches: Sequence[Batch], between: Callable[[], None]) -> _WholeStep:
        parts = []
        with torch.no_grad():
            for batch in batches:
                between()
                members = [self._pairs[i] for i in batch.groups]
                parts.append(sums_of_batch(members, batch, self._scorer, self._losses.config))
        order = torch.tensor(
            [index for batch in batches for index in batch.groups], device=parts[0].chosen.whole.device
        )
        back = order.argsort()  # from the order of batches to that of the step
        policy = PolicySums(*(_joined([part[side] for part in parts], back) for side in (0, 1)))
        losses = self._losses(self._pairs, policy, self._chosen_tokens)
        slopes = torch.autograd.grad(losses.mean(), policy.differentiable(), materialize_grads=True)
        return _WholeStep(losses.detach(), list(slopes))


def _joined(sides: Sequence[Side], back: Tensor) -> Side:
    """The sides of all batches as leaves that gradients can be asked by."""
    whole, shared, alignment = (
        None if values[0] is None else torch.cat(values)[back] for values in zip(*sides, strict=True)
    )
    assert whole is not None
    return Side(whole.requires_grad_(), None if shared is None else shared.requires_grad_(), alignment)
