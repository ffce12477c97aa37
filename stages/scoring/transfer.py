"""Between this program and a GPU, without either waiting for the other.

A plain copy to a GPU waits until everything before it is done; so planning the next batch would begin only then. Here
copies are queued behind the work, from pinned memory, and results are read when the GPU has something else to do.
"""

from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch


def on_device(
    values: np.ndarray | Sequence[Any], device: torch.device, dtype: torch.dtype | None = None
) -> torch.Tensor:
    """Numbers as a tensor on the device; on a GPU they arrive before whatever is asked of it next."""
    tensor = torch.as_tensor(values, dtype=dtype)
    if device.type == "cuda":
        # The allocator of pinned memory keeps it until the copy is over.
        return tensor.pin_memory().to(device, non_blocking=True)
    return tensor.to(device)


class ReadBehind:
    """Reads tables from a device `depth` tables late, in their order, so that the device always has work."""

    def __init__(self, depth: int) -> None:
        self._depth = depth
        self._asked: deque[tuple[torch.Tensor, Any, Callable[[np.ndarray], None]]] = deque()

    @property
    def is_idle(self) -> bool:
        """Whether everything has been read."""
        return not self._asked

    def read(self, table: torch.Tensor, then: Callable[[np.ndarray], None]) -> None:
        """Hand the table to `then`, once `depth` others have been asked for; those from before are handed over first.

        On an error of `then` the tables behind it stay, to be read by the next call.
        """
        copy, copied = table.to("cpu", non_blocking=True), None
        if table.is_cuda:
            copied = torch.cuda.Event()  # type: ignore[no-untyped-call]
            copied.record()
        self._asked.append((copy, copied, then))
        self._finish(self._depth)

    def finish(self) -> None:
        """Read what is left."""
        self._finish(0)

    def _finish(self, leave: int) -> None:
        while len(self._asked) > leave:
            copy, copied, then = self._asked.popleft()
            if copied is not None:
                copied.synchronize()
            then(copy.numpy())
