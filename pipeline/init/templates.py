"""The configurations that `pipeline init` writes; they lie beside this file as what they are."""

import re
from pathlib import Path
from typing import Literal, get_args

from pipeline.config_job import flow

Task = Literal["trial", "full", "lora", "several-gpus"]
TASKS: tuple[Task, ...] = get_args(Task)
_FOLDER = Path(__file__).parent


def template(task: Task, model: str | None = None, data: str | None = None) -> str:
    """The file of a task with its comments; `model` and `data` in the place of the ones that it names."""
    text = (_FOLDER / f"{task}.yaml").read_text(encoding="utf-8")
    for key, value in {"model": model, "train": data}.items():
        if value is not None:
            text = _with_value(text, key, value)
    return text


def _with_value(text: str, key: str, value: str) -> str:
    """Another value in the line of this key, its comment where it stood."""
    line = re.compile(rf"^(  {key}: )(\S+ +)(# .*)$", re.MULTILINE)
    changed, count = line.subn(lambda found: found[1] + f"{flow(value)} ".ljust(len(found[2])) + found[3], text)
    assert count == 1, f"{key} stands {count} times in a template"
    return changed
