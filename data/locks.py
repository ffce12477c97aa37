"""A lock between the processes of a machine that goes with its process, however that ends."""

import errno
import fcntl
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

_UNSUPPORTED = {errno.ENOLCK, errno.ENOTSUP, errno.ENOSYS, errno.EINVAL}  # some network file systems


@contextmanager
def only_process(path: Path, busy: Callable[[], None]) -> Iterator[None]:
    """Hold the lock file `path`; where another process holds it, `busy` is called, and then it is waited for."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            busy()
            fcntl.flock(file, fcntl.LOCK_EX)
        except OSError as error:  # then it is up to the user; what is written is whole or absent all the same
            if error.errno not in _UNSUPPORTED:
                raise
        yield
