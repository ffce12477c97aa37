"""One optimiser step up to its gradients: its pairs, dealt to the processes, in as many batches as memory asks for."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch

from data.schema import TokenPair
from stages.job import Bar
from stages.metrics.pairwise import PairScores
from stages.pair_losses import PairLosses
from stages.policy_sums import PolicySums, Side, pair_scores
from stages.processes import Processes
from stages.reference_rows import ReferenceLogps
from stages.scoring.scorer import Scorer
from stages.scoring.transfer import on_device
from stages.shares import rounds, step_shares
from stages.training.step_losses import BatchLosses, StepLosses


@dataclass(frozen=True)
class StepResult:
    """What a step said of each of its pairs, in the step's order; the same in every process."""

    pairs: Sequence[TokenPair]
    losses: list[float]
    scores: list[PairScores]
    weights: list[float]
    """How hard each pair pulls: mean over its sides of |d loss / d log pi|, of its own loss."""
    tokens: int

    @property
    def loss(self) -> float:
        """Mean over the pairs."""
        return sum(self.losses) / len(self.losses)


@dataclass(frozen=True)
class StepMaker:
    """Adds a step's gradients to a model's, and gathers what it says of the pairs."""

    scorer: Scorer
    losses: PairLosses
    reference: Mapping[str, ReferenceLogps] | None
    processes: Processes

    def gradients(self, pairs: Sequence[TokenPair], between: Callable[[], None], bar: Bar) -> StepResult:
        """The gradient of the mean loss of `pairs`; of this process's share, where they are summed later.

        `between` is called before each batch: it may raise what stops the job.
        """
        plans = step_shares(pairs, self.scorer, self.processes.size)
        own = plans[self.processes.rank]
        step = StepLosses(pairs, plans, self.scorer, self.losses, between, self.processes)
        n_own = sum(len(batch.groups) for batch in own)
        table = torch.zeros((len(pairs), 4), dtype=torch.float64, device=self.scorer.model.device)
        for batch, counts in rounds(plans, self.processes):
            between()
            if not counts:
                step.backward_nothing(batch)
                continue
            table[on_device(batch.groups, table.device)] = _columns(step.backward(batch))
            of_all = len(pairs) / n_own  # the other processes are as far
            bar.advance(len(batch.groups) * of_all, round(batch.n_tokens * of_all))
        tokens = self.processes.total(sum(batch.n_tokens for batch in own))
        return self._result(pairs, self.processes.add_up(table), int(tokens))

    def _result(self, pairs: Sequence[TokenPair], table: torch.Tensor, tokens: int) -> StepResult:
        losses, chosen, rejected, weights = table.T
        scores = pair_scores(pairs, PolicySums(Side(chosen), Side(rejected)), self.reference)
        return StepResult(pairs, losses.tolist(), scores, weights.tolist(), tokens)


def _columns(batch: BatchLosses) -> torch.Tensor:
    sums = (batch.policy.chosen.whole, batch.policy.rejected.whole)
    return torch.stack([column.double() for column in (batch.losses, *sums, batch.weights)], dim=1)
