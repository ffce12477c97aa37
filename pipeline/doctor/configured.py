"""What one configuration needs: its data, its models and their tokenizer, packages, the store, memory.

Nothing is fetched, loaded or left behind.
"""

import json
from collections.abc import Iterator
from importlib.metadata import Distribution
from pathlib import Path
from typing import Any
from uuid import uuid4

from data.durable import TEMPORARY_PREFIX
from data.errors import PipelineError, one_line
from data.sources.files import reads
from data.store.storage import LocalStorage
from pipeline.config import PipelineConfig
from pipeline.doctor.findings import Finding, ok, problem, warning
from pipeline.doctor.hub import is_offline
from pipeline.doctor.machine import disk_finding
from pipeline.doctor.packages import install, missing_of
from pipeline.svg import can_draw
from pipeline.workspace import Workspace
from stages.adapter_files import is_adapter
from stages.model_files import locate, tokenizer_folder
from stages.training.config import PASSED

_TEMPLATES = ("chat_template.jinja", "chat_template.json", "additional_chat_templates")


def configured_findings(config: PipelineConfig, project: Distribution | None) -> Iterator[Finding]:
    """All but memory, which needs the devices."""
    yield from _data(config)
    folder, found = _model("reference.model", config.reference.model, config.reference.revision)
    yield found
    if folder is not None:
        yield _template(folder)
    start = config.train.model
    if start not in (None, PASSED):
        yield _model("train.model", str(start), None)[1]
    if project is not None:
        yield from _packages(config, folder, project)
    yield _store(config)


def model_folder(config: PipelineConfig) -> Path | None:
    """Where the model that training starts from lies, as far as it is here."""
    named = config.train.model if config.train.model not in (None, PASSED) else None
    model, revision = (named, None) if named else (config.reference.model, config.reference.revision)
    return _model("", model, revision)[0]


def extras_needed(config: PipelineConfig, folder: Path | None) -> dict[str, str]:
    """The extras without which jobs of this configuration stop, and the key that needs each."""
    needed: dict[str, str] = {}
    if config.train.lora is not None:
        needed["lora"] = "train.lora"
    if folder is not None and is_adapter(folder):
        needed["lora"] = "reference.model, which is an adapter"
    if config.reference.quantization is not None:
        needed["qlora"] = "reference.quantization"
    if config.train.optim == "adamw_8bit":
        needed["8bit"] = "train.optim"
    if config.store.url is not None and config.store.url.startswith(("s3://", "s3a://")):
        needed["s3"] = "store.url"
    return needed | dict.fromkeys(config.train.report_to, "train.report_to")


def _data(config: PipelineConfig) -> Iterator[Finding]:
    for source, held_out in config.data.sources:
        key = "data.eval" if held_out else "data.train"
        path = Path(source.path)
        if path.exists():
            yield ok(key, f"{source.name} is there")
        elif reads(source.path) or source.path.startswith((".", "/", "~")):
            yield problem(key, f"{source.name} is not there", f"correct {key}, or put it there")
        elif is_offline():
            yield warning(key, f"{source.name} is a data set of the Hub, and HF_HUB_OFFLINE is set",
                          "pipeline validate says whether the cache has it")  # fmt: skip
        else:
            yield ok(key, f"{source.name} is a data set of the Hub, which the first job fetches")


def _model(key: str, model: str, revision: str | None) -> tuple[Path | None, Finding]:
    """Where a model lies, without fetching it."""
    try:
        folder = locate(model, revision, download=False)
    except PipelineError as error:
        return None, problem(key, str(error), f"correct {key}")
    if folder is not None:
        return folder, ok(key, f"{model} is {'an adapter ' if is_adapter(folder) else ''}in {folder}")
    if model.startswith((".", "/", "~")) or model.count("/") > 1:
        return None, problem(key, f"there is no folder {model}", f"correct {key}, or copy the model there")
    if is_offline():
        return None, problem(
            key,
            f"{model} is not in the Hub's cache, and HF_HUB_OFFLINE is set",
            f"fetch it where there is a network (hf download {model}) and copy the cache, or name a folder",
        )
    return None, warning(key, f"{model} is not in the Hub's cache: the first job fetches it", f"hf download {model}")


def _template(folder: Path) -> Finding:
    """Whether the tokenizer is there, and knows conversations."""
    subject = "chat template"
    try:
        place = tokenizer_folder(folder)
        config: Any = json.loads((place / "tokenizer_config.json").read_bytes())
    except FileNotFoundError:
        return problem("tokenizer", f"{folder} has no tokenizer_config.json", "copy the tokenizer's files there")
    except (PipelineError, ValueError, OSError) as error:
        return problem("tokenizer", f"{folder}: {one_line(error)}", "copy the tokenizer's files again")
    if config.get("chat_template") or any((place / name).exists() for name in _TEMPLATES):
        return ok(subject, f"the tokenizer in {place} has one")
    return warning(
        subject,
        f"the tokenizer in {place} has none: prompt and response are put one behind the other, and rows of several "
        "messages are rejected",
        f"put the template that the model was trained with into {place / _TEMPLATES[0]}",
    )


def _packages(config: PipelineConfig, folder: Path | None, project: Distribution) -> Iterator[Finding]:
    for extra, key in extras_needed(config, folder).items():
        missing = missing_of(project, extra)
        if missing:
            yield problem(key, f"needs {' and '.join(missing)}, not installed", install(extra))
        else:
            yield ok(key, f"what it needs (extra {extra}) is installed")
    if not can_draw():
        yield warning("report", "matplotlib is not installed: a report has tables and no figures", install("plot"))


def _store(config: PipelineConfig) -> Finding:
    """Whether the store can be listed and written to; what is written for that is taken away again."""
    subject, name = "store", f"{TEMPORARY_PREFIX}doctor-{uuid4().hex}"
    try:
        storage = Workspace(config.workdir).storage(config.store)
        if isinstance(storage, LocalStorage):
            advice = "make it writable, or let workdir (or store.url) name another place"
            found = disk_finding(subject, storage.root, advice)
            return found if found.level == "problem" else ok(subject, f"{storage.root} can be written to")
        references = len(storage.folders())
        storage.write(name, b"")
        storage.delete(name)
    except PipelineError as error:
        return problem(subject, str(error), "correct store.url, or what the error names")
    return ok(subject, f"{storage} can be read and written to ({references} references)")
