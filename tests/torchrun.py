"""Starts Python modules as users start them on several devices: by torchrun, over gloo, on this machine."""

import os
import subprocess
import sys

from tests.tiny import ROOT


def torchrun(processes: int, module: str, *arguments: str) -> list[str]:
    """The command."""
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes)]
    return [*launcher, "--module", module, *arguments]


def start(command: list[str]) -> "subprocess.Popen[str]":
    """Begin it; what its processes say can be read."""
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def finish(process: "subprocess.Popen[str]", seconds: float = 120) -> tuple[int, str, str]:
    """Exit code, standard output and standard error."""
    out, err = process.communicate(timeout=seconds)
    return process.returncode, out, err
