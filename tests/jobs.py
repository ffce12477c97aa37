"""Jobs in processes of their own that may be killed, forked from one that has imported everything and done nothing."""

import multiprocessing
import os
import sys
from multiprocessing.process import BaseProcess
from pathlib import Path

from pipeline.chain import Options, run_job_document
from tests.tiny import Work

_IMPORTED = (
    "pipeline.chain",
    "stages.response_scores",
    "stages.training.loop",
    "stages.training.policy",
    "stages.training.sharding",
    "stages.training.step_zero",
    "tests.jobs",
    "transformers.models.llama.modeling_llama",
)


def begin(work: Work, job: str, *settings: str, said: Path | None = None) -> BaseProcess:
    """Start a job; its exit code is the process's. `said`: a file for what it says to people on the way."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(list(_IMPORTED))
    process = context.Process(target=_run, args=(work, job, settings, said))
    process.start()
    return process


def _run(work: Work, job: str, settings: tuple[str, ...], said: Path | None) -> None:
    if said is None:
        os._exit(work.run(job, *settings, expect=None)["exit_code"])
    with said.open("w") as sys.stderr:
        os._exit(run_job_document(job, Options(work.config, settings, True, False, False, 0))["exit_code"])
