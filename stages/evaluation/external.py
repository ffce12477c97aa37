"""Metrics that other programs compute: commands whose JSON joins the gates.

A command finds in its environment

    PIPELINE_POLICY        the folder of the policy, as from_pretrained loads it (or an adapter, as peft does)
    PIPELINE_PAIRS         pairs.parquet of the evaluation
    PIPELINE_GENERATIONS   generations.parquet, where eval.generate made one

and prints one JSON object on standard output, alone or as the last thing. Its numbers become metrics: of
`eval.external: {judge: ...}` the number {"win": {"rate": 0.6}} is `judge/win/rate`.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import Field, model_validator

from data.settings import Settings
from stages.job import Control


class ExternalCommand(Settings):
    """A value of section `eval.external`; a bare text is the command."""

    command: str = Field(min_length=1)
    """What the shell runs."""
    timeout: float = Field(default=3600.0, gt=0)
    """Seconds that it may take."""

    @model_validator(mode="before")
    @classmethod
    def _bare(cls, value: object) -> object:
        return {"command": value} if isinstance(value, str) else value


@dataclass(frozen=True)
class Places:
    """What a command is told of the evaluation."""

    policy: Path
    pairs: Path
    generations: Path | None = None


def run_external(name: str, external: ExternalCommand, places: Places, control: Control) -> dict[str, float]:
    """The numbers that the command prints, by name: without the prefix `name/`, which `prefixed` adds."""
    raise NotImplementedError


def external_entry(external: ExternalCommand, policy_id: str, metrics: Mapping[str, float]) -> dict[str, Any]:
    """What metrics.json keeps of a command under `external.NAME`: no word of it, for it may hold a key."""
    raise NotImplementedError


def known_metrics(
    earlier: Mapping[str, Any] | None, name: str, external: ExternalCommand, policy_id: str
) -> dict[str, float] | None:
    """What this command gave for this policy, from an earlier metrics document; None: it has to run."""
    raise NotImplementedError


def prefixed(name: str, metrics: Mapping[str, float]) -> dict[str, float]:
    """The numbers under the names that gates take."""
    return {f"{name}/{key}": value for key, value in metrics.items()}
