"""A record of each job that did something: what made its result, what it took, how it ended.

work/jobs/ledger.jsonl          a line a job; pipeline/ledger.py
work/runs/<run>/record.json     those of a run: each session of training, each evaluation
work/evaluations/<...>/record.json

A job that found nothing to do leaves none. A record that cannot be written costs no result.
"""

import json
import logging
import time
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import uuid4

from data.durable import write_json
from data.errors import EnvironmentProblem, GateError, Interrupted, out_of_memory
from pipeline.inputs import Inputs
from pipeline.ledger import append
from pipeline.provenance import made_by
from pipeline.redaction import redacted
from pipeline.workers import shard_of
from stages.job import Bar, Control, JobReport, Work

RUNNING_SECONDS = 300.0  # between the lines of a job that is under way

logger = logging.getLogger(__name__)


@dataclass
class Record:
    """Of a job that is under way."""

    inputs: Inputs
    """What the job is to use: it counts what devices work on."""
    job: str
    folder: Path | None
    """Of the result, where it has one."""
    facts: dict[str, Any] = field(default_factory=dict)
    """What only this job knows: run, reference, policy, verdict."""
    report: JobReport | None = None
    """How it came out."""
    saved: Mapping[str, float] = field(default_factory=dict)
    """Pairs whose reference was read and not scored, and the device-seconds that this spared."""
    is_new: bool = False
    """Whether there is a result that was not there before, though nothing was scored for it."""
    device_seconds: dict[Work, float] = field(default_factory=dict)
    tokens: dict[Work, int] = field(default_factory=dict)
    _id: str = field(default_factory=lambda: uuid4().hex[:16])
    _began: datetime = field(default_factory=lambda: datetime.now(UTC))
    _told: float = 0.0

    def count(self, on: Work, seconds: float, tokens: int) -> None:
        """Add what has been worked, and now and then write it down."""
        self.device_seconds[on] = self.device_seconds.get(on, 0.0) + seconds
        self.tokens[on] = self.tokens.get(on, 0) + tokens
        if not self._told or time.monotonic() - self._told > RUNNING_SECONDS:
            self._told = time.monotonic()
            self._append(self._entry("running", None))

    def end(self, error: BaseException | None) -> None:
        """Write the record of a job that did something."""
        done = self.is_new or (self.report is not None and self.report.status == "done")
        if not (self.device_seconds or (done and shard_of(None).index == 0)):
            return
        status = "done" if error is None else "interrupted" if isinstance(error, Interrupted) else "failed"
        entry = self._entry(status, _exit_code(error, self.facts))
        message = None if error is None else redacted(str(error))
        entry |= {"message": message, "saved": dict(self.saved), **self._pairs(), "made_by": made_by(self.inputs)}
        self._append(entry)
        if self.folder is not None and shard_of(None).index == 0:
            _keep_beside(self.folder, entry)

    def _entry(self, status: str, exit_code: int | None) -> dict[str, Any]:
        """What every line has."""
        began, now = self._began, datetime.now(UTC)
        return {
            "id": self._id,
            "job": self.job,
            "status": status,
            "exit_code": exit_code,
            "began": began.isoformat(timespec="milliseconds"),
            "ended": now.isoformat(timespec="milliseconds"),
            "seconds_total": round((now - began).total_seconds(), 3),
            "device_seconds": {what: round(seconds, 3) for what, seconds in self.device_seconds.items()},
            "tokens": dict(self.tokens),
            "worker": str(shard_of(None)),
            **self.facts,
        }

    def _pairs(self) -> dict[str, int]:
        names = ("pairs", "pairs_scored", "responses_scored", "pairs_stored_before")
        return {} if self.report is None else {name: getattr(self.report, name) for name in names}

    def _append(self, entry: Mapping[str, Any]) -> None:
        try:
            append(self.inputs.workspace.ledger, entry)
        except OSError as error:
            logger.warning("%s cannot be written (%s)", self.inputs.workspace.ledger, error.strerror)


@contextmanager
def recorded(inputs: Inputs, job: str, folder: Path | None = None, **facts: Any) -> Iterator[Record]:
    """A record of the job in this block, which has to use the record's `inputs`; of a dry run there is none."""
    record = Record(inputs, job, folder, facts)
    if inputs.dry_run:
        yield record
        return
    record.inputs = replace(inputs, control=_Counting(inputs.control, record))
    try:
        yield record
    except BaseException as error:
        record.end(error)
        raise
    record.end(None)


@dataclass(frozen=True)
class _Counting:
    """The hands of the process, and a record of what devices work on."""

    hands: Control
    record: Record

    def bar(self, label: str, pairs: int, stored: int = 0) -> AbstractContextManager[Bar]:
        return self.hands.bar(label, pairs, stored)

    def stop_requested(self) -> bool:
        return self.hands.stop_requested()

    def worked(self, on: Work, seconds: float, tokens: int) -> None:
        self.record.count(on, seconds, tokens)


def saved(report: JobReport, pairs: int, spared: Mapping[str, float] | None = None) -> dict[str, float]:
    """What a job spared by reading the reference of so many pairs; of a run that ended early, of those it visited."""
    details = report.details
    share = details.get("last_step", details.get("steps_total", 1)) / max(1, details.get("steps_total", 1))
    seconds = (details if spared is None else spared).get("seconds_saved", 0.0)
    return {"pairs": round(share * pairs), "seconds": round(share * seconds, 1)}


def _exit_code(error: BaseException | None, facts: Mapping[str, Any]) -> int:
    if error is None:
        return GateError.exit_code if facts.get("verdict") == "failed" else 0
    if out_of_memory(error) or "No space left on device" in str(error):
        return EnvironmentProblem.exit_code
    return int(getattr(error, "exit_code", 1))


def _keep_beside(folder: Path, entry: dict[str, Any]) -> None:
    """Add the entry to the record of the result in a folder."""
    path = folder / "record.json"
    jobs = [*_kept(path), entry]
    seconds: dict[str, float] = {}
    for job in jobs:
        for what, spent in job["device_seconds"].items():
            seconds[what] = round(seconds.get(what, 0.0) + spent, 3)
    interrupted = sum(job["status"] == "interrupted" for job in jobs)
    try:
        write_json(path, {"interruptions": interrupted, "device_seconds": seconds, "jobs": jobs})
    except (OSError, EnvironmentProblem) as error:
        logger.warning("%s cannot be written (%s)", path, error)


def _kept(path: Path) -> list[dict[str, Any]]:
    try:
        jobs = json.loads(path.read_bytes())["jobs"]
        return [job for job in jobs if isinstance(job["device_seconds"], dict) and "status" in job]
    except (FileNotFoundError, ValueError, KeyError, TypeError):
        return []
