"""What made a result: versions, device, revisions of the code and of the user's project, the data, the configuration.

Nothing of it names the machine, and nothing of it is part of an identity.
"""

import platform
import shlex
import sys
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from data.identity import document_key
from pipeline.inputs import Inputs
from pipeline.redaction import redacted
from pipeline.revision import Revision, own_revision, revision
from pipeline.version import __version__
from pipeline.workers import shard_of

_PACKAGES = ("torch", "transformers", "tokenizers", "pyarrow", "polars", "numpy", "peft", "bitsandbytes")


def made_by(inputs: Inputs) -> dict[str, Any]:
    """All of it, for a record."""
    origin = inputs.workspace.pairs.origin() or {}
    project = Path.cwd() if inputs.file is None else inputs.file.resolve().parent
    return {
        "command": redacted(shlex.join(["pipeline", *sys.argv[1:]])),
        "versions": {"python": platform.python_version(), "pipeline": __version__, **_versions()},
        "device": _device(),
        "revisions": {"project": _fields(revision(project)), "program": _fields(own_revision())},
        "config_digest": document_key(inputs.config.model_dump(mode="json")),
        "data": [
            {"name": redacted(source["name"]), "digest": source["digest"], "held_out": held_out}
            for source, held_out in origin.get("sources", ())
        ],
    }


def _fields(found: Revision | None) -> dict[str, Any] | None:
    return None if found is None else found._asdict()


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
