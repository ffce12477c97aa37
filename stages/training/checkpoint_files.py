"""The tensors of a checkpoint on disk: safetensors, whole or in shards, read back into any number of processes.

One process writes state.safetensors. Where a model is sharded every process writes what it holds, through torch's
distributed checkpoint, whose Hugging Face writer makes safetensors. Either can be read into either.
"""

import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from safetensors.torch import save_file
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.hf_storage import HuggingFaceStorageReader, HuggingFaceStorageWriter
from torch.distributed.checkpoint.state_dict_loader import load
from torch.distributed.checkpoint.state_dict_saver import save
from torch.distributed.tensor import DTensor


def is_sharded(tensors: Mapping[str, torch.Tensor]) -> bool:
    """Whether this process holds parts of the tensors only."""
    return any(isinstance(tensor, DTensor) for tensor in tensors.values())


def on_cpu(tensors: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Copies that training cannot change any more, in main memory."""
    return {name: tensor.detach().to("cpu", copy=True) for name, tensor in tensors.items()}


def write_tensors(folder: Path, tensors: dict[str, torch.Tensor]) -> None:
    """Write whole tensors."""
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, folder / "state.safetensors")


def write_shards(folder: Path, tensors: dict[str, torch.Tensor], group: dist.ProcessGroup) -> None:
    """Write this process's parts; returns in the first process when all have been written."""
    if torch.__version__ < "2.11":  # compared as versions are; torch 2.10 asks for these storages itself
        warnings.filterwarnings("ignore", "TypedStorage is deprecated", UserWarning)
    with _of_its_own_kind():
        save(tensors, storage_writer=HuggingFaceStorageWriter(str(folder), save_distributed=True), process_group=group)


def read_tensors(folder: Path, masters: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """All tensors; those that belong to a sharded master (KEY.NAME, of its shape) as it is sharded, others whole."""
    targets: dict[str, Any] = {}
    stored = HuggingFaceStorageReader(str(folder)).read_metadata().state_dict_metadata
    for name, about in stored.items():
        master = masters.get(name.partition(".")[2])
        if isinstance(master, DTensor) and master.shape == about.size:  # type: ignore[union-attr]
            targets[name] = torch.zeros_like(master, dtype=about.properties.dtype)  # type: ignore[union-attr]
        else:
            targets[name] = torch.zeros(about.size, dtype=about.properties.dtype)  # type: ignore[union-attr]
    with (
        _of_its_own_kind(),
        warnings.catch_warnings(action="ignore", category=UserWarning),
    ):  # that no process is asked: each reads its own
        load(targets, storage_reader=HuggingFaceStorageReader(str(folder)), no_dist=True)
    return targets


@contextmanager
def _of_its_own_kind() -> Iterator[None]:
    """What went wrong in a process, as it was raised there; torch raises what is not even an Exception."""
    try:
        yield
    except CheckpointException as error:
        raise next(cause for cause, _ in error.failures.values()) from error
