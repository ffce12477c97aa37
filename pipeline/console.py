"""What people see of a job's words: logs on standard error. progress.py has the bars, summary.py the last lines.

Everything that came out of a data file passes through `printable` on its way to a terminal or a CI log.
"""

import logging
import re
import sys
import traceback
import unicodedata

_LIMIT = 4000  # characters of one message


def printable(text: str) -> str:
    """Text that can do nothing to a terminal or a CI log: no control, escape or bidi characters, no `::` commands."""
    safe = "".join(c if c in "\n\t" or unicodedata.category(c)[0] != "C" else "\ufffd" for c in text)
    safe = re.sub(r"(?m)^(\s*)::", r"\1: :", safe)
    safe = re.sub(r"##(?=\w*\[)", "# #", safe)  # of GitHub's older and of Azure's runners, anywhere in a line
    return safe if len(safe) <= _LIMIT else f"{safe[:_LIMIT]}... ({len(safe)} characters)"


class _Formatter(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        message = printable(record.getMessage())
        return message if record.levelno < logging.WARNING else f"{record.levelname.lower()}: {message}"


class _StderrHandler(logging.StreamHandler):  # type: ignore[type-arg]
    """Writes to whatever standard error is at the moment (a progress bar may have taken it over)."""

    def emit(self, record: logging.LogRecord) -> None:
        self.stream = sys.stderr
        super().emit(record)


def set_up_logging(verbosity: int) -> None:
    """The one place where logging is configured: -1 warnings only, 0 decisions too, 1 and more debugging."""
    handler = _StderrHandler()
    handler.setFormatter(_Formatter("%(message)s"))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(logging.WARNING)
    level = logging.WARNING if verbosity < 0 else logging.DEBUG if verbosity > 0 else logging.INFO
    for package in ("pipeline", "stages", "data"):
        logging.getLogger(package).setLevel(level)


def error_line(message: str) -> None:
    """One paragraph for the person whose job failed."""
    sys.stderr.write(f"error: {printable(message)}\n")


def error_traceback() -> None:
    """Where the exception that is being handled came from; its message may have text of the data in it."""
    sys.stderr.write("\n".join(map(printable, traceback.format_exc().split("\n"))))
