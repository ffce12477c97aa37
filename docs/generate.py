"""Writes the pages that are made from the code: `python docs/generate.py`. A test compares."""

from pathlib import Path
from typing import Any

import click
import typer
from pydantic import BaseModel
from pydantic.fields import FieldInfo

from data.rows.bad_rows import REASONS
from data.rows.forms import FORMS
from data.sources.source import Source
from math_page import math_page
from objectives_page import objectives_page
from pipeline.cli import app
from pipeline.config import PipelineConfig
from pipeline.config_job import shown
from pipeline.config_schema import config_schema
from pipeline.keys import section_of

DOCS = Path(__file__).resolve().parent
WIDTH = 100  # of the help texts, wherever they are made
DATA_PAGE = """# Preference data

Made by `python docs/generate.py` from the code that reads them.

A source has one form, told by its first rows and named in the log; `pipeline validate` shows a pair of it as the model
reads it. Where rows can be read in two ways, or in none, the job says so and stops. [tokens.md](tokens.md) says what
becomes of the rows.

| form | columns | seen in |
|---|---|---|
{forms}

## A source

A name, or a mapping of these keys:

| key | default | meaning |
|---|---|---|
{keys}

## Numbers of a pair

Two columns may say how much a pair counts:

```yaml
data:
  train:
    path: rated.jsonl
    columns: {{margin: score_gap, pair_weight: confidence}}
```

`margin` is by how much chosen is better, in units of rewards (ODPO, arXiv 2402.10571): the loss becomes
`-log sigmoid(beta * D - margin)`. The loss of the pair is multiplied by `pair_weight`, which is 0 or more. Only a
column that is named here is read, also where it is called so already (`{{margin: margin}}`), and then every row needs a
finite number in it, which may be written as a text; of several pairs of a row, each gets the row's. (`weight` of a
source is another matter: how often an epoch visits its pairs.)

Any other column says nothing to training. `pipeline eval` can report its metrics by the values of one,
`eval.slices: [topic]` ([eval-metrics.md](eval-metrics.md)); it is read again from the held-out rows, so
that to name one more tokenises nothing.

## Why a pair is rejected

Each is counted, shown with its line, and kept in `pairs/rejects.parquet`.

| reason | |
|---|---|
{reasons}
"""


def main() -> None:
    """Write all pages."""
    (DOCS / "cli.md").write_text(cli_page())
    (DOCS / "configuration.md").write_text(configuration_page())
    (DOCS / "data.md").write_text(data_page())
    (DOCS / "objectives.md").write_text(objectives_page())
    (DOCS / "math.md").write_text(math_page())
    (DOCS / "schema.json").write_text(schema())


def cli_page() -> str:
    """Every command's help, as the terminal shows it."""
    group: Any = typer.main.get_command(app)
    parts = ["# Commands\n\nMade by `python docs/generate.py` from the commands' own help.\n"]
    parts.append(_help(group, "pipeline"))
    parts += [f"## {name}\n\n{_help(command, f'pipeline {name}')}" for name, command in group.commands.items()]
    return "\n".join(parts)


def configuration_page() -> str:
    """Every key, its default and what it means."""
    lines = ["# Configuration", "", "Made by `python docs/generate.py` from the fields' own descriptions.", ""]
    lines += ["| key | default | meaning |", "|---|---|---|"]
    lines += [f"| `{key}` | {default} | {meaning} |" for key, default, meaning in _rows(PipelineConfig, "")]
    return "\n".join(lines) + "\n"


def schema() -> str:
    """The JSON schema of a configuration, as `pipeline config schema` prints it."""
    return f"{shown({'schema': config_schema()})}\n"


def data_page() -> str:
    """The forms of data that are told by themselves, what a source may say, and why a row is rejected."""
    return DATA_PAGE.format(
        forms="\n".join(f"| {form.name} | {form.columns} | {form.seen_in} |" for form in FORMS),
        keys="\n".join(f"| `{key}` | {default} | {meaning} |" for key, default, meaning in _rows(Source, "")),
        reasons="\n".join(f"| `{reason}` | {meaning} |" for reason, meaning in REASONS.items()),
    )


def _help(command: Any, name: str) -> str:
    context = click.Context(command, info_name=name, terminal_width=WIDTH, max_content_width=WIDTH)
    lines = [line.rstrip() for line in command.get_help(context).splitlines()]
    return "\n".join(["```", *lines, "```", ""])


def _rows(model: type[BaseModel], prefix: str) -> list[tuple[str, str, str]]:
    rows = []
    for name, field in model.model_fields.items():
        section, optional = section_of(field), not isinstance(field.annotation, type)
        if section is None or optional:
            rows.append((prefix + name, _default(field), " ".join((field.description or "").split())))
        if section is not None:
            rows += _rows(section, f"{prefix}{name}.")
    return rows


def _default(field: FieldInfo) -> str:
    if field.is_required():
        return "required"
    value = field.get_default(call_default_factory=True)
    return "none" if value is None or value in ({}, []) else f"`{value}`"


if __name__ == "__main__":
    main()
