"""A GPU that computes nothing: operations are traced on tensors that have shape, dtype and device, and no numbers.

Three things can be seen so without a real one: that a whole pass is on the device, that nothing in it waits for a
number (there is none to be had), and how numbers get there. It is torch's FakeTensorMode. A build of torch without CUDA
also lacks what switches devices; a C++ compiler makes one that switches nothing.
"""

import ctypes
import shutil
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing import get_context
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode

_GUARD = """
#include <c10/core/impl/DeviceGuardImplInterface.h>
using c10::DeviceType;
static c10::impl::NoOpDeviceGuardImpl<DeviceType::CUDA> guard;
extern "C" void install() {
    c10::impl::device_guard_impl_registry[static_cast<size_t>(DeviceType::CUDA)].store(&guard);
}
"""
GPU = torch.device("cuda", 0)


class Copies(TorchDispatchMode):
    """Counts how tensors get to the GPU, and those that come back."""

    def __init__(self) -> None:
        super().__init__()
        self.queued = self.waited_for = self.back = 0
        self._pinned: set[int] = set()

    def pin(self, tensor: torch.Tensor) -> torch.Tensor:
        """In the place of `Tensor.pin_memory`."""
        self._pinned.add(tensor.untyped_storage()._cdata)
        return tensor

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        source = args[0] if args and isinstance(args[0], torch.Tensor) else None
        result = func(*args, **(kwargs or {}))
        if source is not None and isinstance(result, torch.Tensor) and source.device != result.device:
            if result.device.type == "cpu":
                self.back += 1
            elif (kwargs or {}).get("non_blocking") and source.untyped_storage()._cdata in self._pinned:
                self.queued += 1
            else:
                self.waited_for += 1
        return result


@contextmanager
def traced() -> Iterator[Copies]:
    """Everything in this block is traced; what reads a number of the GPU's raises an error."""
    copies, pin = Copies(), torch.Tensor.pin_memory
    torch.Tensor.pin_memory = lambda tensor: copies.pin(tensor)  # type: ignore[method-assign, assignment]
    try:
        with FakeTensorMode(allow_non_fake_inputs=True), torch.no_grad(), copies:
            yield copies
    finally:
        torch.Tensor.pin_memory = pin  # type: ignore[method-assign]


def on_fake_gpu(function: Callable[..., Any], *arguments: Any) -> Any:
    """What a function of a module gives in a process of its own that has such a GPU."""
    if shutil.which("g++") is None:
        pytest.skip("there is no C++ compiler")
    context = get_context("forkserver")
    here, there = context.Pipe()
    process = context.Process(target=_run, args=(there, function, arguments))
    process.start()
    there.close()
    try:
        result = here.recv()
    finally:
        process.join()
    if isinstance(result, Exception):
        raise result
    return result


def _run(there: Any, function: Callable[..., Any], arguments: tuple[Any, ...]) -> None:
    try:
        _install_guard()
        there.send(function(*arguments))
    except Exception as error:
        import traceback

        there.send(AssertionError("".join(traceback.format_exception(error))))


def _install_guard() -> None:
    torch_folder = Path(torch.__file__).parent
    with TemporaryDirectory() as folder:
        library = Path(folder) / "guard.so"
        flags = ["-std=c++20", "-shared", "-fPIC", f"-I{torch_folder / 'include'}", f"-L{torch_folder / 'lib'}"]
        command = ["g++", *flags, "-x", "c++", "-", "-o", str(library), "-lc10"]
        subprocess.run(command, input=_GUARD, text=True, check=True)
        ctypes.CDLL(str(library)).install()
