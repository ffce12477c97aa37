"""What an evaluation is compared with: names of the configuration to folders of evaluations.

What `passed` stands for moves from night to night, so it is written down (baseline.json) in the folder of an evaluation
that was compared with it: the same evaluation, looked at again, is held against the same.
"""

import json
import logging
from collections.abc import Sequence
from pathlib import Path

from data.durable import write_json
from data.errors import StoreError
from pipeline.workspace import Workspace
from stages.evaluation.comparison import Other
from stages.evaluation.config import PASSED, EvalConfig

logger = logging.getLogger(__name__)


def other_evaluations(config: EvalConfig, workspace: Workspace, folder: Path) -> list[Other]:
    """What the evaluation in this folder is compared with."""
    others = []
    if config.baseline == PASSED:
        others.append(_passed(workspace, folder))
    elif config.baseline is not None:
        others.append(Other("baseline", config.baseline, (_evaluated(workspace, config.baseline),)))
    if config.anchor:
        others.append(
            Other("anchor", ", ".join(config.anchor), tuple(_evaluated(workspace, name) for name in config.anchor))
        )
    return others


def keep_baseline(config: EvalConfig, others: Sequence[Other], folder: Path) -> None:
    """Write down what `passed` stood for, once."""
    if config.baseline == PASSED and not (folder / "baseline.json").exists():
        passed = next(other for other in others if other.against == "baseline")
        write_json(folder / "baseline.json", {"baseline": PASSED, "run": passed.name if passed.folders else None})


def _passed(workspace: Workspace, folder: Path) -> Other:
    kept, run = _kept(folder), workspace.passed.path
    if kept is not None:
        name = kept["run"]
    else:
        name = run.resolve().name if run.is_symlink() and run.resolve() != folder.parent.resolve() else None
    if name is None:
        logger.warning("eval.baseline: passed: no run has passed before this one, so it is compared with none")
        return Other("baseline", PASSED, ())
    return Other("baseline", name, (workspace.runs / name / "eval",))


def _kept(folder: Path) -> dict[str, str | None] | None:
    path = folder / "baseline.json"
    try:
        return dict(json.loads(path.read_bytes()))
    except FileNotFoundError:
        return None
    except ValueError as error:
        raise StoreError(
            f"{path} is not JSON ({error}), so it cannot be told what the evaluation was compared with. Remove the "
            "file: the evaluation is then compared with the run that passed last."
        ) from error


def _evaluated(workspace: Workspace, name: str) -> Path:
    """The folder of an evaluation: of a run of the work folder, of a run elsewhere, or as it is named."""
    own = workspace.runs / name / "eval"
    if own.is_dir():
        return own
    inner = Path(name) / "eval"
    return inner if inner.is_dir() else Path(name)
