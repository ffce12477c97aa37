"""The file that the GPU benchmark measures into: what stands there is not measured again.

A result counts for as long as the device and the packages that made it are the same; of ours also the code.
"""

import hashlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pipeline  # noqa: F401 - finds our packages
from data.durable import write_json
from gpu_plan import Cell

ROOT = Path(__file__).resolve().parent.parent
PROGRAM = Path(__file__).with_name("gpu_cell.py")
QUIET = {"HF_HUB_OFFLINE": "1", "TQDM_DISABLE": "1", "TOKENIZERS_PARALLELISM": "false"}
EVERYBODY = ("device", "python", "torch", "transformers", "triton")
OWN = {"ours": ("bitsandbytes",), "trl": ("trl", "accelerate", "bitsandbytes"), "vllm": ("vllm",)}


class Record:
    """The file, read once and written after each cell."""

    def __init__(self, path: Path | None, facts: dict[str, str]) -> None:
        self._path = path
        self._facts = facts
        self._digest = code_digest()
        self.document: dict[str, Any] = {"cells": [], "checks": None}
        if path is not None and path.exists():
            self.document |= json.loads(path.read_bytes())

    def made_by(self, cell: Cell) -> dict[str, str]:
        """Device and versions that a result of this cell depends on."""
        who = cell.contender.partition("-")[0]
        made = {name: self._facts[name] for name in (*EVERYBODY, *OWN[who]) if name in self._facts}
        return made | ({"code": self._digest} if who == "ours" else {})

    def has(self, cell: Cell) -> bool:
        """Whether this cell has been measured, or has failed, just so."""
        wanted = {"cell": cell.key(), "made_by": self.made_by(cell)}
        return any(wanted.items() <= entry.items() for entry in self.document["cells"])

    def add(self, cell: Cell, report: dict[str, Any]) -> None:
        """In place of what the same cell came to before."""
        others = [entry for entry in self.document["cells"] if entry["cell"] != cell.key()]
        entry = {"cell": cell.key(), "made_by": self.made_by(cell), **report}
        self.document["cells"] = [*others, entry]
        self._write()

    def add_checks(self, checks: list[dict[str, Any]]) -> None:
        """Of correctness on this device."""
        made = {name: self._facts[name] for name in EVERYBODY if name in self._facts}
        self.document["checks"] = {"made_by": made | {"code": self._digest}, "rows": checks}
        self._write()

    def _write(self) -> None:
        if self._path is not None:
            write_json(self._path, self.document)


def code_digest() -> str:
    """Of what is measured: the packages `stages` and `data`."""
    digest = hashlib.sha256()
    for path in sorted([*ROOT.glob("stages/**/*.py"), *ROOT.glob("data/**/*.py")]):
        digest.update(f"{path.relative_to(ROOT)}\n".encode() + path.read_bytes())
    return digest.hexdigest()[:16]


def run_cell(cell: Cell, seconds: float) -> dict[str, Any]:
    """Measure a cell in a process of its own, which is ended after so many seconds; its report, or its `error`."""
    arguments = [json.dumps(asdict(cell)), str(time.time())]
    code, out, log = run_program([str(PROGRAM), *arguments], cell.device, min(seconds, cell.limit))
    if code is None:
        return {"error": f"took longer than {min(seconds, cell.limit):.0f} s"}
    try:
        report: dict[str, Any] = json.loads(out.splitlines()[-1])
    except (IndexError, ValueError):
        last = [line.strip() for line in log.splitlines() if line.strip()][-1:]
        return {"error": f"exit code {code}: {' '.join(last)[:300]}"}
    return report


def run_program(arguments: list[str], device: str, seconds: float) -> tuple[int | None, str, str]:
    """Exit code (None: it was ended), output and log of a Python program; with it go all that it started."""
    environment = os.environ | QUIET | ({"CUDA_VISIBLE_DEVICES": ""} if device == "cpu" else {})
    with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as log:
        command = [sys.executable, *arguments]
        with subprocess.Popen(command, stdout=out, stderr=log, env=environment, start_new_session=True) as child:
            try:
                code: int | None = child.wait(seconds)
            except subprocess.TimeoutExpired:
                code = None
            finally:
                _end(child)
        out.seek(0)
        log.seek(0)
        return code, out.read(), log.read()


def _end(child: "subprocess.Popen[bytes]") -> None:
    try:
        os.killpg(child.pid, signal.SIGKILL)
    except ProcessLookupError:
        return


def read_facts(device: str) -> dict[str, str]:
    """Device and versions as a cell's process will see them; this process never touches the GPU."""
    code, out, log = run_program([str(PROGRAM), "--facts"], device, 120)
    if code != 0:
        raise SystemExit(log or "The device did not answer.")
    facts: dict[str, str] = json.loads(out.splitlines()[-1])
    return facts
