"""The hands of a training job that is measured: they time its steps, and may keep a reference beside the policy."""

from collections.abc import Sequence
from typing import Any

import torch

import pipeline  # noqa: F401 - finds our packages
from data.schema import TokenPair
from gpu_measure import now
from pipeline.control import ProcessControl
from stages.job import Work
from stages.reference_rows import ReferenceLogps
from stages.scoring.scorer import Scorer


class StepClock(ProcessControl):
    """Knows when the first step was over.

    A job asks before each batch whether it has to stop. With a scorer for the reference, the pairs of a step are scored
    when it asks first: where a loop without stored log-probs does it, and in the step's time.
    """

    def __init__(
        self, steps: Sequence[Sequence[TokenPair]], scorer: Scorer | None, reference: dict[str, ReferenceLogps]
    ) -> None:
        super().__init__(quiet=True)
        self._steps, self._scorer, self._reference = steps, scorer, reference
        self._finished = 0
        self.scored = 0
        """Steps that the reference was asked about."""
        self.first_at = 0.0

    def stop_requested(self) -> bool:
        """Never."""
        if self._scorer is not None and self.scored == self._finished < len(self._steps):
            self._score(self._scorer, self._steps[self.scored])
            self.scored += 1
        return False

    def worked(self, on: Work, seconds: float, tokens: int) -> None:
        """A step is over."""
        self._finished += 1
        if self._finished == 1:
            self.first_at = now()

    @torch.no_grad()
    def _score(self, scorer: Scorer, pairs: Sequence[TokenPair]) -> None:
        sums: dict[str, float] = {}
        tables: list[tuple[Any, torch.Tensor]] = []
        for batch in scorer.plan([(pair.chosen, pair.rejected) for pair in pairs]):
            tables.append((batch.responses, scorer.logps(batch.responses)))
        for responses, logps in tables:  # read when all are under way: a GPU is not kept waiting
            sums |= zip((response.key for response in responses), logps.tolist(), strict=True)
        for pair in pairs:
            self._reference[pair.key] = ReferenceLogps(sums[pair.chosen.key], sums[pair.rejected.key])
