"""Checkpoints: complete or invisible, checked before they are believed, safetensors and JSON only.

checkpoints/step-00000120/state.safetensors   masters and optimiser state
checkpoints/step-00000120/checkpoint.json     step, run identity, digest of the tensors
"""

import json
import logging
import shutil
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

from data.durable import write_folder
from data.identity import file_digest

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Checkpoint:
    """A verified checkpoint. `step` optimiser steps are behind it; `tokens` were read until then."""

    folder: Path
    step: int
    tokens: int

    def tensors(self) -> dict[str, torch.Tensor]:
        """The optimiser's state, on the CPU."""
        return dict(load_file(self.folder / "state.safetensors"))


def save_checkpoint(folder: Path, tensors: dict[str, torch.Tensor], step: int, tokens: int, identity: str) -> None:
    """Write `folder/step-N`; older checkpoints go once it is durable, and not before.

    Raises:
        EnvironmentProblem: it cannot be written; the previous checkpoint is still there.
    """

    def fill(temporary: Path) -> None:
        state = temporary / "state.safetensors"
        save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, state)
        document = {"step": step, "tokens": tokens, "identity": identity, "sha256": file_digest(state)}
        (temporary / "checkpoint.json").write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")

    path = folder / f"step-{step:08d}"
    write_folder(path, fill)
    for older in folder.glob("step-*"):
        if older != path:
            shutil.rmtree(older)


def newest_checkpoint(folder: Path, identity: str) -> Checkpoint | None:
    """The newest checkpoint that verifies and belongs to the run `identity`; damaged ones are passed over, loudly."""
    for path in sorted(folder.glob("step-*"), reverse=True):
        try:
            document = json.loads((path / "checkpoint.json").read_bytes())
            damaged = file_digest(path / "state.safetensors") != document["sha256"]
            if not damaged and document["identity"] == identity:
                return Checkpoint(path, int(document["step"]), int(document["tokens"]))
        except (OSError, ValueError, KeyError):
            damaged = True
        logger.warning("%s is %s and is passed over", path, "damaged" if damaged else "another run's")
    return None
