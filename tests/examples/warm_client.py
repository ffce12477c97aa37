"""`pipeline` as tests/examples/warm.py hands it out: what follows the server's address are the arguments."""

import json
import os
import signal
import socket
import sys

with socket.socket(socket.AF_UNIX) as server:
    server.connect(sys.argv[1])
    request = {"arguments": sys.argv[2:], "folder": os.getcwd(), "environment": dict(os.environ)}  # noqa: PTH109 - pathlib is slow to import
    socket.send_fds(server, [json.dumps(request).encode()], [0, 1, 2])
    answers = server.makefile()
    job = int(answers.readline())
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda number, _: os.kill(job, number))
    sys.exit(int(answers.readline()) & 0xFF)
