"""Programs of others, run by the shell: as long as they may, in a process group that is ended as a whole."""

import os
import signal
import subprocess
import time
from collections import deque
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from threading import Event, Thread
from typing import IO, Literal

MOST_PRINTED = 16 * 2**20  # bytes of standard output
_LOGGED_LINES = 1000  # of standard error; the rest is dropped, but for the last
_LINE = 4000  # bytes; a longer one is cut into several
_KEPT_LINES, _KEPT_CHARACTERS = 5, 300
_LOOK_SECONDS = 0.05
_GRACE_SECONDS = 5.0  # between SIGTERM and SIGKILL

Stopped = Literal["signal", "timeout", "output"]


@dataclass
class Outcome:
    """What came of a program."""

    code: int = 0
    """Its exit code; below 0 the signal that ended it."""
    stdout: str = ""
    last_lines: deque[str] = field(default_factory=lambda: deque(maxlen=_KEPT_LINES))
    """Of standard error."""
    stopped: Stopped | None = None
    """Why it was stopped by us."""


def run_shell(
    command: str,
    environment: Mapping[str, str],
    timeout: float,
    stop_requested: Callable[[], bool],
    say: Callable[[str], None],
) -> Outcome:
    """Run the command to its end, or for `timeout` seconds, or until a stop is requested; `say` gets what it says.

    Whatever it has started in its process group is gone when this returns.
    """
    outcome, flooded, printed = Outcome(), Event(), bytearray()
    process = subprocess.Popen(
        command, shell=True, env=dict(environment), start_new_session=True,
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip
    assert process.stdout is not None and process.stderr is not None
    readers = [
        Thread(target=_collect, args=(process.stdout, printed, flooded), daemon=True),
        Thread(target=_listen, args=(process.stderr, outcome.last_lines, say), daemon=True),
    ]
    for reader in readers:
        reader.start()
    try:
        outcome.stopped = _wait(process, time.monotonic() + timeout, stop_requested, flooded)
    finally:
        _end_group(process)
    for reader in readers:
        reader.join(_GRACE_SECONDS)  # not for good: a program that has left the group may hold the pipe
    outcome.stopped = outcome.stopped or ("output" if flooded.is_set() else None)
    outcome.code, outcome.stdout = process.returncode, bytes(printed).decode(errors="replace")
    return outcome


def _wait(
    process: subprocess.Popen[bytes], deadline: float, stop_requested: Callable[[], bool], flooded: Event
) -> Stopped | None:
    while process.poll() is None:
        if stop_requested():
            return "signal"
        if flooded.is_set():
            return "output"
        if time.monotonic() > deadline:
            return "timeout"
        time.sleep(_LOOK_SECONDS)
    return None


def _end_group(process: subprocess.Popen[bytes]) -> None:
    """End the program, if it runs, and its children: asked first, then made to."""
    deadline = time.monotonic() + _GRACE_SECONDS
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGTERM)
        while time.monotonic() < deadline:
            process.poll()  # or the group would live on in a program that nobody has waited for
            os.killpg(process.pid, 0)
            time.sleep(_LOOK_SECONDS)
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def _collect(stream: IO[bytes], printed: bytearray, flooded: Event) -> None:
    with stream:
        while chunk := os.read(stream.fileno(), 2**16):
            printed += chunk[: MOST_PRINTED - len(printed)]
            if len(printed) == MOST_PRINTED:
                flooded.set()


def _listen(stream: IO[bytes], last: deque[str], say: Callable[[str], None]) -> None:
    logged = 0
    with stream:
        for raw in iter(lambda: stream.readline(_LINE), b""):
            line = raw.decode(errors="replace").rstrip().rpartition("\r")[-1]  # of a progress bar the last state
            if not line:
                continue
            last.append(line[:_KEPT_CHARACTERS])
            logged += 1
            if logged <= _LOGGED_LINES:
                say(line)
            elif logged == _LOGGED_LINES + 1:
                say(f"(more than {_LOGGED_LINES} lines; no more of them are shown)")
