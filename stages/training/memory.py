"""Peak memory of this process."""

import resource
import sys

import torch


def peak_memory_bytes() -> int:
    """Most bytes in use at a time: on the GPU where there is one, otherwise resident in main memory."""
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
