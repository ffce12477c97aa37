"""Section `sweep`: the axes of a grid."""

import json
from typing import Any, Literal

from pydantic import Field, field_validator

from data.settings import Settings

Metric = Literal["reward_accuracy", "ranking_accuracy"]


class SweepConfig(Settings):
    """Section `sweep`: what `pipeline sweep` compares. An axis that is left out has the value of section `train`."""

    objective: list[str | dict[str, float]] = Field(default_factory=list)
    """Values of train.objective to compare: names, or {name: coefficient, ...}. None: train's own."""
    beta: list[float] = Field(default_factory=list)
    """Values of train.beta to compare. None: train's own."""
    learning_rate: list[float] = Field(default_factory=list)
    """Values of train.learning_rate to compare. None: train's own."""
    seed: list[int] = Field(default_factory=list)
    """Values of train.seed; every setting is trained with each and judged by the mean. None: train's own."""
    metric: Metric | None = None
    """What is compared: reward_accuracy or ranking_accuracy. None: the latter where a run reads no reference."""

    @field_validator("objective", "beta", "learning_rate", "seed")
    @classmethod
    def _each_once(cls, values: list[Any]) -> list[Any]:
        written = [json.dumps(value, sort_keys=True) for value in values]
        twice = [value for i, value in enumerate(written) if value in written[:i]]
        if twice:
            raise ValueError(f"{twice[0]} stands here twice; a run is made once")
        return values
