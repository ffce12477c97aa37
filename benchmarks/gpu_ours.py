"""Our scorer and trainer, measured on random weights: what precompute-ref and train do, without their stores."""

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pipeline  # noqa: F401 - finds our packages
from data.pairs.folder import PairsFolder
from data.schema import TokenPair, unique_responses
from data.store.reference_store import StoreConfig
from data.tokens.token_pairs import TokenPairs
from gpu_lengths import with_own_prompts
from gpu_measure import measured, now, useful_work
from gpu_models import SHAPES, random_model
from gpu_plan import Cell
from gpu_steps import StepClock
from pipeline.control import ProcessControl
from stages.reference_rows import ReferenceLogps, SplitPairs
from stages.run_folder import RunFolder
from stages.scoring.config import Backend, Numerics, ScoringConfig
from stages.scoring.model import device_name
from stages.scoring.scorer import Scorer, scorer_of
from stages.training.config import TrainConfig
from stages.training.flops import Utilisation
from stages.training.gradient_checkpointing import checkpoint_layers
from stages.training.job import StartPolicy, Training
from stages.training.loop import Trainer
from stages.training.order import StepOrder
from stages.unit_scores import ScoredUnit, UnitScores

BACKENDS: tuple[Backend, ...] = ("flex", "rows", "segments", "varlen")
WARM_UP = 16  # pairs


def our_scoring(cell: Cell, pairs: Sequence[TokenPair]) -> dict[str, Any]:
    """Every unique response once, with its log-probs on the CPU in the end."""
    report: dict[str, Any] = {}
    scorer = our_scorer(cell)
    report["ready_at"] = now()
    asked = with_own_prompts(pairs) if "separate" in cell.parts() else list(pairs)
    score(scorer, asked[:1])
    report["first_at"] = now()
    score(scorer, asked[:WARM_UP])
    with measured(report, cell.dtype):
        report["mean_logp"] = score(scorer, asked)
    return report | useful_work(scorer.model, "scoring", [pairs]) | {"configuration": scorer.stack()}


def score(scorer: Scorer, pairs: Sequence[TokenPair]) -> float:
    """All responses, unit by unit as precompute-ref scores them; their mean log-prob a token."""
    total, tokens = 0.0, 0

    def commit(unit: ScoredUnit) -> None:
        nonlocal total, tokens
        total += sum(float(logps.sum()) for logps in unit.logps.values())
        tokens += sum(map(len, unit.logps.values()))

    control, size = ProcessControl(quiet=True), StoreConfig().unit_pairs
    with control.bar("scoring", len(pairs)) as bar:
        units = UnitScores(scorer, control, bar, commit)
        for start in range(0, len(pairs), size):
            unit = list(pairs[start : start + size])
            units.add(unit, unique_responses(unit))
        units.finish()
    return total / tokens


def our_training(cell: Cell, pairs: Sequence[TokenPair]) -> dict[str, Any]:
    """One epoch of the real loop; its first step is the warm-up. Stored log-probs are zeros, which cost the same."""
    report: dict[str, Any] = {}
    scorer = our_scorer(cell)
    asked = with_own_prompts(pairs) if "separate" in cell.parts() else list(pairs)
    reference = {pair.key: ReferenceLogps(0.0, 0.0) for pair in asked}
    order = StepOrder(TokenPairs.of(asked), 0, cell.pairs_per_step)
    steps = [order.step(step) for step in range(len(pairs) // cell.pairs_per_step)]
    clock = StepClock(steps, our_scorer(cell, seed=1) if "memory" in cell.parts() else None, reference)
    with tempfile.TemporaryDirectory() as folder, measured(report, cell.dtype):
        trainer = trainer_of(Path(folder), cell, scorer, asked, reference, clock)
        report["ready_at"] = now()
        trainer.run()
        report["seconds"] = now() - clock.first_at
    report["first_at"] = clock.first_at
    timed = [[pairs[pair.row] for pair in step] for step in steps[1:]]
    return report | useful_work(scorer.model, "training", timed) | {"configuration": scorer.stack()}


def our_scorer(cell: Cell, seed: int = 0) -> Scorer:
    """The cell's model behind our scorer."""
    model = random_model(SHAPES[cell.model], cell.dtype, cell.device, seed)
    return scorer_of(model, numerics(cell), ())


def numerics(cell: Cell) -> Numerics:
    """As the contender's name says; otherwise the defaults."""
    backend: Backend = next((name for name in BACKENDS if name in cell.parts()), "auto")
    pack_tokens = cell.number("p") or ScoringConfig().pack_tokens
    return Numerics(cell.dtype, backend, pack_tokens, compile="compile" in cell.parts())


def trainer_of(
    folder: Path,
    cell: Cell,
    scorer: Scorer,
    pairs: Sequence[TokenPair],
    reference: dict[str, ReferenceLogps],
    clock: StepClock,
) -> Trainer:
    """The trainer of the job, as `pipeline train` makes it."""
    config = TrainConfig(
        learning_rate=1e-6,
        pairs_per_step=cell.pairs_per_step,
        checkpoint_every=10**6,
        gradient_checkpointing="checkpointing" in cell.parts(),
        optim="adamw_8bit" if "8bit" in cell.parts() else "adamw",
    )
    if config.gradient_checkpointing:
        checkpoint_layers(scorer.model)
    split, start = SplitPairs(TokenPairs.of(pairs), reference), StartPolicy(folder, True, ("random", None))
    job = Training(split, None, start, RunFolder(folder), config, numerics(cell), PairsFolder(folder))
    return Trainer(job, scorer, clock, Utilisation(scorer.model, device_name(), cell.dtype, 1))
