"""Jobs in processes of their own that may be killed, forked from one that has imported everything and done nothing."""

import multiprocessing
import os
from multiprocessing.process import BaseProcess

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


def begin(work: Work, job: str, *settings: str) -> BaseProcess:
    """Start a job; its exit code is the process's."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(list(_IMPORTED))
    process = context.Process(target=_run, args=(work, job, settings))
    process.start()
    return process


def _run(work: Work, job: str, settings: tuple[str, ...]) -> None:
    os._exit(work.run(job, *settings, expect=None)["exit_code"])
