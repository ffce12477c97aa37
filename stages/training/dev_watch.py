"""Looks at dev pairs in the middle of a run: which step was best, and whether it is time to stop."""

import logging
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from stages.job import Control
from stages.metrics.names import LOWER_IS_BETTER
from stages.metrics.preference import preference_metrics
from stages.metrics.records import records_frame
from stages.processes import Processes
from stages.reference_rows import SplitPairs
from stages.response_scores import score_pairs
from stages.scoring.scorer import Batch, Scorer
from stages.training.config import TrainConfig

logger = logging.getLogger(__name__)


@dataclass
class DevWatch:
    """What the evaluations of a run have come to so far; part of each checkpoint."""

    best_step: int | None = None
    best_value: float | None = None
    without_improvement: int = 0
    """Evaluations since the best one."""

    def observe(self, step: int, metrics: Mapping[str, float], config: TrainConfig) -> bool:
        """Take an evaluation in; whether it is the best one so far. Equal is no improvement."""
        name = config.metric_for_best_model
        if name is None:
            return False
        value = metrics[name]
        if not math.isfinite(value) or (self.best_value is not None and not _better(value, self.best_value, name)):
            self.without_improvement += 1
            return False
        self.best_step, self.best_value, self.without_improvement = step, value, 0
        logger.info("step %d is the best so far: %s %.4g on dev pairs", step, name, value)
        return True

    def out_of_patience(self, config: TrainConfig) -> bool:
        """Whether as many evaluations in a row as `early_stopping_patience` have brought nothing."""
        return 0 < config.early_stopping_patience <= self.without_improvement

    def document(self, last_step: int) -> dict[str, Any]:
        """What a report says: which step became the policy, where dev pairs chose it."""
        if self.best_step is None:
            return {}
        return {"best_step": self.best_step, "best_value": self.best_value, "last_step": last_step}

    def state(self) -> dict[str, Any]:
        """JSON-ready."""
        return asdict(self)


def due(step: int, total_steps: int, config: TrainConfig) -> bool:
    """Whether dev pairs are looked at after this many steps: each `eval_every`, and at the end."""
    return config.eval_every > 0 and (step % config.eval_every == 0 or step == total_steps)


def dev_metrics(
    dev: SplitPairs, scorer: Scorer, config: TrainConfig, control: Control, processes: Processes
) -> dict[str, float]:
    """The metrics of `pipeline eval`, of the dev pairs under the policy as it is now."""
    with control.bar("dev pairs", len(dev.pairs)) as bar:

        def scored(batch: Batch) -> None:
            of_all = processes.size  # the others are about as far
            bar.advance(of_all * len(batch.responses) / 2, of_all * batch.n_tokens)

        records = score_pairs(dev.pairs, dev.reference, scorer, config, scored, processes)
    return preference_metrics(records_frame(records, config.beta))


def _better(value: float, best: float, name: str) -> bool:
    return value < best if name in LOWER_IS_BETTER else value > best
