"""The configuration: one YAML file, overridden by the environment, overridden by `--set`.

All problems are collected and shown at once, each with the line of the file or the option that it came from.
"""

import logging
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import Field, ValidationError, field_validator, model_validator

from data.config import DataConfig
from data.errors import ConfigError
from data.settings import Settings
from data.store.reference_store import StoreConfig
from pipeline.keys import field_at
from pipeline.redaction import REDACTED, redacted
from pipeline.suggestions import key_hint, quoted_choices, value_hint, variable_hint
from pipeline.sweep.config import SweepConfig
from pipeline.yaml_source import Origins, dump_yaml, load_yaml, parse_scalar
from stages.evaluation.config import EvalConfig
from stages.metrics.names import GENERATION_NAMES, METRIC_NAMES, RANKING_NAMES
from stages.reference import ReferenceConfig
from stages.scoring.config import ScoringConfig
from stages.training.config import TrainConfig

ENVIRONMENT_PREFIX = "PIPELINE_"
_OF_REFERENCE = tuple(name for name in GENERATION_NAMES if name.startswith("ref_"))

logger = logging.getLogger(__name__)


class PipelineConfig(Settings):
    """Everything that can be configured."""

    workdir: Path = Path("work")
    """Folder for everything that is written, relative to the current folder."""
    run: str | None = Field(default=None, coerce_numbers_to_str=True)
    """Name of the run's folder; none: the first 12 hex digits of the run's identity."""
    reference: ReferenceConfig
    data: DataConfig
    store: StoreConfig = Field(default_factory=StoreConfig)
    scoring: ScoringConfig = Field(default_factory=ScoringConfig)
    train: TrainConfig = Field(default_factory=TrainConfig)
    eval: EvalConfig = Field(default_factory=EvalConfig)
    sweep: SweepConfig = Field(default_factory=SweepConfig)

    @field_validator("run")
    @classmethod
    def _plain_name(cls, run: str | None) -> str | None:
        if run is not None and (not run or run.startswith(".") or Path(run).name != run):
            raise ValueError(f"{run!r} is not a plain folder name")
        return run

    @field_validator("workdir")
    @classmethod
    def _no_file(cls, workdir: Path) -> Path:
        if workdir.exists() and not workdir.is_dir():
            raise ValueError(f"{workdir} is a file, not a folder")
        return workdir

    @model_validator(mode="after")
    def _no_setting_without_effect(self) -> "PipelineConfig":
        if self.train.fsdp and self.reference.quantization is not None:
            raise ValueError(
                "train.fsdp: quantised weights (reference.quantization) cannot be sharded. Set train.fsdp: false, with "
                "which every process holds all of them, or take reference.quantization out"
            )
        if any("margin" in source.columns for source, _ in self.data.sources):
            self.train.terms(margins=True)
        self._no_limit_without_metric()
        return self

    def _no_limit_without_metric(self) -> None:
        """What an evaluation without a reference cannot have is not to be waited for until it is made."""
        if self.evaluates_against_reference:
            return
        known = [name for name in RANKING_NAMES if name != "loss" or not self.train.reads_reference]
        without = {*METRIC_NAMES, *_OF_REFERENCE} - {*known}
        for key in ("min", "max", "max_drop", "max_rise"):
            if missing := sorted(without & getattr(self.eval, key).keys()):
                why = f"the objective {self.train.objective_name()}, which reads no reference"
                raise ValueError(
                    f"eval.{key}: {', '.join(missing)} cannot be had with "
                    f"{'eval.reference_free' if self.eval.reference_free else why}; there are: {', '.join(known)}"
                )

    @property
    def evaluates_against_reference(self) -> bool:
        """Whether an evaluation reads the reference's log-probs."""
        return self.train.reads_reference and not self.eval.reference_free

    def as_yaml(self) -> str:
        """The resolved configuration as a file that can be run again."""
        return dump_yaml(self.model_dump(mode="json"))

    def without_secrets(self) -> str:
        """The same for a folder that others may read; where something was left out, its first line says so."""
        document = self.model_dump(mode="json")
        shown = redacted(document)
        head = "" if shown == document else f"# Put back what is {REDACTED} before this is run again.\n"
        return head + dump_yaml(shown)


def load_config(
    file: Path | None, assignments: Sequence[str] = (), environment: Mapping[str, str] | None = None
) -> PipelineConfig:
    """Defaults < file < environment (`PIPELINE_TRAIN__BETA`) < `--set train.beta=0.05`.

    Raises:
        ConfigError: with every problem that was found.
    """
    return read_config(file, assignments, environment)[0]


def read_config(
    file: Path | None, assignments: Sequence[str] = (), environment: Mapping[str, str] | None = None
) -> tuple[PipelineConfig, Origins]:
    """The same, and where each key that was given came from.

    Raises:
        ConfigError: with every problem that was found.
    """
    document, origins = load_yaml(file) if file is not None else ({}, Origins())
    _take_environment(document, origins, os.environ if environment is None else environment)
    for assignment in assignments:
        key, equals, value = assignment.partition("=")
        if not equals or not key:
            raise ConfigError(f"--set {assignment}: write it as --set key.subkey=value, for instance train.beta=0.05.")
        _assign(document, origins, key.split("."), value, f"--set {key}")
    try:
        return PipelineConfig.model_validate(document), origins
    except ValidationError as error:
        problems = [_problem(detail, origins) for detail in error.errors()]
        head = (
            "The configuration has a problem"
            if len(problems) == 1
            else f"The configuration has {len(problems)} problems"
        )
        raise ConfigError("\n  ".join([f"{head}:", *problems])) from None


def _take_environment(document: dict[str, Any], origins: Origins, environment: Mapping[str, str]) -> None:
    for name, value in sorted(environment.items()):
        if not name.startswith(ENVIRONMENT_PREFIX):
            continue
        path = name.removeprefix(ENVIRONMENT_PREFIX).lower().split("__")
        # A name of one part is ours only if it is a key: CI systems have a PIPELINE_WORKSPACE of their own.
        if len(path) > 1 or path[0] in PipelineConfig.model_fields:
            _assign(document, origins, path, value, name)
        elif meant := variable_hint(name, ENVIRONMENT_PREFIX, PipelineConfig):
            logger.warning("%s names no key and is passed over; did you mean %s?", name, meant)


def _assign(document: dict[str, Any], origins: Origins, path: list[str], value: str, origin: str) -> None:
    """Put a value given as text where it belongs; a key that holds text takes it as it is written."""
    target = document
    for depth, key in enumerate(path[:-1]):
        inner = target.get(key)
        if inner is None:
            inner = target[key] = {}
            origins.note(tuple(path[: depth + 1]), origin)
        if not isinstance(inner, dict):
            raise ConfigError(f"{origin}: {'.'.join(path[: depth + 1])} is a value and has no keys of its own.")
        target = inner
    field = field_at(PipelineConfig, path)
    holds_text = field is not None and field.annotation in (str, str | None, Path)
    target[path[-1]] = value if holds_text and value != "null" else parse_scalar(value, origin)
    origins.note(tuple(path), origin)


def _problem(detail: Any, origins: Origins) -> str:
    """One line: where, which key, what is wrong, and what was probably meant."""
    path = tuple(part for part in detail["loc"] if isinstance(part, str | int))
    where = origins.of(path)
    key = ".".join(map(str, path))
    prefix = f"{where}: {key}" if where else key
    if detail["type"] == "extra_forbidden":
        return f"{prefix}: there is no such key{key_hint(path, PipelineConfig)}"
    if detail["type"] == "missing":
        advice = f" (in the file, or as --set {key}=...)" if all(isinstance(part, str) for part in path) else ""
        return f"{prefix}: required, and not given{advice}"
    message = detail["msg"].removeprefix("Value error, ")
    given = detail.get("input")
    shown = (
        f" (got {given!r})" if isinstance(given, str | int | float | None) and detail["type"] != "value_error" else ""
    )
    choices = quoted_choices(detail["ctx"]["expected"]) if detail["type"] == "literal_error" else ()
    return f"{prefix}: {message[:1].lower()}{message[1:]}{shown}{value_hint(given, choices)}"
