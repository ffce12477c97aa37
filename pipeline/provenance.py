"""What made a result: versions, device, revisions of the code and of the user's project, the data, the configuration.

Nothing of it names the machine, and nothing of it is part of an identity.
"""

import platform
import shlex
import subprocess
import sys
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from data.identity import document_key
from pipeline.inputs import Inputs
from pipeline.redaction import redacted
from pipeline.version import __version__
from pipeline.workers import shard_of

_PACKAGES = ("torch", "transformers", "tokenizers", "pyarrow", "polars", "numpy", "peft", "bitsandbytes")
_ROOT = Path(__file__).resolve().parent.parent


def made_by(inputs: Inputs) -> dict[str, Any]:
    """All of it, for a record."""
    origin = inputs.workspace.pairs.origin() or {}
    project = Path.cwd() if inputs.file is None else inputs.file.resolve().parent
    return {
        "command": redacted(shlex.join(["pipeline", *sys.argv[1:]])),
        "versions": {"python": platform.python_version(), "pipeline": __version__, **_versions()},
        "device": _device(),
        "revisions": {"project": revision(project), "program": revision(_ROOT) if (_ROOT / ".git").exists() else None},
        "config_digest": document_key(inputs.config.model_dump(mode="json")),
        "data": [
            {"name": redacted(source["name"]), "digest": source["digest"], "held_out": held_out}
            for source, held_out in origin.get("sources", ())
        ],
    }


@cache
def revision(folder: Path) -> dict[str, Any] | None:
    """The commit of the checkout that a folder lies in, and whether anything differs from it; None: it is in none."""
    if not any((parent / ".git").exists() for parent in (folder, *folder.parents)):
        return None
    commit = _git(folder, "rev-parse", "HEAD")
    changed = _git(folder, "status", "--porcelain")
    return None if commit is None else {"revision": commit, "dirty": None if changed is None else changed != ""}


def _git(folder: Path, *arguments: str) -> str | None:
    # Without locks, for others may work there; without the repository's own monitor, which would be run.
    command = ["git", "--no-optional-locks", "-c", "core.fsmonitor=false", "-C", str(folder), *arguments]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=10, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None


@cache
def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _versions() -> dict[str, str | None]:
    """Of the packages that were used."""
    return {package: _version(package) for package in _PACKAGES if package in sys.modules}


def _device() -> dict[str, Any] | None:
    """What worked, and how many; None where no model was loaded."""
    if "torch" not in sys.modules:
        return None
    from stages.scoring.model import device_name

    return {"name": device_name(), "processes": shard_of(None).count}
