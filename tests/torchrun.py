"""Starts commands as users start them on several devices: by torchrun, over gloo, on this machine."""

import os
import subprocess
from pathlib import Path


def start(commands: Path, processes: int, *command: str) -> "subprocess.Popen[str]":
    """Begin so many of a command of tests/warm.py; what they say can be read."""
    launcher = [commands / "torchrun", "--standalone", "--nproc-per-node", str(processes), "--no-python", *command]
    environment = os.environ | {"PATH": f"{commands}:{os.environ['PATH']}"}
    return subprocess.Popen(launcher, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def finish(process: "subprocess.Popen[str]", seconds: float = 120) -> tuple[int, str, str]:
    """Exit code, standard output and standard error."""
    out, err = process.communicate(timeout=seconds)
    return process.returncode, out, err
