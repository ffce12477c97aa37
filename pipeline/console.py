"""What people see: logs and progress on standard error, one document or a few lines on standard output.

Everything that came out of a data file passes through `printable` on its way to a terminal or a CI log.
"""

import logging
import re
import sys
import time
import unicodedata
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from stages.job import Bar

LINE_SECONDS = 30.0  # between progress lines where there is no terminal
_LIMIT = 4000  # characters of one message


def printable(text: str) -> str:
    """Text that can do nothing to a terminal or a CI log: no control, escape or bidi characters, no `::` commands."""
    safe = "".join(c if c in "\n\t" or unicodedata.category(c)[0] != "C" else "\ufffd" for c in text)
    safe = re.sub(r"(?m)^(\s*)::", r"\1: :", safe)
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


@contextmanager
def progress_bar(label: str, pairs: int, stored: int, *, quiet: bool) -> Iterator[Bar]:
    """A bar on a terminal, a line each 30 s elsewhere, nothing where quiet was asked for."""
    if quiet:
        yield _SilentBar()
    elif sys.stderr.isatty():
        with _terminal_bar(label, pairs, stored) as bar:
            yield bar
    else:
        lines = _LineBar(label, pairs, stored)
        yield lines
        lines.finish()


class _SilentBar:
    def advance(self, pairs: float, tokens: int) -> None: ...

    def note(self, text: str) -> None: ...


class _LineBar:
    """Progress as lines of a log."""

    def __init__(self, label: str, pairs: int, stored: int) -> None:
        self._label, self._pairs, self._stored = label, pairs, stored
        self._done, self._tokens, self._note, self._said = 0.0, 0, "", False
        self._unsaid = True
        self._started = self._printed = time.monotonic()

    def advance(self, pairs: float, tokens: int) -> None:
        self._done += pairs
        self._tokens += tokens
        self._unsaid = True
        if time.monotonic() - self._printed >= LINE_SECONDS:
            self._print()
            self._said = True

    def note(self, text: str) -> None:
        self._note = text

    def finish(self) -> None:
        if self._unsaid and (self._said or self._pairs):  # reading a small file is nothing to speak of
            self._print()

    def _print(self) -> None:
        self._printed, self._unsaid = time.monotonic(), False
        seconds = max(1e-9, self._printed - self._started)
        rate = self._done / seconds
        left = self._pairs - self._stored - self._done
        eta = f", {left / rate:.0f} s left" if rate > 0 and left >= 1 else ""
        note = f", {self._note}" if self._note else ""
        total = f"/{self._pairs}" if self._pairs else ""
        tokens = f", {self._tokens / seconds:.0f} tokens/s" if self._tokens else ""
        stored = f" ({self._stored} stored before)" if self._stored else ""
        sys.stderr.write(
            f"{self._label}: {self._stored + self._done:.0f}{total} pairs{stored}, {rate:.1f} pairs/s"
            f"{tokens}{note}{eta}\n"
        )


@contextmanager
def _terminal_bar(label: str, pairs: int, stored: int) -> Iterator[Bar]:
    from rich.console import Console
    from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeRemainingColumn

    columns = (
        SpinnerColumn(),
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        TextColumn("{task.fields[rates]}", markup=False),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}", markup=False),
    )
    with Progress(*columns, console=Console(stderr=True)) as progress:
        task = progress.add_task(label, total=pairs or None, completed=stored, rates="", note="")
        yield _RichBar(progress, task, pairs, stored)


class _RichBar:
    """Progress as a bar of rich."""

    def __init__(self, progress: Any, task: Any, pairs: int, stored: int) -> None:
        self._progress, self._task, self._pairs = progress, task, pairs
        self._done, self._tokens, self._stored = 0.0, 0, stored
        self._started = time.monotonic()

    def advance(self, pairs: float, tokens: int) -> None:
        self._done += pairs
        self._tokens += tokens
        seconds = max(1e-9, time.monotonic() - self._started)
        total = f"/{self._pairs}" if self._pairs else ""
        rates = f"{self._stored + self._done:.0f}{total} pairs  {self._done / seconds:.1f} pairs/s"
        if self._tokens:
            rates += f"  {self._tokens / seconds:.0f} tokens/s"
        if self._stored:
            rates += f" ({self._stored} stored before)"
        self._progress.update(self._task, advance=pairs, rates=rates)

    def note(self, text: str) -> None:
        self._progress.update(self._task, note=text)
