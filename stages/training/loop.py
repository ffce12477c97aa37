"""The training loop: policy only, reference log-probs from the store.

One optimiser step visits `pairs_per_step` pairs; its loss is the mean over these, so that neither batches nor the
number of processes reach the gradient. Whatever is random in a step is a function of the seed and the step's number.
"""

import logging
import math
import time
from contextlib import closing
from dataclasses import asdict, dataclass, field
from typing import Any

from data.errors import Interrupted
from data.schema import unique_responses
from stages.job import Bar, Control, Laps, Work
from stages.pair_losses import PairLosses
from stages.processes import ALONE, Processes
from stages.scoring.scorer import Scorer
from stages.training.checkpoint import Checkpoints
from stages.training.dev_watch import DevWatch, dev_metrics, due
from stages.training.flops import Utilisation
from stages.training.job import Training
from stages.training.memory import peak_memory_bytes
from stages.training.optimizer import MasterAdamW
from stages.training.order import StepOrder, steps_per_epoch
from stages.training.recorder import Recorder, recording
from stages.training.reproducible import seed_step
from stages.training.run_log import step_metrics
from stages.training.schedule import learning_rate, warmup_length
from stages.training.skipped_step import tell_of_skipped_step
from stages.training.step import StepMaker, StepResult

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
    """One run, trained by this process and its like."""

    job: Training
    scorer: Scorer
    control: Control
    utilisation: Utilisation
    processes: Processes = ALONE
    progress: Progress = field(default_factory=Progress)
    watch: DevWatch = field(default_factory=DevWatch)
    seconds: float = 0.0
    """Of stepping, in this process."""

    def __post_init__(self) -> None:
        config, (pairs, reference) = self.job.config, self.job.split
        self._optimizer = MasterAdamW(self.scorer.model, config.weight_decay, config.optim)
        self._maker = StepMaker(self.scorer, PairLosses(config, reference), reference, self.processes)
        self._order = StepOrder(pairs, config.seed, config.pairs_per_step)
        self._steps_per_epoch = steps_per_epoch(len(pairs), config.pairs_per_step)
        self.total_steps = self._steps_per_epoch * config.epochs
        self._warmup = warmup_length(config.warmup_steps, self.total_steps)
        folder = self.job.run.path / "checkpoints"
        self._checkpoints = Checkpoints(folder, self.job.run.identity, config.keep, self.processes)
        self._saved = 0  # the step of the newest checkpoint
        self._recorder: Recorder | None = None
        self._ends: dict[str, Any] = {}

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
            self._saved = self.progress.step
            self.watch = DevWatch(**checkpoint.state["dev"])
            logger.info("resuming after step %d of %d", self.progress.step, self.total_steps)

    def run(self) -> None:
        """Train to the last step, or until dev pairs say that it is enough; the policy is then the best or the last.

        Raises:
            Interrupted: a signal came; the last finished step is checkpointed.
            PipelineError: loss or gradient are not finite, again and again; the last checkpoint is kept.
            EnvironmentProblem: a checkpoint cannot be written; those before it are kept.
        """
        config, n_pairs = self.job.config, len(self.job.split.pairs)
        epochs, steps = divmod(self.progress.step, self._steps_per_epoch)
        visited = epochs * n_pairs + steps * config.pairs_per_step
        with (
            closing(self._checkpoints),
            recording(self.job, self.progress.step, here=self.processes.is_first) as self._recorder,
            self.control.bar("training", n_pairs * config.epochs, stored=visited) as bar,
        ):
            while self.progress.step < self.total_steps and not self.watch.out_of_patience(config):
                improved = self._step(bar)
                at_end = self.progress.step == self.total_steps
                if improved or (self.progress.step % config.checkpoint_every == 0 and not at_end):
                    self._checkpoint()
                self._checkpoints.check()
            self._wait_for_checkpoint()
            if self._recorder is not None:
                self._recorder.finish()
                self._ends = self._recorder.document()
        self._take_the_best()

    def document(self) -> dict[str, Any]:
        """What the run came to, for its report."""
        skipped = {"steps_skipped": self.progress.skipped} if self.progress.skipped else {}
        best = self.watch.document(self.progress.step)
        return {"steps_total": self.total_steps, **skipped, **best, **self._ends}

    def _step(self, bar: Bar) -> bool:
        """One step; whether dev pairs liked the policy after it better than ever before."""
        started = time.perf_counter()
        self._stop_if_all_asked()
        config, number = self.job.config, self.progress.step
        seed_step(config.seed, number)
        result = self._maker.gradients(self._order.step(number), self._stop_if_asked, bar)
        rate = learning_rate(number, self.total_steps, config.learning_rate, self._warmup, config.lr_scheduler_type)
        norm = self._update(result, rate)
        seconds = time.perf_counter() - started
        self.progress.step += 1
        self.progress.tokens += result.tokens
        self.seconds += seconds
        self._count("training", seconds, result.tokens)
        line = {
            "step": self.progress.step,
            "epoch": self.progress.step / self._steps_per_epoch,
            **step_metrics(result, config.beta, rewards=self.job.split.reference is not None),
            "grad_norm": norm,
            "learning_rate": rate,
            "num_tokens": self.progress.tokens,
            "tokens_per_second": result.tokens / seconds,
            **self.utilisation.of(result.pairs, seconds),
            "peak_memory_bytes": peak_memory_bytes(),
        }
        improved = self._look_at_dev(line)
        if self._recorder is not None:
            self._recorder.add(result, line, bar)
        if not math.isfinite(norm):
            tell_of_skipped_step(self.progress.step, result, norm, self.progress.skipped_in_row)
        return improved

    def _update(self, result: StepResult, rate: float) -> float:
        """Update the policy, unless loss or gradient are not finite; the gradient's norm, or NaN."""
        norm = math.nan
        if math.isfinite(result.loss):
            norm = self._optimizer.step(rate, self.job.config.max_grad_norm, self.processes)
        else:
            self._optimizer.drop_gradients()
        finite = math.isfinite(norm)
        self.progress.skipped += not finite
        self.progress.skipped_in_row = 0 if finite else self.progress.skipped_in_row + 1
        return norm

    def _look_at_dev(self, line: dict[str, Any]) -> bool:
        """Evaluate on dev pairs where it is time to, into the step's line; whether this is the best step so far."""
        dev, config = self.job.dev, self.job.config
        if dev is None or not due(self.progress.step, self.total_steps, config):
            return False
        laps = Laps()
        metrics = dev_metrics(dev, self.scorer, config, self.control, self.processes)
        self._count("evaluation", laps.lap(), sum(map(len, unique_responses(dev.pairs))))
        line |= {f"dev/{name}": value for name, value in metrics.items()}
        return self.watch.observe(self.progress.step, metrics, config)

    def _count(self, on: Work, seconds: float, tokens: int) -> None:
        """Of all processes, which take as long as this one."""
        if self.processes.is_first:
            self.control.worked(on, seconds * self.processes.size, tokens)

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
            self._wait_for_checkpoint()
            saved = f"saved in {self.job.run.path / 'checkpoints'}"
        raise Interrupted(
            f"Stopped by a signal after step {self.progress.step} of {self.total_steps}, {saved}. Run the same command "
            "again to go on exactly from there."
        )

    def _wait_for_checkpoint(self) -> None:
        """In all processes until it is durable: that of a whole model is written by the first one."""
        self._checkpoints.wait()
        self.processes.wait_for_all()

    def _checkpoint(self) -> None:
        if self.progress.step == self._saved:
            return
        if self._recorder is not None:
            self._recorder.flush()
        state = {"progress": asdict(self.progress), "dev": self.watch.state()}
        self._checkpoints.save(self._optimizer.state(), self.progress.step, state, self.watch.best_step)
        self._saved = self.progress.step
