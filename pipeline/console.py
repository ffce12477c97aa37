"""What people see of a job's words: logs on standard error. progress.py has the bars, summary.py the last lines.

Everything that came out of a data file passes through `printable` on its way to a terminal or a CI log, and what is
logged through `redacted`.
"""

import logging
import re
import sys
import traceback
import unicodedata
from contextlib import AbstractContextManager
from typing import Any

from data.errors import one_line
from pipeline.json_log import JsonHandler, json_lines, json_on_standard_error
from pipeline.redaction import redacted

_LIMIT = 4000  # characters of one message


def printable(text: str) -> str:
    """Text that can do nothing to a terminal or a CI log: no control, escape or bidi characters, no `::` commands."""
    safe = "".join(c if c in "\n\t" or unicodedata.category(c)[0] != "C" else "\ufffd" for c in text)
    safe = re.sub(r"(?m)^(\s*)::", r"\1: :", safe)
    safe = re.sub(r"##(?=\w*\[)", "# #", safe)  # of GitHub's older and of Azure's runners, anywhere in a line
    return safe if len(safe) <= _LIMIT else f"{safe[:_LIMIT]}... ({len(safe)} characters)"


class _Formatter(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        message = _clean(record.getMessage())
        return message if record.levelno < logging.WARNING else f"{record.levelname.lower()}: {message}"


class _StderrHandler(logging.StreamHandler):  # type: ignore[type-arg]
    """Writes to whatever standard error is at the moment (a progress bar may have taken it over)."""

    def emit(self, record: logging.LogRecord) -> None:
        self.stream = sys.stderr
        super().emit(record)


class _Once(logging.Filter):
    """Lets a warning through once a command, though every job of a chain has reason to give it."""

    def __init__(self) -> None:
        super().__init__()
        self._said: set[str] = set()

    def filter(self, record: logging.LogRecord) -> bool:
        if record.levelno != logging.WARNING:
            return True
        message = record.getMessage()
        is_new = message not in self._said
        self._said.add(message)
        return is_new


def set_up_logging(verbosity: int) -> None:
    """The one place where logging is configured: -1 warnings only, 0 decisions too, 1 and more debugging."""
    handler: logging.Handler = _StderrHandler() if json_lines() is None else JsonHandler()
    handler.setFormatter(_Formatter("%(message)s"))
    handler.addFilter(_Once())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(logging.WARNING)
    level = logging.WARNING if verbosity < 0 else logging.DEBUG if verbosity > 0 else logging.INFO
    for package in ("pipeline", "stages", "data"):
        logging.getLogger(package).setLevel(level)


def logs_as_json() -> AbstractContextManager[None]:
    """From here on standard error is lines of JSON."""
    return json_on_standard_error(_clean)


def error_line(message: str, exit_code: int, **fields: Any) -> None:
    """One paragraph for the person whose job failed; `fields` are for collectors."""
    if (lines := json_lines()) is not None:
        lines.entry("error", __name__, message, exit_code=exit_code, **fields)
    else:
        sys.stderr.write(f"error: {_clean(message)}\n")


def error_traceback() -> None:
    """Where the exception that is being handled came from; its message may have text of the data in it."""
    text = "\n".join(map(_clean, traceback.format_exc().rstrip("\n").split("\n")))
    error = sys.exception()
    if (lines := json_lines()) is not None and error is not None:
        lines.entry("error", __name__, one_line(error), traceback=text)
    else:
        sys.stderr.write(f"{text}\n")


def _clean(message: str) -> str:
    return str(redacted(printable(message)))
