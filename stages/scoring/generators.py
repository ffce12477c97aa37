"""Random numbers that are drawn aside: those of whoever drew before go on as if nothing had been."""

from contextlib import AbstractContextManager

import torch


def own_generators(where: torch.device) -> AbstractContextManager[None]:
    """Put the generators of the CPU and of this device back afterwards; the other GPUs are other processes'."""
    return torch.random.fork_rng([where] if where.type == "cuda" else [])
