"""What jobs took of devices, and what stored values spared: work/jobs/ledger.jsonl, a line for each job that worked.

A job that is under way has lines of its own (`status: running`, each with all so far), so that of one that is killed
the last of them stays. Of lines of one `id` the last counts.
"""

import errno
import json
import os
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

DAY = timedelta(hours=24)


def append(path: Path, entry: Mapping[str, Any]) -> None:
    """Add a line, durably; several processes may do so at once.

    Raises:
        OSError: it cannot be written.
    """
    line = (json.dumps(entry, allow_nan=False) + "\n").encode()
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o666)
    try:
        size = os.fstat(descriptor).st_size
        if size and os.pread(descriptor, 1, size - 1) != b"\n":  # what a full disk has left of one
            line = b"\n" + line
        if os.write(descriptor, line) < len(line):  # at once: lines of several processes do not mix
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def read(path: Path) -> list[dict[str, Any]]:
    """The last line of each job, in the order in which they began; what is no entry is passed over."""
    found: dict[str, dict[str, Any]] = {}
    try:
        lines = path.read_bytes().splitlines()
    except FileNotFoundError:
        return []
    for line in lines:
        try:
            entry = json.loads(line)
            _moment(entry["began"]), _moment(entry["ended"]), _seconds([entry])
            found[entry["id"]] = entry
        except (ValueError, KeyError, TypeError, AttributeError):
            continue
    return sorted(found.values(), key=lambda entry: _moment(entry["began"]))


def totals(entries: Sequence[Mapping[str, Any]], now: datetime) -> dict[str, Any]:
    """Sums over the entries of a ledger; nothing where there are none."""
    if not entries:
        return {}
    recent = [entry for entry in entries if now - _moment(entry["ended"]) <= DAY]
    by_job = {
        job: {"jobs": len(own), "device_seconds": _total(own)}
        for job in dict.fromkeys(str(entry["job"]) for entry in entries)
        if (own := [entry for entry in entries if entry["job"] == job])
    }
    saved = [entry.get("saved") or {} for entry in entries]
    return {
        "since": entries[0]["began"],
        "jobs": len(entries),
        "device_seconds": {"total": _total(entries), **_seconds(entries)},
        "by_job": by_job,
        "last_24_hours": {"jobs": len(recent), "device_seconds": _total(recent)},
        "saved": {name: round(sum(each.get(name, 0) for each in saved), 3) for name in ("pairs", "seconds")},
        "statuses": dict(Counter(str(entry["status"]) for entry in entries)),
    }


def in_words(found: Mapping[str, Any]) -> list[str]:
    """The totals, for people."""
    if not found:
        return []
    seconds, day, statuses = found["device_seconds"], found["last_24_hours"], found["statuses"]
    parts = [f"{name} {value:,.1f}" for name, value in seconds.items() if name != "total"]
    lines = [f"device-seconds since {found['since'][:10]}: {seconds['total']:,.1f} ({', '.join(parts) or 'none'})"]
    jobs = [f"{job} {own['device_seconds']:,.1f} in {_jobs(own['jobs'])}" for job, own in found["by_job"].items()]
    lines.append(f"    {'; '.join(jobs)}")
    lines.append(f"    in the last 24 hours: {day['device_seconds']:,.1f} in {_jobs(day['jobs'])}")
    told = {"interrupted": "interrupted", "failed": "failed", "running": "running or killed"}
    ends = [f"{statuses[status]} {said}" for status, said in told.items() if status in statuses]
    lines[-1] += f"; of all, {', '.join(ends)}" if ends else ""
    if saved := found["saved"]["pairs"]:
        lines.append(
            f"    spared by stored values: about {found['saved']['seconds']:,.1f}, for {saved:,} pairs that were read"
        )
    return lines


def _jobs(n: int) -> str:
    return "1 job" if n == 1 else f"{n} jobs"


def _total(entries: Iterable[Mapping[str, Any]]) -> float:
    return round(sum(_seconds(entries).values()), 3)


def _seconds(entries: Iterable[Mapping[str, Any]]) -> dict[str, float]:
    """By what they went to."""
    found: dict[str, float] = {}
    for entry in entries:
        for what, seconds in entry["device_seconds"].items():
            found[what] = found.get(what, 0.0) + float(seconds)
    return {what: round(seconds, 3) for what, seconds in found.items()}


def _moment(text: str) -> datetime:
    moment = datetime.fromisoformat(text)
    if moment.tzinfo is None:
        raise ValueError(text)
    return moment
