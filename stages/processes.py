"""The processes that train one run together: as many as torchrun has started, otherwise this one alone.

Each holds all pairs of a step and scores its share. What they have to agree on is summed: every place of a table is
filled by one process and 0 in the others, so that a sum over processes is the table itself, bit for bit.
"""

import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from tempfile import TemporaryFile

import torch
import torch.distributed as dist
from torch.distributed.distributed_c10d import PrefixStore
from torch.distributed.rendezvous import rendezvous

from data.errors import EnvironmentProblem, one_line
from stages.scoring.model import device
from stages.units import Shard

BUCKET = 2**25  # numbers of a gradient that are summed at a time


@dataclass(frozen=True)
class Processes:
    """How many processes there are, and which this one is; alone, nothing here does anything."""

    rank: int = 0
    size: int = 1
    timeout_seconds: float = field(default=600.0, compare=False)
    """After which one that is silent counts as gone."""

    @property
    def is_first(self) -> bool:
        """Whether this process is the one that writes and speaks."""
        return self.rank == 0

    def add_up(self, tensor: torch.Tensor) -> torch.Tensor:
        """Replace the tensor in place by its sum over the processes."""
        if self.size > 1:
            dist.all_reduce(tensor)
        return tensor

    def total(self, value: float) -> float:
        """The sum of a number over the processes, the same in each."""
        if self.size == 1:
            return value
        return float(self.add_up(torch.tensor(value, dtype=torch.float64, device=device())))

    def from_first(self, value: float) -> float:
        """The first process's number."""
        return self.total(value if self.is_first else 0.0)

    def wait_for_all(self) -> None:
        """Go on when every process has come here."""
        self.total(0.0)

    def line_of_its_own(self) -> dist.ProcessGroup | None:
        """Another connection, for tensors in main memory: a thread's, which must not meet what is trained."""
        if self.size == 1:
            return None
        with _said_on_standard_error():
            group: dist.ProcessGroup = dist.new_group(timeout=timedelta(seconds=self.timeout_seconds), backend="gloo")
        return group

    def add_up_gradients(self, parameters: Sequence[torch.nn.Parameter]) -> None:
        """Replace the gradients by their sums over the processes; none counts as zeros."""
        if self.size == 1:
            return
        for bucket in _buckets(parameters):
            gradients = [torch.zeros_like(p) if p.grad is None else p.grad for p in bucket]
            flat = self.add_up(torch.cat([gradient.flatten() for gradient in gradients]))
            for parameter, summed in zip(bucket, torch.split(flat, [p.numel() for p in bucket]), strict=True):
                parameter.grad = summed.view_as(parameter)


ALONE = Processes()


@contextmanager
def working_together(worker: Shard, timeout_seconds: float, purpose: str) -> Iterator[Processes]:
    """Connect this worker with its like, if it has any; one that is silent for so long ends the others.

    Jobs of one chain connect anew, each under its own `purpose`: where they meet still has the addresses of the last.

    Raises:
        EnvironmentProblem: another process has ended or does not answer.
    """
    processes = Processes(worker.index, worker.count, timeout_seconds)
    if processes.size == 1:
        yield processes
        return
    where = device()
    backend = "cpu:gloo,cuda:nccl" if where.type == "cuda" else "gloo"
    with explained():
        with _said_on_standard_error():
            timeout = timedelta(seconds=timeout_seconds)
            dist.init_process_group(
                backend,
                store=_meeting_place(purpose, timeout),
                rank=processes.rank,
                world_size=processes.size,
                timeout=timeout,
                device_id=where if where.type == "cuda" else None,
            )
        yield processes
        # Not after an error: NCCL would wait here for the others, who wait for this process until it has ended.
        dist.destroy_process_group()


def _meeting_place(purpose: str, timeout: timedelta) -> PrefixStore:
    """What torchrun has for its processes to find one another."""
    store, _, _ = next(rendezvous("env://", timeout=timeout))
    store.set_timeout(timeout)
    return PrefixStore(purpose, store)


@contextmanager
def explained() -> Iterator[None]:
    """Turn a broken or silent connection into an error that says what to do."""
    try:
        yield
    except RuntimeError as error:
        if not _is_about_connections(error):
            raise
        raise EnvironmentProblem(
            "Another process of this run has ended or did not answer in time (train.ddp_timeout): "
            f"{one_line(error).rstrip('.')}. The cause stands in that process's own output, above or on its machine. "
            "The last checkpoint is kept; start all processes again to go on from there."
        ) from error


@contextmanager
def _said_on_standard_error() -> Iterator[None]:
    """Standard output is the job's document, and gloo (of torch 2.10) says there that it is connected."""
    sys.stdout.flush()
    kept = os.dup(1)
    with TemporaryFile() as said:
        os.dup2(said.fileno(), 1)
        try:
            yield
        finally:
            os.dup2(kept, 1)
            os.close(kept)
            said.seek(0)
            sys.stderr.write(said.read().decode(errors="replace"))  # whose lines may be for a collector


def _is_about_connections(error: RuntimeError) -> bool:
    text = str(error).lower()
    return isinstance(error, dist.DistError) or any(
        word in text for word in ("gloo", "nccl", "connection closed", "connection reset", "timed out", "timeout")
    )


def _buckets(parameters: Sequence[torch.nn.Parameter]) -> Iterator[list[torch.nn.Parameter]]:
    """The parameters in runs of at most about BUCKET numbers."""
    bucket: list[torch.nn.Parameter] = []
    numbers = 0
    for parameter in parameters:
        if bucket and numbers + parameter.numel() > BUCKET:
            yield bucket
            bucket, numbers = [], 0
        bucket.append(parameter)
        numbers += parameter.numel()
    if bucket:
        yield bucket
