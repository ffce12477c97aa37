"""Jobs and commands in processes of their own, forked from one that has imported everything and done nothing.

A fresh interpreter takes three seconds to import torch. What a command does before it is imported, and whether it is,
is seen only there: `Work.command(..., fresh=True)`.
"""

import multiprocessing
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

from pipeline.__main__ import main
from pipeline.chain import Options, run_job_document
from tests.tiny import Work

_IMPORTED = (
    "matplotlib.backends.backend_svg", "matplotlib.figure", "pandas", "peft", "pipeline.chain",
    "pipeline.cli", "pipeline.report.write", "polars", "pyarrow.dataset", "pyarrow.pandas_compat", "scipy.stats",
    "stages.precompute_ref", "stages.response_scores", "stages.training.loop", "stages.training.policy",
    "stages.training.sharding", "stages.training.step_zero", "tests.jobs", "tests.warm", "torch._dynamo",
    "torch.distributed.run", "transformers.convert_slow_tokenizer", "transformers.models.auto.modeling_auto",
    "transformers.models.auto.tokenization_auto", "transformers.models.llama.modeling_llama",
)  # fmt: skip


def begin(work: Work, job: str, *settings: str, said: Path | None = None) -> BaseProcess:
    """Start a job; its exit code is the process's. `said`: a file for what it says to people on the way."""
    return forked(_run, work, job, settings, said)


class Command:
    """`pipeline ARGUMENTS` in a folder, under way."""

    def __init__(self, arguments: Sequence[str], folder: Path, environment: Mapping[str, str] = os.environ) -> None:
        self._arguments = ["pipeline", *arguments]
        self._said = Path(tempfile.mkdtemp())
        self._process = forked(_command, self._arguments, folder, dict(environment), self._said)

    @property
    def runs(self) -> bool:
        return self._process.is_alive()

    def send_signal(self, number: int) -> None:
        assert self._process.pid is not None
        os.kill(self._process.pid, number)

    def finish(self) -> "subprocess.CompletedProcess[str]":
        """Its exit code and what it said."""
        self._process.join(120)
        self._process.kill()
        self._process.join()
        out, err = ((self._said / name).read_text() for name in ("out", "err"))
        shutil.rmtree(self._said)
        assert self._process.exitcode is not None
        return subprocess.CompletedProcess(self._arguments, self._process.exitcode, out, err)


def forked(function: Callable[..., None], *arguments: Any) -> BaseProcess:
    """A call in a process of its own, under way."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(list(_IMPORTED))
    process = context.Process(target=function, args=arguments)
    process.start()
    return process


def _command(arguments: list[str], folder: Path, environment: Mapping[str, str], said: Path) -> None:
    os.chdir(folder)
    os.environ.clear()
    os.environ |= environment
    for descriptor, name in ((1, "out"), (2, "err")):
        with (said / name).open("w") as file:
            os.dup2(file.fileno(), descriptor)
    sys.argv = arguments
    main()


def _run(work: Work, job: str, settings: tuple[str, ...], said: Path | None) -> None:
    if said is None:
        os._exit(work.run(job, *settings, expect=None)["exit_code"])
    with said.open("w") as sys.stderr:
        os._exit(run_job_document(job, Options(work.config, settings, True, False, False, 0))["exit_code"])
