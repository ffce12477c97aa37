"""The hands of a job: its progress bars, and the signals that ask it to stop."""

import os
import signal
from contextlib import AbstractContextManager
from types import FrameType

from pipeline.json_log import json_lines
from pipeline.progress import progress_bar
from stages.job import Bar, Work

INTERRUPTED_TWICE = 130
_SHOW_CURSOR = "\x1b[?25h"
STDERR = 2  # the descriptor itself: a handler must not wait for anyone's buffer


class ProcessControl:
    """Control of the job that this process runs.

    The first SIGTERM or SIGINT asks the job to save and stop (exit code 75). The second ends the process at once
    (130): every file is complete or absent at any moment, so nothing is damaged by that.
    """

    def __init__(self, *, quiet: bool) -> None:
        self._quiet = quiet
        self._stop = False

    def listen(self) -> None:
        """Take the signals over."""
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._on_signal)

    def bar(self, label: str, pairs: int, stored: int = 0) -> AbstractContextManager[Bar]:
        """A progress bar over `pairs` pairs (0: unknown), `stored` of which are there already."""
        return progress_bar(label, pairs, stored, quiet=self._quiet)

    def stop_requested(self) -> bool:
        """Whether a signal came."""
        return self._stop

    def worked(self, on: Work, seconds: float, tokens: int) -> None:
        """Counted where a record is kept (pipeline/records.py)."""

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        name = signal.Signals(number).name
        if self._stop:
            cursor = _SHOW_CURSOR if os.isatty(STDERR) else ""  # a bar hides it
            os.write(STDERR, _line(f"{name} again: stopping at once", cursor).encode())
            os._exit(INTERRUPTED_TWICE)
        self._stop = True
        os.write(STDERR, _line(f"{name}: saving and stopping (once more stops at once)").encode())


def _line(note: str, before: str = "") -> str:
    lines = json_lines()
    return f"{before}{note}\n" if lines is None else lines.line("warning", __name__, note)
