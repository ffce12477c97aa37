"""Files that are complete or absent: written under a temporary name, fsynced, renamed, the folder fsynced.

Temporary names start with `.tmp-`; every reader of a folder ignores them. They say whose they are, so that what a
dead process left can be told from what a living one is writing.
"""

import errno
import hashlib
import json
import os
import shutil
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import Any, BinaryIO
from uuid import uuid4

from data.errors import EnvironmentProblem

TEMPORARY_PREFIX = ".tmp-"
ABANDONED_SECONDS = 24 * 3600.0  # after which a temporary file of another machine is nobody's
_ENVIRONMENT_ERRNOS = {
    errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES, errno.EPERM, errno.ENOTDIR, errno.EEXIST,
}  # fmt: skip


def write_bytes(path: Path, content: bytes) -> None:
    """Replace `path` by `content`, atomically and durably."""
    with replacing(path) as file:
        file.write(content)


@contextmanager
def replacing(path: Path) -> Iterator[BinaryIO]:
    """A file to write to, which takes the place of `path` once it is whole and durable; never if the block raises."""
    with writing_to(path.parent):
        temporary = temporary_beside(path)
        try:
            with temporary.open("wb") as file:
                yield file
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)
        fsync_folder(path.parent)


def write_json(path: Path, document: Any) -> None:
    """Replace `path` by indented JSON with sorted keys: the same document gives the same bytes."""
    text = json.dumps(document, indent=2, sort_keys=True, ensure_ascii=False, allow_nan=False)
    write_bytes(path, (text + "\n").encode())


def write_folder(path: Path, fill: Callable[[Path], None]) -> None:
    """Make the folder `path` out of what `fill` writes into it; it appears complete, or not at all."""
    with writing_to(path.parent):
        temporary = temporary_beside(path)
        temporary.mkdir()
        try:
            fill(temporary)
            mode = _usual_mode(temporary)
            for file in sorted(temporary.rglob("*")):
                if file.is_file():  # safetensors keeps its files to their owner; a policy is for whoever evaluates it
                    file.chmod(mode)
                _fsync_path(file)
            _fsync_path(temporary)
            if path.exists():
                replaced = temporary_beside(path)
                path.rename(replaced)
                temporary.rename(path)
                shutil.rmtree(replaced)
            else:
                temporary.rename(path)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
        fsync_folder(path.parent)


def replace_link(link: Path, target: Path) -> None:
    """Point the symbolic link `link` at `target` (relative to the link's folder), atomically."""
    with writing_to(link.parent):
        temporary = temporary_beside(link)
        temporary.symlink_to(os.path.relpath(target, link.parent))
        temporary.replace(link)
        fsync_folder(link.parent)


@contextmanager
def writing_to(folder: Path) -> Iterator[None]:
    """Create `folder`; turn a full disk or a read-only folder into an error that says so."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        yield
    except OSError as error:
        if error.errno not in _ENVIRONMENT_ERRNOS:
            raise
        free = shutil.disk_usage(_nearest_existing(folder)).free
        raise EnvironmentProblem(
            f"Cannot write to {folder}: {error.strerror} ({free:,} bytes are free there). Nothing incomplete was left "
            "behind. Free some space or make the folder writable, or point `workdir` elsewhere, and run the same "
            "command again."
        ) from error


def temporary_beside(path: Path) -> Path:
    """A fresh temporary name in the folder of `path`: machine, process, and something that nobody else has."""
    return path.parent / f"{TEMPORARY_PREFIX}{_machine()}-{os.getpid()}-{uuid4().hex}"


def sweep_temporaries(folder: Path) -> list[Path]:
    """Remove the temporary files in `folder` whose process is gone, or which are a day old; returns them."""
    found = [path for path in sorted(folder.glob(f"{TEMPORARY_PREFIX}*")) if not path.is_dir()]
    swept = [path for path in found if _is_abandoned(path)]
    for path in swept:
        path.unlink(missing_ok=True)
    return swept


def _is_abandoned(path: Path) -> bool:
    machine, _, process = path.name.removeprefix(TEMPORARY_PREFIX).rpartition("-")[0].partition("-")
    if machine == _machine() and process.isdigit() and not _is_running(int(process)):
        return True
    try:
        return time.time() - path.stat().st_mtime > ABANDONED_SECONDS
    except FileNotFoundError:
        return False


def _is_running(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True


@cache
def _machine() -> str:
    """Where process numbers mean what they mean here: host, boot, and (in containers) name space."""
    parts = [socket.gethostname()]
    with suppress(OSError):
        parts.append(Path("/proc/sys/kernel/random/boot_id").read_text())
    with suppress(OSError):
        parts.append(str(Path("/proc/self/ns/pid").readlink()))
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:12]


def fsync_folder(folder: Path) -> None:
    """Make the names in `folder` durable."""
    _fsync_path(folder)


def _fsync_path(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _usual_mode(folder: Path) -> int:
    """The permissions that a new file gets here."""
    probe = temporary_beside(folder / "probe")
    probe.touch()
    mode = probe.stat().st_mode & 0o777
    probe.unlink()
    return mode


def _nearest_existing(folder: Path) -> Path:
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    return folder
