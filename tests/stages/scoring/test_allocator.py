"""Memory that is freed stays with the process: seen from outside, by the page faults of a process of its own."""

import subprocess
import sys

import pytest

from tests.tiny import ROOT

FAULTS = """
import ctypes, resource, sys
from stages.scoring.allocator import keep_freed_memory

malloc, free, memset = (getattr(ctypes.CDLL(None), name) for name in ("malloc", "free", "memset"))
malloc.restype = ctypes.c_void_p
if sys.argv[1] == "keep":
    keep_freed_memory()
for size in (2**28, 2**27):  # too much for glibc to keep by itself
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    block = ctypes.c_void_p(malloc(ctypes.c_size_t(size)))
    memset(block, 1, ctypes.c_size_t(size))
    free(block)
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def faults(way):
    """Page faults of filling a large block after a larger one was filled and freed."""
    run = subprocess.run([sys.executable, "-c", FAULTS, way], capture_output=True, text=True, check=True, cwd=ROOT)
    return int(run.stdout)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="glibc's malloc")
def test_a_block_that_was_freed_is_there_again():
    assert 4 * faults("keep") < faults("as it is")
