"""Peak memory of this process.

On a GPU of training alone; on a CPU of the process since it began, because resident memory has no other mark. There
training is what takes most.
"""

import logging
import resource
import sys

import torch

from stages.training.memory_estimate import MemoryEstimate

logger = logging.getLogger(__name__)


def reset_peak_memory() -> None:
    """Count from now on, where that can be done: another job of this process may have taken more."""
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()


def peak_memory_bytes() -> int:
    """Most bytes in use at a time: on the GPU where there is one, otherwise resident in main memory."""
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def log_peak_memory(estimate: MemoryEstimate | None) -> None:
    """One line at the end of training: what it took, beside what was foreseen."""
    foreseen = "" if estimate is None else f" (estimated {estimate.total / 1e9:.2f} GB)"
    logger.info("peak memory %.2f GB%s", peak_memory_bytes() / 1e9, foreseen)
