"""`pipeline config`: what a configuration comes to, key by key, and the schema of it."""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel

from pipeline.config import read_config
from pipeline.config_schema import config_schema
from pipeline.redaction import redacted
from pipeline.yaml_source import KeyPath, Origins, dump_yaml, parse_scalar
from stages.job import JobReport

What = Literal["show", "schema"]
DEFAULT = "default"
_COLUMN = 48  # of the comments, where keys are not longer


def run_config(file: Path | None, assignments: Sequence[str], what: What) -> JobReport:
    """The resolved configuration and where each key came from, or the schema, which needs no configuration.

    Raises:
        ConfigError: the configuration has problems.
    """
    if what == "schema":
        return JobReport("config", details={"schema": config_schema()})
    config, origins = read_config(file, assignments)
    resolved = redacted(config.model_dump(mode="json"))
    return JobReport("config", details={"config": resolved, "origins": dict(_origins(config, (), origins))})


def shown(document: dict[str, Any]) -> str:
    """YAML with a comment behind every key, which can be used as a configuration; or the schema as JSON."""
    if "schema" in document:
        return json.dumps(document["schema"], indent=2, ensure_ascii=False)
    return "\n".join(_lines(document["config"], "", document["origins"], 0))


def _origins(section: Any, path: KeyPath, origins: Origins) -> Iterator[tuple[str, str]]:
    """Where each value below a section came from, by its dotted key."""
    for name, value in _parts(section):
        inner = (*path, name)
        if any(_parts(value)):
            yield from _origins(value, inner, origins)
        else:
            given = isinstance(section, BaseModel) and name in section.model_fields_set
            yield ".".join(map(str, inner)), _origin(inner, origins) if given else DEFAULT


def _origin(path: KeyPath, origins: Origins) -> str:
    """Of a value, and of those of its parts that came from elsewhere."""
    own = origins.of(path)
    others = [origin for origin in origins.below(path) if origin.partition(":")[0] != own.partition(":")[0]]
    return ", ".join([own, *others])


def _parts(value: Any) -> Iterator[tuple[str | int, Any]]:
    """What stands in a section, or in a list or mapping of sections; nothing of a value."""
    if isinstance(value, BaseModel):
        yield from ((name, getattr(value, name)) for name in type(value).model_fields)
        return
    items = enumerate(value) if isinstance(value, list) else value.items() if isinstance(value, dict) else ()
    yield from ((place, item) for place, item in items if isinstance(item, BaseModel))


def _lines(value: Any, key: str, origins: dict[str, str], depth: int) -> Iterator[str]:
    """A section, or a list of sections, as lines of YAML."""
    listed = isinstance(value, list)
    for name, item in enumerate(value) if listed else value.items():
        inner = f"{key}.{name}" if key else str(name)
        if inner in origins:
            yield f"{'  ' * depth}{flow(name)}: {flow(item)}".ljust(_COLUMN) + f"  # {origins[inner]}"
        elif listed:
            first, *others = _lines(item, inner, origins, depth + 1)
            yield f"{'  ' * depth}- {first.removeprefix('  ' * (depth + 1))}"
            yield from others
        else:
            yield f"{'  ' * depth}{flow(name)}:"
            yield from _lines(item, inner, origins, depth + 1)


def flow(value: Any) -> str:
    """A value in one line, which the configuration's own reader takes for the same value."""
    text = dump_yaml(value, default_flow_style=True, width=float("inf"))
    text = text.strip().removesuffix("\n...")
    same = "\n" not in text and " #" not in text and parse_scalar(text, "") == value
    return text if same else json.dumps(value, ensure_ascii=False)
