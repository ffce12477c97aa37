"""The sweep from its configuration to its report: the reference once, run after run, and what they come to."""

import logging
from collections.abc import Sequence
from typing import Any

from data.config import DataConfig
from data.errors import ConfigError, Interrupted, PipelineError
from data.schema import unique_responses
from pipeline.inputs import Inputs
from pipeline.reference_job import score_reference
from pipeline.sweep.folder import SweepFolder
from pipeline.sweep.grid import grid, metric_of
from pipeline.sweep.runs import GridRuns
from pipeline.workers import shard_of
from stages.evaluation.config import EvalConfig
from stages.job import JobReport

logger = logging.getLogger(__name__)


def run_sweep(inputs: Inputs, shard: str | None = None) -> JobReport:
    """Make the runs of the grid that are this worker's and not finished, and compare all that are.

    No gate is applied, and neither `latest` nor `passed` moves.
    """
    _refuse_other_evaluations(inputs.config.eval)
    share, points, data = shard_of(shard), grid(inputs.config), inputs.config.data
    metric = metric_of(inputs.config, points)
    _refuse_without_pairs(data, data.dev_fraction, 1 if data.eval else data.held_out_fraction)
    bound = inputs.bind(download=True)
    prepared = inputs.pairs(bound.folder)
    _refuse_without_pairs(data, len(prepared.splits["dev"]), len(prepared.splits["eval"]))
    parts: list[JobReport] = []
    if any(point.config.train.reads_reference for point in points):
        parts.append(score_reference(inputs, bound, prepared))
    runs = GridRuns(inputs, points, metric, inputs.bind(hold_to_lock=True), prepared)
    mine = range(share.index, len(points), share.count)
    report = JobReport("sweep", pairs=len(prepared.splits["train"]), details={"shard": str(share)})
    if inputs.dry_run:
        report.details |= _plan(runs, mine, parts)
    else:
        folder = SweepFolder(inputs.workspace.sweeps / runs.identity[:12])
        failures = _make(runs, mine, folder, parts)
        report.details |= folder.write(runs, _messages(failures), draw=True)
        report.outputs = folder.outputs()
        _tell(report, runs, failures)
    _sum_up(report, parts)
    return report


def _make(runs: GridRuns, mine: Sequence[int], folder: SweepFolder, parts: list[JobReport]) -> dict[int, PipelineError]:
    """Train and evaluate what is not finished; what fails, by grid point, keeps no other run from being made."""
    failures: dict[int, PipelineError] = {}
    for i in mine:
        done = runs.finished(i) is not None
        logger.info("run %d of %d%s: %s", i + 1, len(runs.points), " is finished" if done else "", runs.points[i])
        if done:
            continue
        try:
            parts.append(runs.train(i))
            parts.append(runs.evaluate(i, "dev"))
            parts.append(runs.evaluate(i, "eval"))
        except Interrupted:
            raise
        except PipelineError as error:
            logger.warning("run %d of %d failed: %s", i + 1, len(runs.points), error)
            failures[i] = error
        folder.write(runs, _messages(failures))
    return failures


def _plan(runs: GridRuns, mine: Sequence[int], parts: list[JobReport]) -> dict[str, Any]:
    """What would be made; its reports are added to `parts`."""
    plan = [
        {"would": "score", "what": f"{part.pairs_scored} pairs with the reference"} for part in parts if part.tokens
    ]
    responses = [response for split in ("dev", "eval") for response in unique_responses(runs.prepared.splits[split])]
    for i in mine:
        if runs.finished(i) is not None:
            continue
        would = "evaluate" if runs.is_trained(i) else "train"
        plan.append({"would": would, "what": str(runs.points[i])})
        evaluation = JobReport("eval", "dry_run", tokens=sum(map(len, responses)), responses_scored=len(responses))
        parts += [runs.train(i), evaluation]
    totals = ("steps_total", "disk_bytes")
    return {"plan": plan} | {name: sum(part.details.get(name, 0) for part in parts) for name in totals}


def _sum_up(report: JobReport, parts: Sequence[JobReport]) -> None:
    for name in ("pairs_scored", "responses_scored", "pairs_stored_before", "tokens", "seconds"):
        setattr(report, name, sum(getattr(part, name) for part in parts))
    if report.status == "done":
        statuses = {part.status for part in parts}
        report.status = (
            "nothing_to_do" if statuses <= {"nothing_to_do"} else "dry_run" if "dry_run" in statuses else "done"
        )


def _tell(report: JobReport, runs: GridRuns, failures: dict[int, PipelineError]) -> None:
    """The run that was chosen, and what went wrong."""
    choice = report.details["choice"]
    report.run = None if choice is None else choice["run"]
    if failures:
        first = min(failures)
        report.status, report.exit_code = "failed", failures[first].exit_code
        report.message = (
            f"{len(failures)} of {len(runs.points)} runs failed; the others of this worker are finished. The first, "
            f"{runs.points[first]}: {failures[first]} The same command tries the failed ones again."
        )


def _messages(failures: dict[int, PipelineError]) -> dict[int, str]:
    return {i: str(error) for i, error in failures.items()}


def _refuse_other_evaluations(config: EvalConfig) -> None:
    """Limits are for single evaluations and do no harm here; these would be ignored."""
    asked = [f"eval.{name}" for name in ("model", "reference_free") if getattr(config, name)]
    if asked:
        raise ConfigError(
            f"A sweep evaluates the policies of its own runs, with their reference: {' and '.join(asked)} would have "
            "no effect. Take it out (--set eval.model=[], --set eval.reference_free=false), and evaluate the chosen "
            "run with it afterwards (pipeline eval)."
        )


def _refuse_without_pairs(data: DataConfig, dev: float, held_out: float) -> None:
    """Refuse where there are none of a kind, by their share or by their number."""
    kinds = (("dev", dev, data.dev_fraction), ("eval", held_out, data.held_out_fraction))
    missing = [(name, share) for name, found, share in kinds if not found]
    if missing:
        names = {"dev": "dev", "eval": "held-out"}
        raise ConfigError(
            "A sweep chooses on dev pairs and measures the choice on held-out pairs, and there are no "
            f"{' and no '.join(names[name] for name, _ in missing)} pairs. Set "
            f"{' and '.join(f'data.{name}_fraction (now {share:g})' for name, share in missing)} to a larger share, "
            "such as 0.1, and run the same command again."
        )
