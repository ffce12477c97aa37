"""What a stage gets from whoever runs it (progress, stopping) and what it gives back (its report)."""

import time
from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

Status = Literal["done", "nothing_to_do", "dry_run", "interrupted", "failed"]

Work = Literal["reference", "training", "evaluation"]
"""What devices work on."""


class Bar(Protocol):
    """A progress bar that is under way."""

    def advance(self, pairs: float, tokens: int) -> None:
        """Count what has been done."""

    def show(self, figures: Mapping[str, str]) -> None:
        """Show figures beside the bar, by their names, in place of those before."""


class Control(Protocol):
    """The hands of whoever runs a stage."""

    def bar(self, label: str, pairs: int, stored: int = 0) -> AbstractContextManager[Bar]:
        """A `Bar` over `pairs` pairs (0: unknown), `stored` of which are there already."""

    def stop_requested(self) -> bool:
        """Whether a signal has asked the job to save and stop."""

    def worked(self, on: Work, seconds: float, tokens: int) -> None:
        """Count device-seconds as soon as they are over: of all devices, by one process of those that work together."""


class Laps:
    """Seconds since it was asked last."""

    def __init__(self) -> None:
        self._asked = time.perf_counter()

    def lap(self) -> float:
        """Those, and begin anew."""
        now = time.perf_counter()
        seconds, self._asked = now - self._asked, now
        return seconds


@dataclass
class JobReport:
    """The document that `--json` prints. Seconds are of scoring or stepping only; `pairs` are those wanted."""

    job: str
    status: Status = "done"
    run: str | None = None
    pairs: int = 0
    pairs_scored: int = 0
    responses_scored: int = 0
    pairs_stored_before: int = 0
    tokens: int = 0
    seconds: float = 0.0
    outputs: dict[str, str] = field(default_factory=dict)
    exit_code: int = 0
    message: str | None = None
    """What a person has to know about an exit code that is not 0."""
    details: dict[str, Any] = field(default_factory=dict)
    """What only this job has to say; its keys stand beside the others in the document."""

    def document(self) -> dict[str, Any]:
        """Flat, JSON-ready."""
        common = {name: value for name, value in vars(self).items() if name != "details"}
        return {**common, "seconds": round(self.seconds, 3), **self.details}
