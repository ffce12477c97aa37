"""From the figures of runs to a choice: settings by their mean over seeds on dev pairs, and what seeds make of it."""

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import groupby
from typing import Any, Literal

from stages.metrics.intervals import wilson
from stages.training.config import TrainConfig

_DIGITS = 12  # beyond which two means over the same pairs are the same


@dataclass(frozen=True)
class Score:
    """A share of pairs with its 95 % interval, and the drift on the same pairs."""

    value: float
    low: float
    high: float
    drift: float | None
    """Nats a token; None without a reference."""


@dataclass(frozen=True)
class RunResult:
    """One run of the grid, as far as it has come."""

    train: TrainConfig
    assignments: list[str]
    """What makes this run with `--set`."""
    run: str
    status: Literal["done", "failed", "pending"]
    message: str | None = None
    """Why it failed."""
    dev: Score | None = None
    held_out: Score | None = None

    def document(self) -> dict[str, Any]:
        """As it stands in sweep.json."""
        return (
            setting_of(self.train) | {"seed": self.train.seed} | {k: v for k, v in asdict(self).items() if k != "train"}
        )


@dataclass(frozen=True)
class Setting:
    """Runs that differ in nothing but the seed; scores are their means."""

    runs: Sequence[RunResult]
    dev: Score | None
    held_out: Score | None

    @property
    def complete(self) -> bool:
        """Whether all of its runs are done."""
        return all(run.status == "done" for run in self.runs)

    def document(self) -> dict[str, Any]:
        """As it stands in sweep.json."""
        states = [run.status for run in self.runs]
        return {
            **setting_of(self.runs[0].train),
            "objective_name": self.runs[0].train.objective_name(),
            "seeds": [run.train.seed for run in self.runs],
            **{state: states.count(state) for state in ("done", "failed", "pending")},
            "dev": self.dev and asdict(self.dev),
            "held_out": self.held_out and asdict(self.held_out),
        }


def comparison(runs: Sequence[RunResult], n_dev_pairs: int, n_held_out_pairs: int) -> dict[str, Any]:
    """Runs, settings, the choice (None while runs are to come, or where no setting is complete), the noise of seeds."""
    alike = groupby(runs, key=lambda run: setting_of(run.train))
    settings = [_setting(list(group), n_dev_pairs, n_held_out_pairs) for _, group in alike]
    pending = any(run.status == "pending" for run in runs)
    chosen = None if pending else choose(settings)
    return {
        "n_dev_pairs": n_dev_pairs,
        "n_held_out_pairs": n_held_out_pairs,
        "runs": [run.document() for run in runs],
        "settings": [setting.document() for setting in settings],
        "choice": chosen and {"setting": chosen[0], "run": chosen[1].run, "assignments": chosen[1].assignments},
        "seed_sd": seed_sd(settings),
    }


def choose(settings: Sequence[Setting]) -> tuple[int, RunResult] | None:
    """The place of the setting that is best on dev, and its run that is best on dev; complete settings only.

    Of equal ones the one that drifted less (on dev), then the first. Nothing held out is looked at.
    """
    candidates = [i for i, setting in enumerate(settings) if setting.complete]
    if not candidates:
        return None
    best = min(candidates, key=lambda i: _rank(settings[i].dev))
    return best, min(settings[best].runs, key=lambda run: _rank(run.dev))


def seed_sd(settings: Sequence[Setting]) -> float | None:
    """Standard deviation of the held-out metric over the seeds of a setting, pooled; None where no two seeds differ."""
    squares, freedom = [], 0
    for setting in settings:
        values = [run.held_out.value for run in setting.runs if run.held_out is not None]
        if len(values) > 1:
            mean = math.fsum(values) / len(values)
            squares += [(value - mean) ** 2 for value in values]
            freedom += len(values) - 1
    return math.sqrt(math.fsum(squares) / freedom) if freedom else None


def _rank(score: Score | None) -> tuple[float, float]:
    assert score is not None
    return -round(score.value, _DIGITS), math.inf if score.drift is None else score.drift


def _setting(runs: Sequence[RunResult], n_dev_pairs: int, n_held_out_pairs: int) -> Setting:
    dev, held_out = ([score for run in runs if (score := getattr(run, side))] for side in ("dev", "held_out"))
    return Setting(runs, _mean(dev, n_dev_pairs), _mean(held_out, n_held_out_pairs))


def _mean(scores: Sequence[Score], n_pairs: int) -> Score | None:
    """The mean over seeds, with Wilson's interval of a share that large of so many pairs."""
    if not scores:
        return None
    value = math.fsum(score.value for score in scores) / len(scores)
    drifts = [score.drift for score in scores if score.drift is not None]
    drift = math.fsum(drifts) / len(drifts) if drifts else None
    return Score(value, *wilson(value * n_pairs, n_pairs), drift)


def setting_of(train: TrainConfig) -> dict[str, Any]:
    """What a setting is."""
    return {"objective": train.objective, "beta": train.beta, "learning_rate": train.learning_rate}
