"""The `pipeline` command without the seconds that importing torch takes, for tests that start it many times.

A server process imports what the jobs need; `pipeline` in the folder that it fills is a client, for which the server
forks a process with the client's arguments, folder, environment and standard streams. That process is the program
itself; the client passes signals on to it and ends with its exit code.
"""

import gc
import json
import os
import selectors
import socket
import sys
from contextlib import suppress
from importlib import import_module
from pathlib import Path
from typing import Any

NEEDED = (
    "polars", "pyarrow.parquet", "jinja2", "scipy.stats", "transformers.models.llama.modeling_llama",
    "transformers.models.auto.modeling_auto", "transformers.models.auto.tokenization_auto", "pipeline.reference_job",
    "pipeline.train_job", "pipeline.eval_job", "stages.scoring.model", "stages.scoring.backends",
    "stages.training.loop", "stages.training.sharding", "stages.response_scores", "torch._dynamo",
)  # fmt: skip
CLIENT = Path(__file__).with_name("warm_client.py")


def write_command(folder: Path, address: Path) -> None:
    """The client as an executable `pipeline` in `folder`, to be found by PATH."""
    command = folder / "pipeline"
    command.write_text(f'#!/bin/sh\nexec "{sys.executable}" -I -S "{CLIENT}" "{address}" "$@"\n')
    command.chmod(0o755)


def serve(address: str) -> None:
    """Fork a process for each client, until this one is killed."""
    for name in NEEDED:
        import_module(name)
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(f"{address}.new")
    listener.listen(16)
    Path(f"{address}.new").rename(address)  # whoever sees it is answered
    gc.collect()
    gc.freeze()  # pages that forked processes need not copy
    with selectors.DefaultSelector() as waiting:
        waiting.register(listener, selectors.EVENT_READ)
        while True:
            for ready, _ in waiting.select():
                if ready.fileobj is listener:
                    connection, _ = listener.accept()
                    job = start(connection)
                    waiting.register(os.pidfd_open(job), selectors.EVENT_READ, (job, connection))
                else:
                    waiting.unregister(ready.fileobj)
                    finish(*ready.data)
                    os.close(ready.fd)


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
    for number, stream in enumerate(streams):
        os.dup2(stream, number)
    os.chdir(request["folder"])
    os.environ.clear()
    os.environ.update(request["environment"])
    sys.argv = ["pipeline", *request["arguments"]]
    code = 1
    try:
        import_module("pipeline.__main__").main()
    except SystemExit as error:
        code = error.code if isinstance(error.code, int) else int(error.code is not None)
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


if __name__ == "__main__":
    serve(sys.argv[1])
