"""`pipeline init`: writes a configuration with a comment on every key, and says what to run next."""

import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from data.durable import write_bytes
from data.errors import ConfigError
from pipeline.init.templates import Task, template
from stages.job import JobReport

_ABOUT: dict[Task, str] = {
    "trial": "a small model and short pairs, minutes on a CPU",
    "full": "all weights of a model on one GPU",
    "lora": "an adapter beside frozen weights",
    "several-gpus": "all weights of a model, sharded over several GPUs",
}


def run_init(
    _file: Path | None,
    _assignments: Sequence[str],
    *,
    out: Path,
    task: Task | None = None,
    model: str | None = None,
    data: str | None = None,
) -> JobReport:
    """Write the configuration to `out`.

    Raises:
        ConfigError: there is such a file already.
    """
    if out.exists():
        raise ConfigError(f"There is a file {out} already, and it is left as it is. Name another one with --out.")
    task = task or "trial"
    text = template(task, model, data)
    details = {"about": _ABOUT[task], "task": task, "next": _next(out, several=task == "several-gpus")}
    write_bytes(out, text.encode())
    return JobReport("init", outputs={"config": str(out)}, details=details)


def written(document: dict[str, Any]) -> str:
    """For people: what was written, and the commands that come next."""
    lines = [f"{document['outputs']['config']}: {document['about']}", "next:"]
    return "\n".join([*lines, *(f"  {command}" for command in document["next"])])


def _next(out: Path, *, several: bool) -> list[str]:
    """The commands from here to a run of one's own."""
    config = f"--config {shlex.quote(str(out))}"
    start = "torchrun --standalone --nproc-per-node gpu --no-python " if several else ""
    return [f"pipeline doctor {config}", f"pipeline validate {config}", f"{start}pipeline run {config}"]
