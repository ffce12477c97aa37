"""`pipeline init`: writes a configuration with a comment on every key, and says what to run next."""

import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from data.durable import write_bytes
from data.errors import ConfigError
from pipeline.config_job import flow
from pipeline.init.other_tools import translated
from pipeline.init.templates import Task, template
from pipeline.init.written_file import as_file, not_taken_over, source_of
from stages.job import JobReport

_ABOUT: dict[Task, str] = {
    "trial": "a small model and short pairs, minutes on a CPU",
    "full": "all weights of a model on one GPU",
    "lora": "an adapter beside frozen weights",
    "several-gpus": "all weights of a model, sharded over several GPUs",
}
_COLUMN = 56


def run_init(
    _file: Path | None,
    _assignments: Sequence[str],
    *,
    out: Path,
    task: Task | None = None,
    model: str | None = None,
    data: str | None = None,
    other: Path | None = None,
) -> JobReport:
    """Write the configuration to `out`: that of a task, or the one that is `other` in another tool's keys.

    Raises:
        ConfigError: there is such a file already, or the other one cannot be translated.
    """
    if out.exists():
        raise ConfigError(f"There is a file {out} already, and it is left as it is. Name another one with --out.")
    if other is not None:
        if task or model or data:
            raise ConfigError(
                f"--from takes all of {other}: leave out --task, --model and --data, and edit {out} then."
            )
        text, details = _translated(other)
    else:
        task = task or "trial"
        text, details = template(task, model, data), {"about": _ABOUT[task], "task": task}
    write_bytes(out, text.encode())
    commands = _next(out, several="\n  fsdp: true" in text)
    return JobReport("init", outputs={"config": str(out)}, details={**details, "next": commands})


def _translated(other: Path) -> tuple[str, dict[str, Any]]:
    """The file, and what of it is from where."""
    t = translated(other)
    settings = [
        {"key": key, "value": setting.value, "from": setting.sources, "default": setting.default, "note": setting.note}
        for key, setting in t.settings.items()
    ]
    about = f"translated from {other}, which is {t.tool}'s"
    return as_file(t), {"about": about, "tool": t.tool, "settings": settings, "unmapped": t.unmapped}


def written(document: dict[str, Any]) -> str:
    """For people: what was written, what of another tool's file is in it and what not, and what comes next."""
    lines = [f"{document['outputs']['config']}: {document['about']}"]
    for each in document.get("settings", ()):
        source = source_of(document["tool"], each["from"], default=each["default"])
        told = "; ".join(filter(None, (source, each["note"])))
        lines.append(f"  {each['key']}: {flow(each['value'])}".ljust(_COLUMN) + f"  {told}")
    if unmapped := document.get("unmapped"):
        lines += ["not taken over:", *(f"  {names}: {reason}" for reason, names in not_taken_over(unmapped).items())]
    return "\n".join([*lines, "next:", *(f"  {command}" for command in document["next"])])


def _next(out: Path, *, several: bool) -> list[str]:
    """The commands from here to a run of one's own."""
    config = f"--config {shlex.quote(str(out))}"
    start = "torchrun --standalone --nproc-per-node gpu --no-python " if several else ""
    return [f"pipeline doctor {config}", f"pipeline validate {config}", f"{start}pipeline run {config}"]
