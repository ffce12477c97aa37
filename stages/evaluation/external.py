"""Metrics that other programs compute: commands whose JSON joins the gates.

A command finds in its environment

    PIPELINE_POLICY        the folder of the policy, as from_pretrained loads it (an adapter: as peft does)
    PIPELINE_PAIRS         pairs.parquet of the evaluation
    PIPELINE_GENERATIONS   generations.parquet, where eval.generate made one

and prints one JSON object on standard output, alone or as the last thing. Its numbers become metrics: of
`eval.external: {judge: ...}` the number in {"win": {"rate": 0.6}} is `judge/win/rate`.
"""

import logging
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ConfigDict, Field, field_validator, model_validator

from data.errors import ConfigError, Interrupted, one_line
from data.identity import document_key
from data.settings import Settings, or_text
from stages.evaluation.generation import GenerateConfig
from stages.evaluation.printed_numbers import NoNumbers, printed_numbers
from stages.evaluation.subprocesses import Outcome, run_shell
from stages.job import Control

logger = logging.getLogger(__name__)


class ExternalCommand(Settings):
    """A value of section `eval.external`; a bare text is the command."""

    model_config = ConfigDict(json_schema_extra=or_text)

    command: str
    """What the shell runs, in the folder in which the pipeline was started."""
    timeout: float = Field(default=3600.0, gt=0)
    """Seconds that it may take."""

    @model_validator(mode="before")
    @classmethod
    def _bare(cls, value: object) -> object:
        return {"command": value} if isinstance(value, str) else value

    @field_validator("command")
    @classmethod
    def _not_empty(cls, command: str) -> str:
        if not command.strip() or "\0" in command:
            raise ValueError("a command is wanted, such as python judge.py")
        return command

    @property
    def digest(self) -> str:
        """Identity of what is run."""
        return document_key(self.command)[:16]


@dataclass(frozen=True)
class Places:
    """What a command is told of the evaluation."""

    policy: Path
    pairs: Path
    generations: Path | None = None

    def environment(self) -> dict[str, str]:
        """As variables; paths are absolute, for a command may go elsewhere."""
        named = {
            "PIPELINE_POLICY": self.policy,
            "PIPELINE_PAIRS": self.pairs,
            "PIPELINE_GENERATIONS": self.generations,
        }
        others = {name: value for name, value in os.environ.items() if name not in named}
        return others | {name: str(path.absolute()) for name, path in named.items() if path is not None}


def run_external(name: str, external: ExternalCommand, places: Places, control: Control) -> dict[str, float]:
    """The numbers that the command prints, by their paths: `prefixed` makes metrics of them.

    What it says on standard error is logged. The command itself never is: it may hold a key.

    Raises:
        ConfigError: it failed, took too long, or printed no numbers. Interrupted: a signal came; it was stopped.
    """
    logger.info("eval.external.%s: running the command", name)
    try:
        outcome = run_shell(
            external.command,
            places.environment(),
            external.timeout,
            control.stop_requested,
            lambda line: logger.info("%s: %s", name, line),
        )
    except OSError as error:  # an endless command
        raise ConfigError(f"The command of eval.external.{name} cannot be started: {one_line(error)}.") from error
    if outcome.stopped == "signal":
        raise Interrupted(
            f"Stopped by a signal while the command of eval.external.{name} was running; it was stopped, too, and gave "
            "nothing. The pairs' scores are kept. Run the same command again."
        )
    problem = _problem(outcome, external)
    if problem is None:
        try:
            return printed_numbers(outcome.stdout)
        except NoNumbers as none:
            problem = (
                f'{none} It has to print one JSON object such as {{"win_rate": 0.6}} on standard output, alone or '
                "last; all else belongs on standard error."
            )
    said = f" The last that it said: {' / '.join(outcome.last_lines)}" if outcome.last_lines else ""
    raise ConfigError(f"The command of eval.external.{name} {problem}{said}")


def _problem(outcome: Outcome, external: ExternalCommand) -> str | None:
    if outcome.stopped == "timeout":
        return (
            f"was stopped after {external.timeout:g} s without an end. Give it more time with a `timeout` beside its "
            "`command`, or let it do less."
        )
    if outcome.stopped == "output":
        return "printed more than 16 MiB on standard output and was stopped. Let it print its numbers, and no more."
    if outcome.code:
        how = f"exit code {outcome.code}" if outcome.code > 0 else f"signal {-outcome.code}"
        return (
            f"failed ({how}), so its metrics are not known and nothing was judged. Run it by itself, with "
            "PIPELINE_POLICY and PIPELINE_PAIRS set, and correct it."
        )
    return None


def external_entry(
    external: ExternalCommand, policy_id: str, metrics: Mapping[str, float], generate: GenerateConfig | None = None
) -> dict[str, Any]:
    """What metrics.json keeps of a command under `external.NAME`: not its words, for they may hold a key.

    `generate` says which responses it was shown.
    """
    return _cause(external, policy_id, generate) | {"metrics": dict(metrics)}


def known_metrics(
    kept: Mapping[str, Any],
    name: str,
    external: ExternalCommand,
    policy_id: str,
    generate: GenerateConfig | None = None,
) -> dict[str, float] | None:
    """What this command gave for this policy, as far as it is `kept` of the same pairs; None: it has to run."""
    entry = kept.get(name)
    cause = _cause(external, policy_id, generate)
    if entry is None or {key: entry.get(key) for key in cause} != cause:
        return None
    return dict(entry["metrics"])


def _cause(external: ExternalCommand, policy_id: str, generate: GenerateConfig | None) -> dict[str, Any]:
    shown = None if generate is None else generate.model_dump(mode="json")
    return {"command_id": external.digest, "policy_id": policy_id, "generate": shown}


def prefixed(name: str, metrics: Mapping[str, float]) -> dict[str, float]:
    """The numbers under the names that gates take."""
    return {f"{name}/{key}": value for key, value in metrics.items()}
