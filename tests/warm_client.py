"""A command as tests/warm.py hands it out: the server's address and a module, and behind them the arguments."""

import json
import os
import signal
import socket
import sys

address, module, *arguments = sys.argv[1:]
with socket.socket(socket.AF_UNIX) as server:
    server.connect(address)
    request = {
        "client": os.getpid(),
        "module": module,
        "arguments": arguments,
        "folder": os.getcwd(),  # noqa: PTH109 - pathlib is slow to import
        "environment": dict(os.environ),
    }
    socket.send_fds(server, [json.dumps(request).encode()], [0, 1, 2])
    answers = server.makefile()
    job = int(answers.readline())
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda number, _: os.kill(job, number))
    code = int(answers.readline())
if code < 0:
    if -code != signal.SIGKILL:
        signal.signal(-code, signal.SIG_DFL)
    os.kill(os.getpid(), -code)
sys.exit(code)
