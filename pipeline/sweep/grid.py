"""The points of a grid, each a whole configuration that `pipeline train --set ...` would have; all checked at once."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

from pydantic import ValidationError

from data.errors import ConfigError
from pipeline.config import PipelineConfig
from pipeline.sweep.config import Metric

AXES = ("objective", "beta", "learning_rate", "seed")
"""The last one varies fastest, so that the runs of a setting stand side by side."""


@dataclass(frozen=True)
class GridPoint:
    """One run of a grid."""

    values: Mapping[str, Any]
    """What it has on each axis of the grid."""
    config: PipelineConfig

    def __str__(self) -> str:
        """For people: `objective: ipo, beta: 0.1`."""
        return ", ".join(f"{axis}: {_written(value)}" for axis, value in self.values.items())

    @property
    def assignments(self) -> list[str]:
        """What makes this run with `--set`, such as `train.beta=0.1`."""
        return [f"train.{axis}={_written(value)}" for axis, value in self.values.items()]


def grid(config: PipelineConfig) -> list[GridPoint]:
    """All points, in order.

    Raises:
        ConfigError: there is no axis, or the runs would share a folder, or a point is no configuration that can be run.
    """
    axes = {axis: values for axis in AXES if (values := getattr(config.sweep, axis))}
    if not axes:
        raise ConfigError(
            "There is nothing to compare: section sweep has no axis. Give one or more of objective, beta, "
            "learning_rate and seed, in the file or for instance as --set 'sweep.beta=[0.05, 0.1, 0.3]' --set "
            "'sweep.seed=[0, 1]'."
        )
    if config.run is not None:
        raise ConfigError(
            f"run: {config.run} names one folder, and every run of a sweep has a folder of its own. Take run out of "
            "the configuration (--set run=null)."
        )
    points: list[GridPoint] = []
    problems: dict[str, list[str]] = {}
    for combination in product(*axes.values()):
        values = dict(zip(axes, combination, strict=True))
        try:
            points.append(_point(config, values))
        except ValueError as error:
            for problem in _problems(error):
                problems.setdefault(problem, []).append(str(GridPoint(values, config)))
    if problems:
        raise _not_runnable(problems)
    return points


def metric_of(config: PipelineConfig, points: Sequence[GridPoint]) -> Metric:
    """What the choice goes by.

    Raises:
        ConfigError: a run of the grid cannot have it.
    """
    free = [point for point in points if not point.config.train.reads_reference]
    if config.sweep.metric == "reward_accuracy" and free:
        raise ConfigError(
            f"sweep.metric: reward_accuracy cannot be had of {free[0]}, whose objective reads no reference. Take "
            "sweep.metric: ranking_accuracy, which compares all of them, or such objectives out of the grid."
        )
    return config.sweep.metric or ("ranking_accuracy" if free else "reward_accuracy")


def _point(config: PipelineConfig, values: dict[str, Any]) -> GridPoint:
    """The configuration with these values in section `train`, validated as if it had been written so."""
    document = config.model_dump(mode="json")
    point = GridPoint(values, PipelineConfig.model_validate(document | {"train": document["train"] | values}))
    train = point.config.train
    if len(config.sweep.beta) > 1 and not any(term.objective.takes_beta for term in train.terms()):
        raise ValueError(f"beta has no effect on the objective {train.objective_name()}; sweep it on its own")
    return point


def _problems(error: ValueError) -> list[str]:
    if not isinstance(error, ValidationError):
        return [str(error)]
    found = []
    for detail in error.errors():
        key = ".".join(map(str, detail["loc"]))
        message = detail["msg"].removeprefix("Value error, ")
        found.append(f"{key}: {message[:1].lower()}{message[1:]}" if len(detail["loc"]) > 1 else message)
    return found


def _not_runnable(problems: Mapping[str, Sequence[str]]) -> ConfigError:
    lines = []
    for problem, points in problems.items():
        others = f" (and {len(points) - 1} more)" if len(points) > 1 else ""
        lines.append(f"{points[0]}{others}: {problem}")
    return ConfigError(
        "\n  ".join(["The grid of section sweep has points that cannot be run, so nothing was started:", *lines])
    )


def _written(value: Any) -> str:
    """As YAML takes it on one line."""
    return value if isinstance(value, str) else json.dumps(value)
