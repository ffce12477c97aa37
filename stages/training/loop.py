"""The training loop: policy only, reference log-probs from the store.

One optimiser step visits `pairs_per_step` pairs, in as many batches as memory asks for; its loss is the mean over the
pairs of the step, so that batching never reaches the gradient.
"""

import json
import logging
import math
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from data.durable import write_bytes
from data.errors import Interrupted, PipelineError
from data.schema import TokenPair
from data.tokens.token_pairs import TokenPairs
from stages.job import Bar, Control
from stages.metrics.pairwise import PairScores
from stages.pair_losses import PairLosses
from stages.policy_sums import pair_scores
from stages.reference_rows import ReferenceLogps
from stages.scoring.scorer import Scorer
from stages.training.checkpoint import newest_checkpoint, save_checkpoint
from stages.training.config import TrainConfig
from stages.training.memory import peak_memory_bytes
from stages.training.optimizer import MasterAdamW
from stages.training.order import StepOrder, steps_per_epoch
from stages.training.schedule import learning_rate, warmup_length
from stages.training.step_losses import StepLosses

logger = logging.getLogger(__name__)


@dataclass
class Progress:
    """Where a run stands: optimiser steps and tokens behind it, and what this process has done."""

    step: int = 0
    tokens: int = 0
    seconds: float = 0.0


@dataclass
class Trainer:
    """One run: its pairs, their reference side, the policy, and the folder it writes to."""

    pairs: TokenPairs
    reference: dict[str, ReferenceLogps] | None
    """By pair key; None where the objective reads none."""
    scorer: Scorer
    config: TrainConfig
    folder: Path
    identity: str
    control: Control
    progress: Progress = field(default_factory=Progress)

    def __post_init__(self) -> None:
        self._optimizer = MasterAdamW(self.scorer.model, self.config.weight_decay)
        self._losses = PairLosses(self.config, self.reference)
        self._order = StepOrder(self.pairs, self.config.seed, self.config.pairs_per_step)
        self._steps_per_epoch = steps_per_epoch(len(self.pairs), self.config.pairs_per_step)
        self.total_steps = self._steps_per_epoch * self.config.epochs
        self._warmup = warmup_length(self.config.warmup_steps, self.total_steps)

    def resume(self) -> None:
        """Go on from the newest checkpoint that verifies; metrics beyond it are taken back."""
        checkpoint = newest_checkpoint(self.folder / "checkpoints", self.identity)
        if checkpoint is not None:
            self._optimizer.load(checkpoint.tensors())
            self.progress.step, self.progress.tokens = checkpoint.step, checkpoint.tokens
            logger.info("resuming after step %d of %d", checkpoint.step, self.total_steps)
        lines = _metric_lines(self.folder / "metrics.jsonl")[: self.progress.step]
        write_bytes(self.folder / "metrics.jsonl", "".join(lines).encode())

    def run(self) -> None:
        """Train to the last step.

        Raises:
            Interrupted: a signal came; the last finished step is checkpointed.
            PipelineError: a loss or gradient is not finite; the last checkpoint is kept.
        """
        epochs, steps = divmod(self.progress.step, self._steps_per_epoch)
        visited = epochs * len(self.pairs) + steps * self.config.pairs_per_step
        with (
            self.control.bar("training", len(self.pairs) * self.config.epochs, stored=visited) as bar,
            (self.folder / "metrics.jsonl").open("a") as log,
        ):
            while self.progress.step < self.total_steps:
                metrics = self._step(bar)
                log.write(json.dumps(metrics) + "\n")
                log.flush()
                bar.note(_note(metrics))
                if self.progress.step % self.config.checkpoint_every == 0 and self.progress.step < self.total_steps:
                    self._checkpoint()

    def _step(self, bar: Bar) -> dict[str, Any]:
        started = time.perf_counter()
        pairs = self._order.step(self.progress.step)
        losses: list[torch.Tensor] = []
        scores: list[PairScores] = []
        tokens = 0
        batches = self.scorer.plan([(pair.chosen, pair.rejected) for pair in pairs])
        step = StepLosses(pairs, batches, self.scorer, self._losses, self._stop_if_asked)
        for batch in batches:
            self._stop_if_asked()
            batch_losses, policy = step.backward(batch)
            losses.append(batch_losses)
            scores += pair_scores([pairs[index] for index in batch.groups], policy, self.reference)
            tokens += batch.n_tokens
            bar.advance(len(batch.groups), batch.n_tokens)
        loss = float(torch.cat(losses).double().mean())
        self._check_finite("loss", loss, pairs)
        rate = learning_rate(
            self.progress.step, self.total_steps, self.config.learning_rate, self._warmup, self.config.lr_scheduler_type
        )
        norm = self._optimizer.step(rate, self.config.max_grad_norm)
        self._check_finite("gradient norm", norm, pairs)
        seconds = time.perf_counter() - started
        self.progress.step += 1
        self.progress.tokens += tokens
        self.progress.seconds += seconds
        return self._metrics(loss, norm, rate, scores, tokens / seconds)

    def _metrics(
        self, loss: float, norm: float, rate: float, scores: Sequence[PairScores], tokens_per_second: float
    ) -> dict[str, Any]:
        """One line of metrics.jsonl, under the names that TRL uses."""
        n, beta = len(scores), self.config.beta

        def mean(values: Iterable[float]) -> float:
            return sum(values) / n

        rewards = (
            {}
            if self.reference is None
            else {
                "rewards/chosen": mean(s.chosen_reward(beta) for s in scores),
                "rewards/rejected": mean(s.rejected_reward(beta) for s in scores),
                "rewards/margins": mean(s.margin(beta) for s in scores),
                "rewards/accuracies": mean(s.win for s in scores),
            }
        )
        return {
            "step": self.progress.step,
            "epoch": self.progress.step / self._steps_per_epoch,
            "loss": loss,
            "grad_norm": norm,
            "learning_rate": rate,
            **rewards,
            "logps/chosen": mean(s.policy_chosen for s in scores),
            "logps/rejected": mean(s.policy_rejected for s in scores),
            "num_tokens": self.progress.tokens,
            "tokens_per_second": tokens_per_second,
            "peak_memory_bytes": peak_memory_bytes(),
        }

    def _stop_if_asked(self) -> None:
        if not self.control.stop_requested():
            return
        saved = "nothing had to be saved"
        if self.progress.step > 0:
            self._checkpoint()
            saved = f"saved in {self.folder / 'checkpoints'}"
        raise Interrupted(
            f"Stopped by a signal after step {self.progress.step} of {self.total_steps}, {saved}. Run the same command "
            "again to go on exactly from there."
        )

    def _check_finite(self, name: str, value: float, pairs: Sequence[TokenPair]) -> None:
        if math.isfinite(value):
            return
        where = ", ".join(pair.location for pair in pairs[:10])
        raise PipelineError(
            f"Training stopped at step {self.progress.step + 1}: the {name} is {value}. The update was not applied and "
            f"the last checkpoint is kept. The pairs of this step: {where}. A lower train.learning_rate, or "
            "reference.dtype: float32, usually helps."
        )

    def _checkpoint(self) -> None:
        save_checkpoint(
            self.folder / "checkpoints",
            self._optimizer.state(),
            self.progress.step,
            self.progress.tokens,
            self.identity,
        )


def _note(metrics: dict[str, Any]) -> str:
    margin = f", margin {metrics['rewards/margins']:+.3f}" if "rewards/margins" in metrics else ""
    return f"loss {metrics['loss']:.4f}{margin}"


def _metric_lines(path: Path) -> list[str]:
    """The whole lines of metrics.jsonl."""
    if not path.exists():
        return []
    return [line for line in path.read_text().splitlines(keepends=True) if line.endswith("\n")]
