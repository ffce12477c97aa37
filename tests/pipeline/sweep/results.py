"""Documents of sweeps, from figures that were written down."""

from itertools import product
from typing import Any

from pipeline.sweep.comparison import RunResult, Score, comparison
from stages.metrics.intervals import wilson
from stages.training.config import TrainConfig

PAIRS = 200


def done(objective: Any, beta: float, value: float, drift: float | None, seed: int = 0) -> RunResult:
    """A run that is done, with the same figures on both splits."""
    score = Score(value, *wilson(value * PAIRS, PAIRS), drift)
    assignments = [f"train.beta={beta}", "train.objective={sigmoid: 0.8, ipo: 0.2}"][: 1 + isinstance(objective, dict)]
    return RunResult(
        TrainConfig(objective=objective, beta=beta, seed=seed), assignments, "run0", "done", None, score, score
    )


def document(*runs: RunResult, metric: str = "reward_accuracy") -> dict[str, Any]:
    """What sweep.json would hold, and what the command would add."""
    told = {"metric": metric, "outputs": {"table": "folder/table.md"}, "seed_sd_beyond_pairs": 0.0123}
    return told | comparison(runs, PAIRS, PAIRS)


def crowd() -> dict[str, Any]:
    """Twenty settings whose figures are close together."""
    grid = product(("sigmoid", "ipo", "hinge", "exo_pair"), range(1, 6))
    return document(*(done(name, i / 10, 0.7 + 0.005 * i, 0.1 + 0.013 * i + 0.004 * len(name)) for name, i in grid))
