"""The revision of a checkout, as git tells it."""

import subprocess
from functools import cache
from pathlib import Path
from typing import NamedTuple

PROGRAM = Path(__file__).resolve().parent.parent
"""Where this program lies, which may be a checkout."""


class Revision(NamedTuple):
    """A commit, and whether anything differs from it (None: that cannot be told)."""

    revision: str
    dirty: bool | None

    def __str__(self) -> str:
        """For people."""
        return f"{self.revision[:10]}{', with changes' if self.dirty else ''}"


def own_revision() -> Revision | None:
    """Of this program; None where it is installed, though that may be into a folder of somebody's checkout."""
    return revision(PROGRAM) if (PROGRAM / ".git").exists() else None


@cache
def revision(folder: Path) -> Revision | None:
    """Of the checkout that a folder lies in; None where it lies in none, or there is no git."""
    if not any((parent / ".git").exists() for parent in (folder, *folder.parents)):
        return None
    commit = _git(folder, "rev-parse", "HEAD")
    changed = _git(folder, "status", "--porcelain")
    return None if commit is None else Revision(commit, None if changed is None else changed != "")


def _git(folder: Path, *arguments: str) -> str | None:
    # Without locks, for others may work there; without the repository's own monitor, which would be run.
    command = ["git", "--no-optional-locks", "-c", "core.fsmonitor=false", "-C", str(folder), *arguments]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=10, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None
