"""Job two: train the policy, and nothing else. The reference is read from the store and never loaded.

A finished run is found finished without loading a model; an interrupted one goes on exactly where it stopped.
"""

import logging
import math
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING

from safetensors import safe_open

from data.durable import write_folder
from data.pairs.folder import PairsFolder
from data.schema import both_sides
from data.tokens.token_pairs import TokenPairs
from stages.job import Control, JobReport
from stages.reference_rows import SplitPairs
from stages.run_folder import RunFolder
from stages.scoring.config import Numerics
from stages.training.config import TrainConfig
from stages.training.order import steps_per_epoch

if TYPE_CHECKING:
    from stages.processes import Processes
    from stages.scoring.scorer import Scorer

CHECKPOINT_BYTES = 12  # a parameter: fp32 master and AdamW's two moments

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class StartPolicy:
    """The model that training starts from."""

    folder: Path
    is_reference: bool
    name: tuple[str, str | None]
    """Hub id or folder as it is configured, and the revision: what the run's adapter is an adapter to."""


def plan_train(pairs: TokenPairs, run: RunFolder, config: TrainConfig, start: Path | None) -> JobReport:
    """What training this run from the beginning would do, without writing anything."""
    if run.is_trained:
        return finished(pairs, run)
    tokens = config.epochs * pairs.n_tokens
    steps = config.epochs * steps_per_epoch(len(pairs), config.pairs_per_step)
    report = JobReport("train", "dry_run", run.path.name, pairs=len(pairs), tokens=tokens)
    report.details = {"steps_total": steps}
    if start is not None:
        weights = sum(file.stat().st_size for file in start.glob("*.safetensors"))
        report.details["disk_bytes"] = weights + CHECKPOINT_BYTES * n_parameters(start)
    return report


def n_parameters(folder: Path) -> int:
    """Parameters in a model's safetensors files, counted from their headers."""
    total = 0
    for file in folder.glob("*.safetensors"):
        with safe_open(file, framework="numpy") as tensors:
            total += sum(math.prod(tensors.get_slice(name).get_shape()) for name in tensors.keys())  # noqa: SIM118
    return total


def finished(pairs: TokenPairs, run: RunFolder) -> JobReport:
    """The report of a run that was trained before."""
    logger.info("run %s is trained already; no model was loaded", run.path.name)
    return JobReport("train", "nothing_to_do", run.path.name, pairs=len(pairs), outputs=_outputs(run))


def train(
    split: SplitPairs,
    dev: SplitPairs | None,
    start: StartPolicy,
    run: RunFolder,
    config: TrainConfig,
    numerics: Numerics,
    tokenizer: PairsFolder,
    control: Control,
) -> JobReport:
    """Train the policy on `split` and save it, with its tokenizer, into the run's folder; `dev` is only looked at."""
    from stages.processes import working_together
    from stages.training.loop import Trainer
    from stages.training.policy import load_policy
    from stages.training.sharding import shard

    with working_together(config.ddp_timeout) as processes:
        every = chain(both_sides(split.pairs), both_sides(dev.pairs) if dev else ())
        scorer = load_policy(start.folder, numerics, every, config)
        if not run.has_checkpoints:
            _check_start(split, start, scorer, config, numerics)
        if config.fsdp and processes.size > 1:
            shard(scorer, processes)
        trainer = Trainer(split, dev, scorer, config, run.path, run.identity, control, processes)
        trainer.resume()
        steps_before, tokens_before = trainer.progress.step, trainer.progress.tokens
        trainer.run()
        _save(scorer, start, run, numerics, tokenizer, processes)
    return JobReport(
        "train",
        "done",
        run.path.name,
        pairs=len(split.pairs),
        tokens=trainer.progress.tokens - tokens_before,
        seconds=trainer.seconds,
        outputs=_outputs(run),
        details={
            "steps_total": trainer.total_steps,
            "steps_before": steps_before,
            "steps_skipped": trainer.progress.skipped,
            **trainer.watch.document(trainer.progress.step),
        },
    )


def _check_start(
    split: SplitPairs, start: StartPolicy, scorer: "Scorer", config: TrainConfig, numerics: Numerics
) -> None:
    """Before the first update of a run: does the policy score as the reference did?"""
    from stages.training.step_zero import check_step_zero

    if split.reference is None:
        logger.info("%s reads no reference, so the step-0 check does not apply", config.objective_name())
    elif start.is_reference:
        check_step_zero(scorer, split.pairs, split.reference, numerics.dtype)
    else:
        logger.info("the policy does not start from the reference, so the step-0 check does not apply")


def _save(
    scorer: "Scorer",
    start: StartPolicy,
    run: RunFolder,
    numerics: Numerics,
    tokenizer: PairsFolder,
    processes: "Processes",
) -> None:
    """Write the policy's folder, by the first process; the others wait until it is there."""
    import torch

    from stages.training.policy import save_policy
    from stages.training.sharding import whole_state

    state = whole_state(scorer.model, getattr(torch, numerics.dtype))

    def save(folder: Path) -> None:
        save_policy(scorer.model, folder, start.folder, start.name, state)
        tokenizer.copy_tokenizer(folder)

    if processes.is_first:
        write_folder(run.policy, save)
    processes.wait_for_all()


def _outputs(run: RunFolder) -> dict[str, str]:
    return {"run": str(run.path), "policy": str(run.policy), "training_metrics": str(run.path / "metrics.jsonl")}
