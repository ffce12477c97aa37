"""The training loop: policy only, reference log-probs from the store.

One optimiser step visits `pairs_per_step` pairs; its loss is the mean over these, so that neither batches nor the
number of processes reach the gradient. Whatever is random in a step is a function of the seed and the step's number.
"""

import logging
import math
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch

from data.errors import Interrupted, PipelineError
from stages.job import Bar, Control
from stages.metrics.preference import preference_metrics
from stages.pair_losses import PairLosses
from stages.processes import ALONE, Processes
from stages.reference_rows import SplitPairs
from stages.response_scores import score_pairs
from stages.scoring.scorer import Scorer
from stages.training.checkpoint import Checkpoints
from stages.training.config import TrainConfig
from stages.training.dev_watch import DevWatch, due
from stages.training.memory import peak_memory_bytes
from stages.training.optimizer import MasterAdamW
from stages.training.order import StepOrder, steps_per_epoch
from stages.training.run_log import RunLog, step_metrics
from stages.training.schedule import learning_rate, warmup_length
from stages.training.step import StepMaker, StepResult

MAX_SKIPPED = 3  # steps in a row that are not finite

logger = logging.getLogger(__name__)


@dataclass
class Progress:
    """Where a run stands; part of each checkpoint."""

    step: int = 0
    tokens: int = 0
    skipped: int = 0
    """Steps without an update, because loss or gradient were not finite."""
    skipped_in_row: int = 0


@dataclass
class Trainer:
    """One run: its pairs, the policy, and the folder it writes to."""

    split: SplitPairs
    dev: SplitPairs | None
    """Looked at each `eval_every` steps; None: never."""
    scorer: Scorer
    config: TrainConfig
    folder: Path
    identity: str
    control: Control
    processes: Processes = ALONE
    progress: Progress = field(default_factory=Progress)
    seconds: float = 0.0
    """Of stepping, in this process."""

    def __post_init__(self) -> None:
        config, pairs = self.config, self.split.pairs
        self._optimizer = MasterAdamW(self.scorer.model, config.weight_decay, config.optim)
        losses = PairLosses(config, self.split.reference)
        self._maker = StepMaker(self.scorer, losses, self.split.reference, self.processes)
        self._order = StepOrder(pairs, config.seed, config.pairs_per_step)
        self._steps_per_epoch = steps_per_epoch(len(pairs), config.pairs_per_step)
        self.total_steps = self._steps_per_epoch * config.epochs
        self._warmup = warmup_length(config.warmup_steps, self.total_steps)
        self._checkpoints = Checkpoints(self.folder / "checkpoints", self.identity, config.keep, self.processes)
        self.watch = DevWatch()

    def resume(self) -> None:
        """Go on from the newest checkpoint that verifies; metrics beyond it are taken back.

        Raises:
            StoreError: there are checkpoints, and none verifies.
        """
        if self.processes.is_first:
            self._checkpoints.sweep()
        checkpoint = self._checkpoints.newest()
        if checkpoint is not None:
            self._optimizer.load(checkpoint.tensors(self._optimizer.masters))
            self.progress = Progress(**checkpoint.state["progress"])
            self.watch = DevWatch(**checkpoint.state["dev"])
            logger.info("resuming after step %d of %d", self.progress.step, self.total_steps)

    def run(self) -> None:
        """Train to the last step, or until dev pairs say that it is enough; the policy is then the best or the last.

        Raises:
            Interrupted: a signal came; the last finished step is checkpointed.
            PipelineError: loss or gradient are not finite, again and again; the last checkpoint is kept.
            EnvironmentProblem: a checkpoint cannot be written; those before it are kept.
        """
        epochs, steps = divmod(self.progress.step, self._steps_per_epoch)
        visited = epochs * len(self.split.pairs) + steps * self.config.pairs_per_step
        total = len(self.split.pairs) * self.config.epochs
        with _reproducible(self.config), self.control.bar("training", total, stored=visited) as bar, self._log() as log:
            while self.progress.step < self.total_steps and not self.watch.out_of_patience(self.config):
                metrics = self._step(bar)
                improved = self._look_at_dev(metrics)
                if log is not None:
                    log.append(metrics)
                bar.note(_note(metrics))
                at_end = self.progress.step == self.total_steps
                if improved or (self.progress.step % self.config.checkpoint_every == 0 and not at_end):
                    self._checkpoint()
                self._checkpoints.check()
        self._checkpoints.wait()
        self._take_the_best()

    def _step(self, bar: Bar) -> dict[str, Any]:
        started = time.perf_counter()
        self._stop_if_all_asked()
        number = self.progress.step
        torch.manual_seed(hash((self.config.seed, number)))  # for models that draw numbers in eval mode, too
        result = self._maker.gradients(self._order.step(number), self._stop_if_asked, bar)
        rate = learning_rate(
            number, self.total_steps, self.config.learning_rate, self._warmup, self.config.lr_scheduler_type
        )
        norm = self._update(result, rate)
        seconds = time.perf_counter() - started
        self.progress.step += 1
        self.progress.tokens += result.tokens
        self.seconds += seconds
        return {
            "step": self.progress.step,
            "epoch": self.progress.step / self._steps_per_epoch,
            **step_metrics(result, self.config.beta, rewards=self.split.reference is not None),
            "grad_norm": norm,
            "learning_rate": rate,
            "num_tokens": self.progress.tokens,
            "tokens_per_second": result.tokens / seconds,
            "peak_memory_bytes": peak_memory_bytes(),
            "skipped_steps": self.progress.skipped,
        }

    def _update(self, result: StepResult, rate: float) -> float:
        """Update the policy; a step whose loss or gradient is not finite is left out, a few in a row end the run."""
        norm = math.nan
        if math.isfinite(result.loss):
            norm = self._optimizer.step(rate, self.config.max_grad_norm, self.processes)
        else:
            self._optimizer.drop_gradients()
        if math.isfinite(norm):
            self.progress.skipped_in_row = 0
            return norm
        self.progress.skipped += 1
        self.progress.skipped_in_row += 1
        name, value = ("loss", result.loss) if not math.isfinite(result.loss) else ("gradient norm", norm)
        where = ", ".join(pair.location for pair in result.pairs[:10])
        step = self.progress.step + 1
        if self.progress.skipped_in_row == MAX_SKIPPED:
            raise PipelineError(
                f"Training stopped at step {step}: the {name} is {value}, and so it was in the {MAX_SKIPPED - 1} steps "
                f"before. None of these updates was applied, and the last checkpoint is kept. The pairs of this step: "
                f"{where}. A lower train.learning_rate, or reference.dtype: float32, usually helps."
            )
        logger.warning("step %d is skipped: its %s is %s (pairs %s)", step, name, value, where)
        return norm

    def _look_at_dev(self, metrics: dict[str, Any]) -> bool:
        """Evaluate on dev pairs where it is time to, into the step's metrics; whether this is the best step so far."""
        step = self.progress.step
        if self.dev is None or not due(step, self.total_steps, self.config):
            return False
        rewards = self.dev.reference is not None
        with self.control.bar("dev pairs", len(self.dev.pairs)) as bar:
            records = score_pairs(
                self.dev.pairs,
                self.dev.reference,
                self.scorer,
                self.config,
                lambda batch: bar.advance(len(batch.responses) / 2, batch.n_tokens),
                self.processes,
            )
        found = preference_metrics(records, self.config.beta, rewards=rewards)
        metrics |= {f"dev/{name}": value for name, value in found.items()}
        return self.watch.observe(step, found, self.config)

    def _take_the_best(self) -> None:
        """Put the policy where dev pairs liked it best, if they were asked."""
        best = self.watch.best_step
        if best is not None and best != self.progress.step:
            logger.info("the policy is that of step %d, the best on dev pairs", best)
            self._optimizer.load(self._checkpoints.at(best).tensors(self._optimizer.masters))

    def _stop_if_asked(self) -> None:
        """Between batches: of several processes none stops in the middle of a step."""
        if self.processes.size == 1 and self.control.stop_requested():
            self._stop()

    def _stop_if_all_asked(self) -> None:
        if self.processes.size > 1 and self.processes.total(float(self.control.stop_requested())) > 0:
            self._stop()

    def _stop(self) -> None:
        saved = "nothing had to be saved"
        if self.progress.step > 0:
            self._checkpoint()
            self._checkpoints.wait()
            saved = f"saved in {self.folder / 'checkpoints'}"
        raise Interrupted(
            f"Stopped by a signal after step {self.progress.step} of {self.total_steps}, {saved}. Run the same command "
            "again to go on exactly from there."
        )

    def _checkpoint(self) -> None:
        state = {"progress": asdict(self.progress), "dev": self.watch.state()}
        self._checkpoints.save(self._optimizer.state(), self.progress.step, state, self.watch.best_step)

    @contextmanager
    def _log(self) -> Iterator[RunLog | None]:
        """The run's log, in the process that writes it."""
        if not self.processes.is_first:
            yield None
            return
        log = RunLog(self.folder / "metrics.jsonl", self.progress.step)
        try:
            yield log
        finally:
            log.close()


@contextmanager
def _reproducible(config: TrainConfig) -> Iterator[None]:
    """Leave the caller's random numbers alone; where asked, refuse what varies from run to run."""
    before = torch.are_deterministic_algorithms_enabled()
    with torch.random.fork_rng():
        torch.use_deterministic_algorithms(config.deterministic or before)
        try:
            yield
        finally:
            torch.use_deterministic_algorithms(before)


def _note(metrics: dict[str, Any]) -> str:
    margin = f", margin {metrics['rewards/margins']:+.3f}" if "rewards/margins" in metrics else ""
    return f"loss {metrics['loss']:.4f}{margin}"
