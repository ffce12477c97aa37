"""What an evaluation is compared with: names of the configuration to folders of evaluations.

What `passed` stands for moves from night to night, so it is written down (baseline.json) in the folder of an evaluation
that was compared with it: the same evaluation, looked at again, is held against the same.
"""

import json
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from data.durable import write_json
from data.errors import ConfigError, StoreError, one_line
from pipeline.workspace import Workspace
from stages.evaluation.config import EvalConfig
from stages.evaluation.evaluation import Evaluation
from stages.evaluation.others import Other
from stages.training.config import PASSED

logger = logging.getLogger(__name__)


def other_evaluations(config: EvalConfig, workspace: Workspace, evaluation: Evaluation) -> list[Other]:
    """What the evaluation is compared with.

    Raises:
        ConfigError: itself.
    """
    others = []
    if config.baseline == PASSED:
        others.append(_passed(workspace, evaluation, config.baseline_runs))
    elif config.baseline is not None:
        others.append(Other("baseline", config.baseline, (_evaluated(workspace, config.baseline),)))
    if config.anchor:
        others.append(
            Other("anchor", ", ".join(config.anchor), tuple(_evaluated(workspace, name) for name in config.anchor))
        )
    for other in others:
        _refuse_itself(other, evaluation)
    return others


def keep_baseline(config: EvalConfig, others: Sequence[Other], evaluation: Evaluation) -> None:
    """Write down which runs `passed` stood for, once for each evaluation."""
    if config.baseline == PASSED and _kept(evaluation.folder, evaluation.identity) is None:
        passed = next(other for other in others if other.against == "baseline")
        runs = [evaluated.parent.name for evaluated in passed.folders]
        kept = {"baseline": PASSED, "identity": evaluation.identity, "runs": runs}
        write_json(evaluation.folder / "baseline.json", kept)


def _refuse_itself(other: Other, evaluation: Evaluation) -> None:
    own = evaluation.folder.resolve()
    if any(folder.resolve() == own for folder in other.folders):
        raise ConfigError(
            f"eval.{other.against} ({other.name}) names the evaluation that is being made, {evaluation.folder}: held "
            f"against itself it would always pass. Name another run or folder, or leave eval.{other.against} out here."
        )


def _passed(workspace: Workspace, evaluation: Evaluation, most: int) -> Other:
    """The runs that this evaluation was compared with before, or those that passed last."""
    names = _kept(evaluation.folder, evaluation.identity)
    if names is None:
        names = _passed_last(workspace, evaluation.folder.parent)
    if not names:
        logger.info("eval.baseline: passed: no run has passed before this one, so it is compared with none")
    chosen = names[:most]
    return Other("baseline", ", ".join(chosen) or PASSED, tuple(workspace.runs / name / "eval" for name in chosen))


def _passed_last(workspace: Workspace, own: Path) -> list[str]:
    """The run that passed last, and those that it was compared with itself: the loop's own history, less this run."""
    if not workspace.passed.path.is_symlink():
        return []
    newest = workspace.passed.path.resolve().name
    before = [
        name
        for name in _kept(workspace.runs / newest / "eval") or []
        if (workspace.runs / name / "eval/metrics.json").is_file()
    ]
    return [name for name in (newest, *before) if (workspace.runs / name).resolve() != own.resolve()]


def _kept(folder: Path, identity: str | None = None) -> list[str] | None:
    """What the evaluation in this folder was compared with; None if nothing is, or it was not the one of `identity`."""
    path = folder / "baseline.json"
    try:
        kept: dict[str, Any] = dict(json.loads(path.read_bytes()))
        runs = [str(name) for name in kept["runs"]]
        if elsewhere := [name for name in runs if Path(name).name != name]:
            raise ValueError(f"{elsewhere[0]} is no name of a run")
        return runs if identity in (None, kept["identity"]) else None
    except FileNotFoundError:
        return None
    except (ValueError, TypeError, KeyError) as error:
        raise StoreError(
            f"{path} is damaged ({one_line(error)}), so it cannot be told what the evaluation was compared with. "
            "Remove the file: the evaluation is then compared with the run that passed last."
        ) from error


def _evaluated(workspace: Workspace, name: str) -> Path:
    """The folder of an evaluation: of a run of the work folder, of a run elsewhere, or as it is named."""
    own = workspace.runs / name / "eval"
    if own.is_dir():
        return own
    inner = Path(name) / "eval"
    return inner if inner.is_dir() else Path(name)
