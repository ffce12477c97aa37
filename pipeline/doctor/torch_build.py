"""What torch was built for, and the devices that it sees. The one place here where it is imported."""

import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from data.errors import one_line
from pipeline.doctor.findings import Finding, ok, problem, warning
from pipeline.doctor.machine import gib

_CHOOSE = "install the build for this machine: https://pytorch.org/get-started/locally"
_KERNEL_MODULE = Path("/proc/driver/nvidia/version")


def import_torch() -> Any:
    """The package, or the error that it ends with, which is never only an ImportError: libraries may be missing."""
    try:
        import torch
    except Exception as error:  # a broken library raises what it likes
        return error
    return torch


def torch_findings(torch: Any, driver: str | None) -> Iterator[Finding]:
    """Of what `import_torch` gave. `driver` is the version of NVIDIA's, None where there is none."""
    if isinstance(torch, BaseException):
        yield problem(
            "torch build", f"cannot be imported: {one_line(torch)}", f"pip install --force-reinstall torch; {_CHOOSE}"
        )
        return
    cuda, rocm = torch.version.cuda, torch.version.hip
    build = f"{torch.__version__}, " + (f"CUDA {cuda}" if cuda else f"ROCm {rocm}" if rocm else "CPU build")
    if torch.cuda.is_available():
        yield ok("torch build", f"{build}, driver {driver or 'unknown'}")
        for i in range(torch.cuda.device_count()):
            yield _device(torch, i)
    elif driver is None:
        yield ok("torch build", f"{build}; no GPU here, jobs run on the CPU")
    elif cuda is None:
        yield warning(
            "torch build", f"{build}, and this machine has an NVIDIA driver ({driver}): its GPU stays unused", _CHOOSE
        )
    else:
        yield warning(
            "torch build",
            f"{build}, driver {driver}, and no GPU is seen: jobs run on the CPU",
            "see whether nvidia-smi lists one, whether CUDA_VISIBLE_DEVICES hides it, and whether the driver is new "
            "enough for this build",
        )


def device_memory(torch: Any) -> int | None:
    """Bytes of the smallest GPU; None where there is none."""
    if isinstance(torch, BaseException) or not torch.cuda.is_available():
        return None
    return min(int(torch.cuda.get_device_properties(i).total_memory) for i in range(torch.cuda.device_count()))


def nvidia_driver() -> str | None:
    """The version of NVIDIA's driver; None where there is none."""
    if (program := shutil.which("nvidia-smi")) is not None:
        command = [program, "--query-gpu=driver_version", "--format=csv,noheader"]
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
        except (OSError, subprocess.TimeoutExpired):
            return None
        if done.returncode == 0 and done.stdout.strip():
            return done.stdout.split()[0]
    return "loaded" if _KERNEL_MODULE.is_file() else None


def _device(torch: Any, i: int) -> Finding:
    properties = torch.cuda.get_device_properties(i)
    what = f"{properties.name}, {gib(properties.total_memory)}"
    if properties.major >= 8 or torch.version.hip:  # bf16 came with compute capability 8.0
        return ok(f"cuda:{i}", f"{what}, has bf16")
    return warning(f"cuda:{i}", f"{what}, has no bf16 arithmetic", "set reference.dtype: float32")
