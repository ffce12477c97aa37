"""Checkpoints: complete or invisible, checked before they are believed, safetensors and JSON only.

checkpoints/step-00000120/*.safetensors       masters and optimiser state
checkpoints/step-00000120/checkpoint.json     step, run identity, digests of the tensors, where training stood

They are written in the background: training goes on from the moment that the tensors are copied.
"""

import json
import logging
import shutil
from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

from data.durable import TEMPORARY_PREFIX, write_folder
from data.errors import StoreError
from data.identity import file_digest
from stages.processes import ALONE, Processes
from stages.training.checkpoint_files import is_sharded, on_cpu, read_tensors, write_shards, write_tensors

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Checkpoint:
    """A verified checkpoint. `step` optimiser steps are behind it; `state` is where training stood then."""

    folder: Path
    step: int
    state: dict[str, Any]

    def tensors(self, masters: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """The optimiser's state, each tensor sharded as the master that it belongs to, or whole and on the CPU."""
        return read_tensors(self.folder, masters)


class Checkpoints:
    """The checkpoints of one run, of which the newest `keep` stay, and the best."""

    def __init__(self, folder: Path, identity: str, keep: int = 1, processes: Processes = ALONE) -> None:
        self._folder = folder
        self._identity = identity
        self._keep = keep
        self._processes = processes
        self._writer = ThreadPoolExecutor(1, "checkpoint")
        self._writing: Future[None] | None = None
        self._group: Any = processes.line_of_its_own()

    def save(self, tensors: Mapping[str, torch.Tensor], step: int, state: dict[str, Any], best: int | None) -> None:
        """Begin to write `step-N`; older ones go once it is durable, and not before. `best` is a step to keep.

        Raises:
            EnvironmentProblem: the one before could not be written; those before it are still there.
        """
        self.wait()
        document = {"step": step, "identity": self._identity, "state": state}
        if is_sharded(tensors):
            write = partial(self._write_sharded, on_cpu(tensors), document)
        elif self._processes.is_first:
            write = partial(self._write, on_cpu(tensors), document)
        else:
            return
        self._writing = self._writer.submit(self._replace_older, write, step, best)

    def wait(self) -> None:
        """Until what is being written is durable.

        Raises:
            EnvironmentProblem: it could not be written.
        """
        writing, self._writing = self._writing, None
        if writing is not None:
            writing.result()

    def check(self) -> None:
        """Raise what `wait` would, if it is known already."""
        if self._writing is not None and self._writing.done():
            self.wait()

    def close(self) -> None:
        """Whatever the end: what is being written is finished, if it can be, and no thread is left."""
        self._writer.shutdown()

    def newest(self) -> Checkpoint | None:
        """The newest checkpoint that verifies, None where there is none at all; damaged ones are passed over, loudly.

        Raises:
            StoreError: there are some, and none verifies.
        """
        step = -1
        if self._processes.is_first:
            step = self._newest_verified()
        step = int(self._processes.from_first(step))
        return None if step < 0 else self._open(step)

    def at(self, step: int) -> Checkpoint:
        """The checkpoint of this step.

        Raises:
            StoreError: it does not verify.
        """
        if (problem := _problem(self._path(step), self._identity)) is not None:
            raise StoreError(
                f"The checkpoint {self._path(step)}, the best of this run, cannot be used: {problem}. Restore it, or "
                "delete the folder of checkpoints to train from the beginning."
            )
        return self._open(step)

    def sweep(self) -> None:
        """Remove what killed processes left half written; only whoever holds the run's folder may."""
        for path in self._folder.glob(f"{TEMPORARY_PREFIX}*"):
            shutil.rmtree(path, ignore_errors=True)

    def _path(self, step: int) -> Path:
        return self._folder / f"step-{step:08d}"

    def _open(self, step: int) -> Checkpoint:
        document = json.loads((self._path(step) / "checkpoint.json").read_bytes())
        return Checkpoint(self._path(step), step, document["state"])

    def _newest_verified(self) -> int:
        """Its step, -1 where there is no checkpoint at all."""
        problems = []
        for path in sorted(self._folder.glob("step-*"), reverse=True):
            problem = _problem(path, self._identity)
            if problem is None:
                return int(path.name.removeprefix("step-"))
            problems.append(f"{path.name}: {problem}")
            logger.warning("checkpoint %s is passed over: %s", path, problem)
        if problems:
            raise StoreError(
                f"None of the checkpoints in {self._folder} can be used ({'; '.join(problems)}). Nothing was trained "
                "and nothing was removed. Restore one of them, or delete that folder to train from the beginning."
            )
        return -1

    def _write(self, tensors: dict[str, torch.Tensor], document: dict[str, Any]) -> None:
        def fill(temporary: Path) -> None:
            write_tensors(temporary, tensors)
            _write_document(temporary, document)

        write_folder(self._path(document["step"]), fill)

    def _write_sharded(self, tensors: dict[str, torch.Tensor], document: dict[str, Any]) -> None:
        """All processes write into one folder, which the first one makes and finishes."""

        def fill(temporary: Path) -> None:
            _tell(temporary.name, self._group)
            write_shards(temporary, tensors, self._group)
            _write_document(temporary, document)

        if self._processes.is_first:
            write_folder(self._path(document["step"]), fill)
        else:
            write_shards(self._folder / _told(self._group), tensors, self._group)

    def _replace_older(self, write: Any, step: int, best: int | None) -> None:
        write()
        if not self._processes.is_first:
            return
        steps = sorted(self._folder.glob("step-*"), reverse=True)
        kept = [path for path in steps if path <= self._path(step)][: self._keep]  # later ones were passed over
        for path in steps:
            if path not in kept and path != self._path(step if best is None else best):
                shutil.rmtree(path)


def _write_document(folder: Path, document: dict[str, Any]) -> None:
    digests = {path.name: file_digest(path) for path in sorted(folder.glob("*.safetensors"))}
    text = json.dumps({**document, "sha256": digests}, indent=2, allow_nan=False)
    (folder / "checkpoint.json").write_text(text + "\n", encoding="utf-8")


def _problem(path: Path, identity: str) -> str | None:
    """What is wrong with a checkpoint; None: nothing."""
    try:
        document = json.loads((path / "checkpoint.json").read_bytes())
        if document["identity"] != identity:
            return "another run's"
        for name, digest in document["sha256"].items():
            if file_digest(path / name) != digest:
                return f"{name} is damaged"
        known = document["sha256"].keys() == {file.name for file in path.glob("*.safetensors")}
        return None if known and document["sha256"] and "state" in document else "checkpoint.json is damaged"
    except FileNotFoundError as error:
        return f"{Path(error.filename).name} is missing"
    except (OSError, ValueError, KeyError, AttributeError, TypeError):
        return "checkpoint.json is damaged"


_NAME_BYTES = 256


def _tell(name: str, group: dist.ProcessGroup) -> None:
    """Tell the other processes the name of a folder."""
    dist.broadcast(torch.tensor(list(name.encode().ljust(_NAME_BYTES)), dtype=torch.uint8), src=0, group=group)


def _told(group: dist.ProcessGroup) -> str:
    name = torch.zeros(_NAME_BYTES, dtype=torch.uint8)
    dist.broadcast(name, src=0, group=group)
    return bytes(name.tolist()).decode().rstrip()
