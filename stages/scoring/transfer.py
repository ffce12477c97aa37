"""Between this program and a GPU, without either waiting for the other.

A plain copy to a GPU waits until everything before it is done; so planning the next batch would begin only then. Here
copies are queued behind the work, from pinned memory, and results are read when the GPU has something else to do.
"""

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
    """Hands over tables of a device in their order: if `behind`, each when the next one has been asked for.

    So a device that works by itself always has work. One that computes a table when it is asked for it is read at once.
    """

    def __init__(self, *, behind: bool) -> None:
        self._behind = behind
        self._asked: tuple[torch.Tensor, Any, Callable[[np.ndarray], None]] | None = None

    @property
    def is_idle(self) -> bool:
        """Whether everything has been handed over."""
        return self._asked is None

    def read(self, table: torch.Tensor, then: Callable[[np.ndarray], None]) -> None:
        """Give `then` the table, now or later; the one before it is handed over first."""
        copy, copied = table.to("cpu", non_blocking=True), None
        if table.is_cuda:
            copied = torch.cuda.Event()  # type: ignore[no-untyped-call]
            copied.record()
        before, self._asked = self._asked, (copy, copied, then)
        _hand_over(before)
        if not self._behind:
            self.finish()

    def finish(self) -> None:
        """Hand over what is left."""
        last, self._asked = self._asked, None
        _hand_over(last)


def _hand_over(asked: tuple[torch.Tensor, Any, Callable[[np.ndarray], None]] | None) -> None:
    if asked is None:
        return
    copy, copied, then = asked
    if copied is not None:
        copied.synchronize()
    then(copy.numpy())
