"""What makes a run the same run again: its own random numbers, and, where asked, no operation that varies."""

import os
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from stages.scoring.generators import own_generators
from stages.scoring.model import device


@contextmanager
def reproducible(*, deterministic: bool) -> Iterator[None]:
    """Leave the caller's random numbers as they were; refuse what varies from run to run on the same device."""
    before = torch.are_deterministic_algorithms_enabled()
    if deterministic:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # cuBLAS reads it when it is first used
    with own_generators(device()):
        torch.use_deterministic_algorithms(deterministic or before)
        try:
            yield
        finally:
            torch.use_deterministic_algorithms(before)


def seed_step(seed: int, step: int) -> None:
    """Random numbers as a function of the run's seed and the step: some models draw them in eval mode, too."""
    torch.manual_seed(hash((seed, step)))
