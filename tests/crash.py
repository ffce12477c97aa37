"""A file system that stops for good after so many operations, as it looks after a SIGKILL or a power cut."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest.mock import patch


class Stopped(BaseException):
    """Nothing reaches the disk any more, whatever a `finally` still tries."""


class Disk:
    """Counts what changes the disk, and stops after `limit` operations; the last write is torn in half."""

    def __init__(self, limit: int | None) -> None:
        self.limit, self.done = limit, 0

    def step(self) -> None:
        """Before an operation: count it, or stop."""
        if self.limit is not None and self.done >= self.limit:
            raise Stopped
        self.done += 1


@contextmanager
def stopping_disk(limit: int | None) -> Iterator[Disk]:
    """Inside, the operation number `limit` is the last that reaches the disk; none: all do, and are counted."""
    disk = Disk(limit)

    def counted(real: Any) -> Any:
        def operation(*arguments: Any, **keywords: Any) -> Any:
            disk.step()
            return real(*arguments, **keywords)

        return operation

    real_open = Path.open

    def opened(path: Path, mode: str = "r", *arguments: Any, **keywords: Any) -> Any:
        file = real_open(path, mode, *arguments, **keywords)
        return _Torn(file, disk) if "w" in mode and "b" in mode else file

    names = ("mkdir", "replace", "rename", "unlink", "rmdir", "symlink_to")
    patches = [patch.object(Path, name, counted(getattr(Path, name))) for name in names]
    patches += [patch.object(os, "fsync", counted(os.fsync)), patch.object(Path, "open", opened)]
    for each in patches:
        each.start()
    try:
        yield disk
    finally:
        for each in patches:
            each.stop()


class _Torn:
    """A file of which the last write before the end arrives in half."""

    def __init__(self, file: Any, disk: Disk) -> None:
        self._file, self._disk = file, disk

    def __enter__(self) -> "_Torn":
        return self

    def __exit__(self, *_: Any) -> None:
        self._file.close()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)

    def write(self, content: Any) -> int:
        try:
            self._disk.step()
        except Stopped:
            self._file.write(content[: len(content) // 2])
            raise
        return int(self._file.write(content))
