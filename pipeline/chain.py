"""Runs jobs: one of them or the chain, from parsed options to the document and the exit code."""

import json
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from data.errors import EnvironmentProblem, Interrupted, PipelineError, one_line, out_of_memory
from pipeline.config import load_config
from pipeline.console import error_line, error_traceback, printable, set_up_logging
from pipeline.control import ProcessControl
from pipeline.inputs import Inputs
from pipeline.jobs import CHAIN, IN_SEVERAL_PROCESSES, JOBS, WITHOUT_CONFIG
from pipeline.json_log import json_lines, speaking_for
from pipeline.redaction import redacted
from pipeline.reference_job import await_other_workers
from pipeline.summary import summary
from pipeline.workers import shard_of
from stages.job import JobReport, Status

_SCORING_HINT = (
    "Lower scoring.pack_tokens or data.max_length, or use reference.dtype: bfloat16; the same command goes on."
)
_TRAINING_HINT = (
    "Set train.gradient_checkpointing: true or lower scoring.pack_tokens: the same command then goes on from the last "
    "checkpoint. What saves more makes another run: train.optim: adamw_8bit, train.lora, a lower data.max_length."
)

_ENDS = ("exit_code", "status", "run", "pairs", "tokens", "seconds", "seconds_total")
"""What the last line of a log tells collectors."""

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Options:
    """What every command takes."""

    config: Path | None
    assignments: Sequence[str]
    json: bool
    dry_run: bool
    quiet: bool
    verbosity: int
    arguments: Mapping[str, Any] = field(default_factory=dict)
    """What only this command takes."""


def run_command(job: str, options: Options) -> int:
    """Run a job, or `run` for the chain; prints its document or its summary, returns the exit code.

    Of several processes that torchrun started the first one prints.
    """
    document = run_job_document(job, options)
    if shard_of(None).index > 0:
        pass
    elif options.json:
        print(json.dumps(document, ensure_ascii=True, allow_nan=False))  # noqa: T201
    elif not options.quiet and (text := summary(document)):
        print("\n".join(map(printable, text.split("\n"))))  # noqa: T201
    _end_log(job, document, quiet=options.quiet)
    return int(document["exit_code"])


def _end_log(job: str, document: Mapping[str, Any], *, quiet: bool) -> None:
    """The last line: what went wrong; for collectors how it ended, whatever way that is."""
    ends = {name: document[name] for name in _ENDS}
    with speaking_for(job):
        if document["message"] is not None:
            error_line(document["message"], **ends)
        elif (lines := json_lines()) is not None and not quiet:
            lines.entry("info", __name__, f"{job}: {document['status']}", **ends)


def run_job_document(job: str, options: Options) -> dict[str, Any]:
    """Run a job, or `run` for the chain; whatever happens, one document tells of it."""
    started = time.perf_counter()
    set_up_logging(-1 if options.quiet or shard_of(None).index > 0 else options.verbosity)
    document = _guarded(job, options.verbosity, lambda: _dispatch(job, options))
    document["seconds_total"] = round(time.perf_counter() - started, 3)
    return document | {name: redacted(document[name]) for name in ("message", "outputs")}


def _dispatch(job: str, options: Options) -> dict[str, Any]:
    worker = shard_of(None)
    if worker.index > 0 and job not in (*IN_SEVERAL_PROCESSES, "run"):
        logger.debug("%s is the first process's alone", job)
        return JobReport(job, "nothing_to_do").document()
    if job in WITHOUT_CONFIG:
        return WITHOUT_CONFIG[job](options.config, options.assignments, **options.arguments).document()
    control = ProcessControl(quiet=options.quiet or (worker.index > 0 and job != "precompute-ref"))
    control.listen()
    inputs = Inputs(load_config(options.config, options.assignments), control, options.dry_run, options.config)
    return _run_chain(inputs, options.verbosity) if job == "run" else _run_job(job, inputs, options.arguments)


def _run_job(job: str, inputs: Inputs, arguments: Mapping[str, Any] | None = None) -> dict[str, Any]:
    started = time.perf_counter()
    report = JOBS[job](inputs, **(arguments or {}))
    if report.status == "dry_run":
        report.details |= _estimate(inputs, report)
    elif report.seconds > 0:
        report.details |= {"device": _device_name()}
    document = {**report.document(), "seconds_total": round(time.perf_counter() - started, 3)}
    if report.seconds > 0 and shard_of(None).index == 0:
        inputs.workspace.write_job(document)
    return document


def _run_chain(inputs: Inputs, verbosity: int) -> dict[str, Any]:
    """The three jobs in order; the first that does not succeed is the last.

    Several processes score their shares, train together and evaluate together; the first of them judges.
    """
    documents: list[dict[str, Any]] = []
    for job in CHAIN:
        if job not in IN_SEVERAL_PROCESSES and shard_of(None).index > 0:
            break
        if inputs.dry_run and job == "eval" and documents[-1]["status"] == "dry_run":
            break  # there is no policy yet to plan an evaluation of
        documents.append(_guarded(job, verbosity, partial(_run_job, job, inputs)))
        if documents[-1]["exit_code"]:
            break
        if job == "precompute-ref" and not inputs.dry_run and shard_of(None).count > 1:
            documents[-1] = _guarded(job, verbosity, partial(_with_the_others, inputs, documents[-1]))
            if documents[-1]["exit_code"]:
                break
    whole = JobReport("run", _chain_status(documents), documents[-1]["run"], pairs=documents[0]["pairs"])
    for name in ("pairs_scored", "responses_scored", "tokens", "seconds"):
        setattr(whole, name, sum(document[name] for document in documents))
    whole.pairs_stored_before = documents[0]["pairs_stored_before"]
    whole.exit_code, whole.message = documents[-1]["exit_code"], documents[-1]["message"]
    for document in documents:
        whole.outputs |= document["outputs"]
    return {**whole.document(), "jobs": documents}


def _with_the_others(inputs: Inputs, document: dict[str, Any]) -> dict[str, Any]:
    await_other_workers(inputs)
    return document


def _chain_status(documents: Sequence[dict[str, Any]]) -> Status:
    statuses: list[Status] = [document["status"] for document in documents]
    for telling in ("failed", "interrupted", "dry_run"):
        if telling in statuses:
            return telling
    return "nothing_to_do" if set(statuses) == {"nothing_to_do"} else "done"


def _guarded(job: str, verbosity: int, work: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """The job's document, or the document of its failure: user errors in one paragraph, a traceback for bugs."""
    try:
        with speaking_for(job):
            return work()
    except PipelineError as error:
        if verbosity >= 2:
            error_traceback()
        status: Status = "interrupted" if isinstance(error, Interrupted) else "failed"
        return JobReport(job, status, error.run, exit_code=error.exit_code, message=str(error)).document()
    except Exception as error:  # the last line of defence: even our own bug leaves one document
        problem = _environment_problem(job, error)
        if problem is not None:
            return JobReport(job, "failed", exit_code=EnvironmentProblem.exit_code, message=problem).document()
        error_traceback()
        message = f"This is a bug of the program, not yours: {one_line(error)}. Please report the traceback."
        return JobReport(job, "failed", exit_code=1, message=message).document()


def _environment_problem(job: str, error: Exception) -> str | None:
    """What to do where memory or disk ran out; None for anything else."""
    if "No space left on device" in str(error):  # OSError, or safetensors' own class
        return (
            f"The disk is full: {one_line(error)}. What was finished is kept, and nothing incomplete is left under a "
            "final name. Free some space or point workdir elsewhere, and run the same command again."
        )
    if out_of_memory(error):
        hint = _TRAINING_HINT if job in ("train", "sweep") else _SCORING_HINT
        return f"Memory ran out: {one_line(error)}. {hint} Or take a larger device. What was finished is kept."
    return None


def _estimate(inputs: Inputs, report: JobReport) -> dict[str, Any]:
    """Seconds that a dry run foresees, from the rate of the last run on this device; nothing where there was none."""
    last = inputs.workspace.last_job(report.job)
    if last is None or not last.get("seconds") or last.get("device") != _device_name():
        return {}
    return {"seconds_estimated": round(report.tokens * last["seconds"] / max(1, last["tokens"]), 1)}


def _device_name() -> str:
    from stages.scoring.model import device_name

    return device_name()
