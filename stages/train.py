"""Job two: train the policy, and nothing else. The reference is read from the store and never loaded.

A finished run is found finished without loading a model; an interrupted one goes on exactly where it stopped.
"""

import logging
from collections.abc import Iterator
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

from data.durable import write_folder
from data.schema import Response, both_sides
from data.tokens.token_pairs import TokenPairs
from stages.adapter_files import is_adapter
from stages.job import Control, JobReport
from stages.run_folder import RunFolder
from stages.scoring.config import Numerics
from stages.training.config import TrainConfig
from stages.training.job import Training
from stages.training.memory_estimate import MemoryEstimate, estimate_peak
from stages.training.model_sizes import BYTES, n_trained, read_shapes
from stages.training.order import steps_per_epoch
from stages.units import ALL, Shard

if TYPE_CHECKING:
    from stages.processes import Processes
    from stages.scoring.scorer import Scorer

CHECKPOINT_BYTES = {"adamw": 12, "adamw_8bit": 6}
"""A trained parameter: fp32 master and AdamW's two moments."""

logger = logging.getLogger(__name__)


def plan_train(
    pairs: TokenPairs, run: RunFolder, config: TrainConfig, numerics: Numerics, start: Path | None
) -> JobReport:
    """What training this run to its end would do, without writing anything."""
    if run.is_trained:
        return finished(pairs, run)
    steps = config.epochs * steps_per_epoch(len(pairs), config.pairs_per_step)
    done = run.checkpointed_step
    tokens = config.epochs * pairs.n_tokens * (steps - done) // steps
    report = JobReport("train", "dry_run", run.path.name, pairs=len(pairs), tokens=tokens)
    report.details = {"steps_total": steps, "steps_before": done}
    if start is not None:
        report.details |= _space(start, config, numerics, pairs)
    return report


def _space(start: Path, config: TrainConfig, numerics: Numerics, pairs: TokenPairs) -> dict[str, Any]:
    """What training takes at most of the disk, policy included, and of memory."""
    trained = n_trained(read_shapes(start), None if is_adapter(start) else config.lora)
    checkpoints = config.keep + 1 + (config.metric_for_best_model is not None)  # one is being written
    policy = int(trained * BYTES[numerics.dtype])
    space: dict[str, Any] = {"disk_bytes": policy + checkpoints * CHECKPOINT_BYTES[config.optim] * trained}
    estimate = _estimate(start, config, numerics, pairs)
    if estimate is not None:
        logger.info("%s", estimate.sentence())
        space |= {"memory_bytes": estimate.total, "memory_parts": estimate.parts}
    return space


def _estimate(start: Path, config: TrainConfig, numerics: Numerics, pairs: TokenPairs) -> MemoryEstimate | None:
    """Of peak memory; None where it cannot be told, or an adapter is trained further."""
    from stages.scoring.model import device

    if is_adapter(start):
        return None
    return estimate_peak(start, numerics, config, pairs, on_gpu=device().type == "cuda")


def finished(pairs: TokenPairs, run: RunFolder) -> JobReport:
    """The report of a run that was trained before."""
    logger.info("run %s is trained already; no model was loaded", run.path.name)
    return JobReport("train", "nothing_to_do", run.path.name, pairs=len(pairs), outputs=_outputs(run))


def train(job: Training, control: Control, worker: Shard = ALL) -> JobReport:
    """Train the policy and save it, with its tokenizer, into the run's folder.

    Where there are several workers, each calls this, and they train together.
    """
    from stages.processes import working_together
    from stages.scoring.model import device_name
    from stages.training.flops import Utilisation
    from stages.training.gradient_checkpointing import checkpoint_layers
    from stages.training.loop import Trainer
    from stages.training.memory import log_peak_memory, reset_peak_memory
    from stages.training.policy import load_policy
    from stages.training.reproducible import reproducible
    from stages.training.sharding import shard

    config = job.config
    with (
        reproducible(deterministic=config.deterministic),
        working_together(worker, config.ddp_timeout, "train") as processes,
    ):
        reset_peak_memory()
        scorer = load_policy(job.start.folder, job.numerics, _responses(job), config)
        if config.gradient_checkpointing:
            checkpoint_layers(scorer.model)
        if job.run.checkpointed_step == 0:
            _check_start(job, scorer)
        utilisation = Utilisation(scorer.model, device_name(), job.numerics.dtype, processes.size)
        if config.fsdp and processes.size > 1:
            shard(scorer, processes)
        elif config.fsdp:
            logger.warning("train.fsdp: there is one process, so nothing is sharded (docs/several-gpus.md)")
        trainer = Trainer(job, scorer, control, utilisation, processes)
        trainer.resume()
        steps_before, tokens_before = trainer.progress.step, trainer.progress.tokens
        trainer.run()
        _save(job, scorer, processes)
        log_peak_memory(_estimate(job.start.folder, config, job.numerics, job.split.pairs))
    return JobReport(
        "train",
        "done",
        job.run.path.name,
        pairs=len(job.split.pairs),
        tokens=trainer.progress.tokens - tokens_before,
        seconds=trainer.seconds,
        outputs=_outputs(job.run),
        details={"steps_before": steps_before, **trainer.document()},
    )


def _responses(job: Training) -> Iterator[Response]:
    """All that the policy will be asked for."""
    splits = (job.split,) if job.dev is None else (job.split, job.dev)
    return chain.from_iterable(both_sides(split.pairs) for split in splits)


def _check_start(job: Training, scorer: "Scorer") -> None:
    """Before the first update of a run: does the policy score as the reference did?"""
    from stages.training.step_zero import check_step_zero

    if job.split.reference is None:
        logger.info("%s reads no reference, so the step-0 check does not apply", job.config.objective_name())
    elif job.start.is_reference:
        check_step_zero(scorer, job.split.pairs, job.split.reference, job.numerics.dtype)
    else:
        logger.info("the policy does not start from the reference, so the step-0 check does not apply")


def _save(job: Training, scorer: "Scorer", processes: "Processes") -> None:
    """Write the policy's folder, by the first process; the others wait until it is there."""
    import torch

    from stages.training.policy import save_policy
    from stages.training.sharding import whole_state

    state = whole_state(scorer, getattr(torch, job.numerics.dtype), here=processes.is_first)

    def save(folder: Path) -> None:
        save_policy(scorer.model, folder, job.start.folder, job.start.name, state)
        job.tokenizer.copy_tokenizer(folder)

    if processes.is_first:
        write_folder(job.run.policy, save)
    processes.wait_for_all()


def _outputs(run: RunFolder) -> dict[str, str]:
    return {"run": str(run.path), "policy": str(run.policy), "training_metrics": str(run.path / "metrics.jsonl")}
