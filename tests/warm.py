"""Commands without the seconds that importing torch takes, for tests that start them many times, or have them started.

A process forked from the server of tests/jobs.py serves them. `pipeline` in the folder that it fills is a client, for
which the server forks a process with the client's arguments, folder, environment and standard streams. That process is
the program itself; the client passes signals on to it and ends as it does, and it is killed where the client is.
`torchrun` is torch's own launcher; the processes that it starts are clients again (`--no-python pipeline`).
"""

import gc
import json
import os
import selectors
import signal
import socket
import sys
import traceback
from contextlib import suppress
from importlib import import_module
from pathlib import Path
from typing import Any

COMMANDS = {"pipeline": "pipeline.__main__", "torchrun": "torch.distributed.run", "gradients": "tests.processes"}
"""The module of each, whose `main` it calls."""
CLIENT = Path(__file__).with_name("warm_client.py")


def write_commands(folder: Path, address: Path) -> None:
    """The clients as executables in `folder`, to be found by PATH."""
    for name, module in COMMANDS.items():
        command = folder / name
        command.write_text(f'#!/bin/sh\nexec "{sys.executable}" -I -S "{CLIENT}" "{address}" {module} "$@"\n')
        command.chmod(0o755)


def process_for(client: int) -> int:
    """The number of the process that does the work of this one, to be killed or halted."""
    for folder in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            if (folder / "comm").read_text() == f"for {client}\n":
                return int(folder.name)
    raise AssertionError(f"no process for {client}")


def serve(address: str) -> None:
    """Fork a process for each client, until this one is killed."""
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(f"{address}.new")
    listener.listen(16)
    Path(f"{address}.new").rename(address)  # whoever sees it is answered
    gc.collect()
    gc.freeze()  # pages that forked processes need not copy
    with selectors.DefaultSelector() as waiting:
        waiting.register(listener, selectors.EVENT_READ)
        while True:
            for ready, _ in waiting.select()[:1]:
                if ready.fileobj is listener:
                    connection, _ = listener.accept()
                    job = start(connection)
                    both = (os.pidfd_open(job), connection)
                    for each in both:
                        waiting.register(each, selectors.EVENT_READ, (job, *both))
                    continue
                waiting.unregister(ready.fileobj)
                job, end, connection = ready.data
                if ready.fileobj is connection:  # the client was killed
                    os.kill(job, signal.SIGKILL)
                    continue
                with suppress(KeyError):
                    waiting.unregister(connection)
                finish(job, connection)
                os.close(end)


def start(connection: socket.socket) -> int:
    """Fork a process for one client's command; its id, which the client gets too."""
    message, streams, _, _ = socket.recv_fds(connection, 1 << 20, 3)
    job = os.fork()
    if job == 0:
        run(json.loads(message), streams)
    for stream in streams:
        os.close(stream)
    connection.sendall(f"{job}\n".encode())
    return job


def finish(job: int, connection: socket.socket) -> None:
    """Tell the client the exit code of a process that has ended."""
    _, status = os.waitpid(job, 0)
    with connection, suppress(BrokenPipeError):  # the client was killed
        connection.sendall(f"{os.waitstatus_to_exitcode(status)}\n".encode())


def run(request: dict[str, Any], streams: list[int]) -> None:
    """The command itself; never returns."""
    Path("/proc/self/comm").write_text(f"for {request['client']}")
    for number, stream in enumerate(streams):
        os.dup2(stream, number)
        os.close(stream)
    os.chdir(request["folder"])
    os.environ.clear()
    os.environ.update(request["environment"])
    sys.argv = [request["module"].partition(".")[0], *request["arguments"]]
    code = 1
    try:
        import_module(request["module"]).main()
        code = 0
    except SystemExit as error:
        code = error.code if isinstance(error.code, int) else int(error.code is not None)
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
