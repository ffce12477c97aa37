"""Keeps freed memory in the process: on Linux, glibc gives large blocks back at once and gets them anew a moment later.

Each return trip is a page fault for every 4 KiB. Blocks below 32 MiB it learns to keep by itself; the gradient of a
vocabulary, or the logits of a pack, are larger.
"""

import ctypes
import sys

_M_TRIM_THRESHOLD, _M_MMAP_MAX = -1, -4  # <malloc.h>


def keep_freed_memory() -> None:
    """From now on; does nothing where the C library has no `mallopt`."""
    if not sys.platform.startswith("linux"):
        return
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_M_MMAP_MAX, 0)
        mallopt(_M_TRIM_THRESHOLD, -1)
