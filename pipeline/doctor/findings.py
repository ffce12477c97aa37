"""What was looked at, and what it came to."""

from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

Level = Literal["ok", "warning", "problem"]
_COLUMN = 9  # of what was looked at


class Finding(NamedTuple):
    """One line of the examination. A problem stops a job; a warning makes it slower, or stops some."""

    subject: str
    level: Level
    what: str
    do: str | None = None
    """What to do about it, or how to get what is not there."""


def ok(subject: str, what: str, do: str | None = None) -> Finding:
    """As it should be."""
    return Finding(subject, "ok", what, do)


def warning(subject: str, what: str, do: str) -> Finding:
    """Not as it should be, though jobs may run."""
    return Finding(subject, "warning", what, do)


def problem(subject: str, what: str, do: str) -> Finding:
    """What stops a job."""
    return Finding(subject, "problem", what, do)


def problems_of(findings: Sequence[Finding]) -> list[str]:
    """What was looked at where there is a problem."""
    return [finding.subject for finding in findings if finding.level == "problem"]


def message(findings: Sequence[Finding]) -> str | None:
    """A sentence for whoever reads only one; None where there is no problem."""
    wrong = problems_of(findings)
    if not wrong:
        return None
    count = "One problem stops" if len(wrong) == 1 else f"{len(wrong)} problems stop"
    return f"{count} jobs here: {', '.join(wrong)}. The lines above say what to do."


def examined(document: dict[str, Any]) -> str:
    """The findings as lines for people, and how many of each kind there are."""
    lines = []
    for finding in document["findings"]:
        lines.append(f"{finding['level']:<{_COLUMN}}{finding['subject']}: {finding['what']}")
        if finding["do"] is not None:
            lines.append(f"{'':<{_COLUMN}}  {finding['do']}")
    levels = [finding["level"] for finding in document["findings"]]
    counts = {level: levels.count(level) for level in ("warning", "problem")}
    counted = ", ".join(f"{n} {level}{'' if n == 1 else 's'}" for level, n in counts.items())
    return "\n".join([*lines, f"{len(levels)} things looked at: {counted}"])
