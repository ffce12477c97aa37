"""Job two: train the policy, and nothing else. The reference is read from the store and never loaded.

A finished run is found finished without loading a model; an interrupted one goes on exactly where it stopped.
"""

import logging
import math
from dataclasses import dataclass
from pathlib import Path

from safetensors import safe_open

from data.durable import write_folder
from data.pairs.folder import PairsFolder
from data.schema import both_sides
from data.tokens.token_pairs import TokenPairs
from stages.job import Control, JobReport
from stages.reference_rows import ReferenceLogps
from stages.run_folder import RunFolder
from stages.scoring.config import Numerics
from stages.training.config import TrainConfig
from stages.training.order import steps_per_epoch

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
    pairs: TokenPairs,
    reference: dict[str, ReferenceLogps] | None,
    start: StartPolicy,
    run: RunFolder,
    config: TrainConfig,
    numerics: Numerics,
    tokenizer: PairsFolder,
    control: Control,
) -> JobReport:
    """Train the policy on `pairs` and save it, with its tokenizer, into the run's folder.

    `reference` is None where the objective reads none.
    """
    from stages.training.loop import Trainer
    from stages.training.policy import load_policy, save_policy
    from stages.training.step_zero import check_step_zero

    scorer = load_policy(start.folder, numerics, both_sides(pairs), config)
    trainer = Trainer(pairs, reference, scorer, config, run.path, run.identity, control)
    trainer.resume()
    if trainer.progress.step == 0:
        if reference is None:
            logger.info("%s reads no reference, so the step-0 check does not apply", config.objective_name())
        elif start.is_reference:
            check_step_zero(scorer, pairs, reference, numerics.dtype)
        else:
            logger.info("the policy does not start from the reference, so the step-0 check does not apply")
    steps_before, tokens_before = trainer.progress.step, trainer.progress.tokens
    trainer.run()

    def save(folder: Path) -> None:
        save_policy(scorer.model, folder, start.folder, start.name)
        tokenizer.copy_tokenizer(folder)

    write_folder(run.policy, save)
    return JobReport(
        "train",
        "done",
        run.path.name,
        pairs=len(pairs),
        tokens=trainer.progress.tokens - tokens_before,
        seconds=trainer.progress.seconds,
        outputs=_outputs(run),
        details={"steps_total": trainer.total_steps, "steps_before": steps_before},
    )


def _outputs(run: RunFolder) -> dict[str, str]:
    return {"run": str(run.path), "policy": str(run.policy), "training_metrics": str(run.path / "metrics.jsonl")}
