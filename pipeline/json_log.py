"""Standard error for collectors (`--log-format json`): each line is one JSON object.

    {"time": ISO 8601, "level": ..., "logger": ..., "job": ..., "message": ..., and what only its kind has}

What other code prints there becomes the message of such a line. docs/observability.md shows each kind.
"""

import io
import json
import logging
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any, TextIO

_QUIET = {"HF_HUB_DISABLE_PROGRESS_BARS": "1", "HF_DATASETS_DISABLE_PROGRESS_BARS": "1"}
"""Bars of other libraries: they are no lines."""


class JsonLines(io.TextIOBase):
    """Stands in the place of standard error."""

    def __init__(self, out: TextIO, clean: Callable[[str], str]) -> None:
        """Write to `out` what `clean` leaves of texts."""
        self._out, self._clean = out, clean
        self._lock, self._unfinished = threading.RLock(), ""
        rank = os.environ.get("RANK", "")
        self._rank = {"rank": int(rank)} if rank.isdigit() and os.environ.get("WORLD_SIZE", "1") != "1" else {}
        self.job: str | None = None
        """What is being done."""

    def line(self, level: str, logger: str, message: str, when: float | None = None, **fields: Any) -> str:
        """One object, with its line break; `when` is in seconds since 1970, now if it is not given."""
        moment = datetime.fromtimestamp(time.time() if when is None else when, UTC)
        entry = {"time": moment.isoformat(timespec="milliseconds"), "level": level, "logger": logger, "job": self.job}
        entry |= self._rank | {"message": self._clean(message)} | fields
        return json.dumps(entry, default=str) + "\n"

    def entry(self, level: str, logger: str, message: str, when: float | None = None, **fields: Any) -> None:
        """Write one."""
        line = self.line(level, logger, message, when, **fields)
        with self._lock:
            self._out.write(line)
            self._out.flush()

    def write(self, text: str) -> int:
        """What other code prints, a line at a time; of one that was overwritten the last state."""
        with self._lock:
            *lines, self._unfinished = (self._unfinished + text).split("\n")
        for line in lines:
            if said := line.rstrip("\r").rpartition("\r")[-1].strip():
                self.entry("info", "stderr", said)
        return len(text)

    def fileno(self) -> int:
        """The file's own."""
        return self._out.fileno()

    def end(self) -> None:
        """Write what was begun."""
        if self._unfinished:
            self.write("\n")


class JsonHandler(logging.Handler):
    """Records of logging, while `JsonLines` stands in the place of standard error."""

    _plain = logging.Formatter()

    def emit(self, record: logging.LogRecord) -> None:
        """Write one, and below its message the traceback that it carries."""
        lines = json_lines()
        if lines is None:
            return
        message = record.getMessage()
        if record.exc_info:
            message += "\n" + self._plain.formatException(record.exc_info)
        lines.entry(record.levelname.lower(), record.name, message, record.created)


def json_lines() -> JsonLines | None:
    """The lines that are written to; None where people read along."""
    return sys.stderr if isinstance(sys.stderr, JsonLines) else None


@contextmanager
def json_on_standard_error(clean: Callable[[str], str]) -> Iterator[None]:
    """From here on standard error is lines of JSON."""
    if json_lines() is not None:
        yield
        return
    before, added = sys.stderr, {name: value for name, value in _QUIET.items() if name not in os.environ}
    lines = JsonLines(before, clean)
    sys.stderr = lines
    os.environ |= added
    logging.captureWarnings(capture=True)
    try:
        yield
    finally:
        logging.captureWarnings(capture=False)
        lines.end()
        sys.stderr = before
        for name in added:
            del os.environ[name]


@contextmanager
def speaking_for(job: str) -> Iterator[None]:
    """Lines from here on are of this job."""
    lines = json_lines()
    if lines is None:
        yield
        return
    before, lines.job = lines.job, job
    try:
        yield
    finally:
        lines.job = before
