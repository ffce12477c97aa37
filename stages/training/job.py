"""What a training job is given."""

from dataclasses import dataclass
from pathlib import Path

from data.pairs.folder import PairsFolder
from stages.reference_rows import SplitPairs
from stages.run_folder import RunFolder
from stages.scoring.config import Numerics
from stages.training.config import TrainConfig


@dataclass(frozen=True)
class StartPolicy:
    """The model that training starts from."""

    folder: Path
    is_reference: bool
    name: tuple[str, str | None]
    """Hub id or folder as it is configured, and the revision: what the run's adapter is an adapter to."""


@dataclass(frozen=True)
class Training:
    """What is trained, on what, and where to."""

    split: SplitPairs
    dev: SplitPairs | None
    """Looked at each `train.eval_every` steps; None: never."""
    start: StartPolicy
    run: RunFolder
    config: TrainConfig
    numerics: Numerics
    tokenizer: PairsFolder
