"""A translation as a file: our keys in their order, each with what it means and where it comes from."""

import textwrap
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from pipeline.config import PipelineConfig
from pipeline.config_job import flow
from pipeline.console import printable
from pipeline.init.translation import Setting, Translation
from pipeline.keys import all_keys
from pipeline.suggestions import meaning

_COLUMN = 48  # of the comments, where values are not longer
_WIDTH = 120


def as_file(t: Translation) -> str:
    """The configuration; its head says whose file it was, and what is not in it."""
    title = f"Translated from {t.tool}'s {t.file.name} by pipeline init"
    head = [f"{title}, which took nothing over from:" if t.unmapped else f"{title}."]
    head += [f"  {names}: {reason}" for reason, names in not_taken_over(t.unmapped).items()]
    comments = (line for told in head for line in _comment(told))
    return "\n".join([*comments, *_lines(t, _nested(t.settings), "", 0)]) + "\n"


def not_taken_over(unmapped: Mapping[str, str]) -> dict[str, str]:
    """Keys by their common reason."""
    by_reason: dict[str, list[str]] = {}
    for name, reason in unmapped.items():
        by_reason.setdefault(reason, []).append(str(name))
    return {reason: ", ".join(names) for reason, names in by_reason.items()}


def source_of(tool: str, sources: Sequence[str], *, default: bool) -> str:
    """Where a value comes from; empty where it is this program's own choice."""
    return f"from {', '.join(sources)}" if sources else f"{tool}'s default, which is not ours" if default else ""


def _nested(settings: Mapping[str, Setting]) -> dict[str, Any]:
    """Sections of settings, in the order in which our keys are declared."""
    order = list(all_keys(PipelineConfig))
    nested: dict[str, Any] = {}
    for key in sorted(settings, key=order.index):
        *sections, name = key.split(".")
        section = nested
        for part in sections:
            section = section.setdefault(part, {})
        section[name] = settings[key]
    return nested


def _lines(t: Translation, section: Mapping[str, Any], path: str, depth: int) -> Iterator[str]:
    for name, inner in section.items():
        key = f"{path}{name}"
        if not isinstance(inner, Setting):
            yield from ([""] if depth == 0 else [])
            yield f"{'  ' * depth}{name}:"
            yield from _lines(t, inner, f"{key}.", depth + 1)
            continue
        yield from [""] if depth == 0 else []
        source = source_of(t.tool, inner.sources, default=inner.default)
        told = "; ".join(filter(None, (meaning(key, PipelineConfig), source, inner.note)))
        line, comments = f"{'  ' * depth}{name}: {flow(inner.value)}", _comment(told)
        whole = line.ljust(_COLUMN - 2) + f"  {comments[0]}"
        if len(comments) == 1 and len(whole) <= _WIDTH:
            yield whole
        else:
            yield from (f"{'  ' * depth}{comment}" for comment in comments)
            yield line


def _comment(text: str) -> list[str]:
    """As lines of a comment; what came from their file may hold anything."""
    indent = "  " * text.startswith("  ")
    lines = textwrap.wrap(
        " ".join(printable(text).split()), _WIDTH - 8, initial_indent=indent, subsequent_indent=indent * 2
    )
    return [f"# {line}" for line in lines]
