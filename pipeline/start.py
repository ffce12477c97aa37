"""Which model a run starts from: the reference, a model that is named, or `passed`: the newest policy that passed.

What `passed` stands for moves from night to night, so it is written down (start.json) in the folder of a run that is
begun with it. The same configuration and data find that run, and with it its start, whatever has passed since.
"""

import json
import logging
import os
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

from data.durable import write_json
from data.errors import PipelineError, StoreError
from data.identity import document_key
from data.pairs.splits import Split
from data.tokens.token_pairs import TokenPairs
from pipeline.inputs import Inputs
from stages.model_files import locate, unreachable
from stages.reference import BoundReference
from stages.run_folder import RunFolder, run_document
from stages.training.config import PASSED, TrainConfig

logger = logging.getLogger(__name__)


class Start(NamedTuple):
    """The model that training starts from; None, None where it is out of reach."""

    policy_id: str | None
    folder: Path | None
    name: tuple[str, str | None]
    """Hub id or folder as it is configured, and the revision."""
    begun: RunFolder | None = None
    """The run that was begun with this start before, where `passed` is looked up."""
    passed: str | None = None
    """The run whose policy it is, relative to the work folder; none: no run had passed."""


def start_policy(
    inputs: Inputs,
    bound: BoundReference,
    splits: Mapping[Split, TokenPairs],
    *,
    download: bool,
    grid: Sequence[TrainConfig] = (),
) -> Start:
    """What the configured run starts from; all runs of a `grid` from the same.

    Raises:
        StoreError: `work/passed` leads nowhere.
    """
    model = inputs.config.train.model
    if model == PASSED:
        return _begun(inputs, bound, splits, grid or [inputs.config.train]) or _newest_passed(inputs, bound)
    if model is None:
        return _reference(inputs, bound)
    folder = locate(model, None, download=download)
    return Start(None if folder is None else inputs.model_id(folder, bound), folder, (model, None))


def out_of_reach(inputs: Inputs, start: Start, run: RunFolder) -> PipelineError:
    """The error of a run that cannot be trained because its start is not there."""
    if start.begun is None:
        return unreachable("reference.model" if inputs.config.train.model is None else "train.model", start.name[0])
    return StoreError(
        f"Run {run.path.name} was begun from {start.name[0]}, which is no longer there or no longer what it was, so it "
        f"cannot go on. Put that model back, or move {run.path} away: the same command then begins a run from the "
        "newest policy that passed."
    )


def keep_start(inputs: Inputs, run: RunFolder, start: Start) -> None:
    """Write down beside a run what `passed` stood for, once."""
    if inputs.config.train.model == PASSED and _kept(run) is None:
        began = datetime.now(UTC).isoformat()
        write_json(run.path / "start.json", {"model": PASSED, "run": start.passed, "began": began})


def _reference(inputs: Inputs, bound: BoundReference) -> Start:
    name = (bound.model, bound.config.revision)
    if bound.own:
        return Start(bound.reference_id, bound.folder, name)
    return Start(None if bound.folder is None else inputs.model_id(bound.folder, bound), bound.folder, name)


def _newest_passed(inputs: Inputs, bound: BoundReference) -> Start:
    passed = inputs.workspace.passed
    if not passed.path.is_symlink():
        logger.info("train.model: passed: no run has passed yet, so the policy starts from the reference")
        return _reference(inputs, bound)
    run = RunFolder(passed.path.resolve())
    _refuse_outside(inputs, run, f"the link {passed.path}")
    if not run.is_trained:
        raise StoreError(
            f"train.model: passed: {passed.path} leads to {run.path}, and there is no trained policy. Put the run's "
            f"folder back, let the link lead to another run, or remove it: the next run then starts from the reference."
        )
    logger.info("train.model: passed: the policy starts from that of run %s", run.path.name)
    return _of_run(inputs, bound, os.path.relpath(run.path, inputs.workspace.root.resolve()))


def _refuse_outside(inputs: Inputs, run: RunFolder, named_by: str) -> None:
    if not run.path.resolve().is_relative_to(inputs.workspace.runs.resolve()):
        raise StoreError(
            f"train.model: passed: {named_by} leads to {run.path}, which is no run of {inputs.workspace.runs}. Let it "
            "lead to one of these; a model elsewhere is named by its folder (train.model)."
        )


def _of_run(inputs: Inputs, bound: BoundReference, passed: str) -> Start:
    run = RunFolder(inputs.workspace.root / passed)
    policy_id = inputs.model_id(run.policy, bound) if run.is_trained else None
    return Start(policy_id, run.policy, (str(run.policy), None), passed=passed)


def _begun(
    inputs: Inputs, bound: BoundReference, splits: Mapping[Split, TokenPairs], grid: Sequence[TrainConfig]
) -> Start | None:
    """The start of the first run that was begun with these training sections and data, if one was."""
    documents = [run_document(train, splits, bound.reference_id, None) for train in grid]
    kept = [
        (entry["began"], run, entry["run"])
        for run in _candidates(inputs)
        if (entry := _kept(run)) is not None and any(run.holds(document) for document in documents)
    ]
    if not kept:
        return None
    _, run, passed = min(kept, key=lambda found: found[0])
    if passed is not None:
        _refuse_outside(inputs, RunFolder(inputs.workspace.root / passed), str(run.path / "start.json"))
    start = _reference(inputs, bound) if passed is None else _of_run(inputs, bound, passed)
    held = run.document()
    assert held is not None
    same = start.policy_id == held["start_policy"]
    return start._replace(policy_id=held["start_policy"], folder=start.folder if same else None, begun=run)


def _candidates(inputs: Inputs) -> list[RunFolder]:
    """The named run, or all that have no name but their identity's."""
    runs, name = inputs.workspace.runs, inputs.config.run
    if name is not None:
        return [RunFolder(runs / name)]
    every = [RunFolder(path.parent) for path in sorted(runs.glob("*/start.json"))]
    return [run for run in every if run.path.name == document_key(run.document())[:12]]


def _kept(run: RunFolder) -> dict[str, Any] | None:
    try:
        return dict(json.loads((run.path / "start.json").read_bytes()))
    except FileNotFoundError:
        return None
    except ValueError as error:
        raise StoreError(
            f"{run.path / 'start.json'} is not JSON ({error}), so it cannot be told what the run was begun from. Move "
            f"{run.path} away and train again."
        ) from error
