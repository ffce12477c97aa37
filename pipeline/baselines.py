"""What an evaluation is compared with: names of the configuration to folders of evaluations.

What `passed` stands for moves from night to night, so it is written down (baseline.json) in the folder of an evaluation
that was compared with it: the same evaluation, looked at again, is held against the same.
"""

import json
import logging
from collections.abc import Sequence
from pathlib import Path

from data.durable import write_json
from data.errors import StoreError, one_line
from pipeline.workspace import Workspace
from stages.evaluation.config import PASSED, EvalConfig
from stages.evaluation.others import Other

logger = logging.getLogger(__name__)


def other_evaluations(config: EvalConfig, workspace: Workspace, folder: Path) -> list[Other]:
    """What the evaluation in this folder is compared with."""
    others = []
    if config.baseline == PASSED:
        others.append(_passed(workspace, folder, config.baseline_runs))
    elif config.baseline is not None:
        others.append(Other("baseline", config.baseline, (_evaluated(workspace, config.baseline),)))
    if config.anchor:
        others.append(
            Other("anchor", ", ".join(config.anchor), tuple(_evaluated(workspace, name) for name in config.anchor))
        )
    return others


def keep_baseline(config: EvalConfig, others: Sequence[Other], folder: Path) -> None:
    """Write down which runs `passed` stood for, once."""
    if config.baseline == PASSED and not (folder / "baseline.json").exists():
        passed = next(other for other in others if other.against == "baseline")
        runs = [evaluated.parent.name for evaluated in passed.folders]
        write_json(folder / "baseline.json", {"baseline": PASSED, "runs": runs})


def _passed(workspace: Workspace, folder: Path, most: int) -> Other:
    """The run that passed last, and those that it was compared with itself: the loop's own history."""
    names, newest = _kept(folder), workspace.passed.path
    if names is None:
        names = []
        if newest.is_symlink() and newest.resolve() != folder.parent.resolve():
            names = [newest.resolve().name, *(_kept(newest / "eval") or [])]
            names = [names[0], *(name for name in names[1:] if (workspace.runs / name / "eval/metrics.json").is_file())]
    if not names:
        logger.warning("eval.baseline: passed: no run has passed before this one, so it is compared with none")
    chosen = names[:most]
    return Other("baseline", ", ".join(chosen) or PASSED, tuple(workspace.runs / name / "eval" for name in chosen))


def _kept(folder: Path) -> list[str] | None:
    path = folder / "baseline.json"
    try:
        return [str(name) for name in json.loads(path.read_bytes())["runs"]]
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
