"""What a stage gets from whoever runs it (progress, stopping) and what it gives back (its report)."""

from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

Status = Literal["done", "nothing_to_do", "dry_run", "interrupted", "failed"]


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
