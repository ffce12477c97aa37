"""A report as Markdown for the summary of a CI job: the sections that fit, never a text of the data.

Words of others stand in code spans, where Markdown makes nothing of them: no link, no picture, no mention, no HTML.
What could end the span or the cell of a table is written as its escape. A summary ends before a limit that GitHub has.
"""

import os
from collections.abc import Mapping
from pathlib import Path

from pipeline.report.content import (
    Block,
    Data,
    Judgements,
    Mark,
    Paragraph,
    Report,
    Section,
    Sentence,
    Table,
    Text,
    words,
)
from pipeline.report.safe_text import shortened, visible

MOST_BYTES = 1_000_000
"""Of a summary; GitHub takes 1 MiB of a step, all that it writes together."""
_MOST_ROWS = 50  # of a table
_MOST_CHARACTERS = 120  # of a name
_MOST_OF_A_SENTENCE = 1000
_CUT = "\n\nThe rest was cut, because a summary may have 1 MiB; report.html has all of it.\n"
_SHAPES = {"passed": "\u2714 passed", "failed": "\u2718 FAILED", "inconclusive": "\u25c7 inconclusive"}
_VERDICTS = {"passed": "Passed", "failed": "FAILED", "inconclusive": "Inconclusive", None: "Not judged"}


def summary_of(report: Report) -> bytes:
    """The summary, below MOST_BYTES."""
    lines = [
        f"## {_VERDICTS[report.verdict]}: {md_text(report.title)}",
        "",
        f"{report.verdict_words}. {md_text(report.lead)}",
    ]
    for section in report.sections:
        if section.in_summary:
            lines += section_lines(section)
    lines += ["", "Figures, training curves, costs and settings are in report.html beside the evaluation.", ""]
    return cut("\n".join(lines), MOST_BYTES)


def section_lines(section: Section, level: int = 3) -> list[str]:
    """A section's heading and blocks."""
    lines = ["", f"{'#' * level} {section.title}"]
    for block in section.blocks:
        lines += _block_lines(block)
    return lines


def cut(text: str, most: int) -> bytes:
    """The text as bytes; where these are too many its first lines, and a sentence that says so."""
    content = text.encode()
    if len(content) <= most:
        return content
    kept = content[: max(0, most - len(_CUT.encode()))]
    return kept[: kept.rfind(b"\n") + 1].rstrip(b"\n") + _CUT.encode()


def append_to_job_summary(summary: bytes, environment: Mapping[str, str] | None = None) -> str | None:
    """Add the summary to that of the CI step ($GITHUB_STEP_SUMMARY), once, as far as it fits; returns the file.

    None where there is no such file or it cannot be written to: a report is not worth a failed job.
    """
    name = (os.environ if environment is None else environment).get("GITHUB_STEP_SUMMARY")
    if not name:
        return None
    try:
        before = Path(name).read_bytes() if Path(name).is_file() else b""
        room = MOST_BYTES - len(before)
        added = cut(f"\n{summary.decode()}", room)
        if summary.strip() not in before and room > len(_CUT.encode()):
            with Path(name).open("ab") as file:
                file.write(added)
    except OSError:
        return None
    return name


def md_text(text: Text) -> str:
    """Our own words as they are, those of others in code spans."""
    return "".join(_piece(piece) for piece in words(text))


def _piece(piece: str) -> str:
    if not isinstance(piece, Data):
        return piece
    return code_span(piece.replace("`", "'"), _MOST_OF_A_SENTENCE) if isinstance(piece, Sentence) else code_span(piece)


def code_span(text: str, most: int = _MOST_CHARACTERS) -> str:
    """A text that nothing in it gets out of."""
    shown = visible(shortened(text, most)).replace("\n", "\\n").replace("\t", "\\t").strip()
    for character in "`|":
        shown = shown.replace(character, f"\\x{ord(character):02x}")
    return f"`{shown}`" if shown else "(empty)"


def _block_lines(block: Block) -> list[str]:
    if isinstance(block, Table):
        return _table_lines(block)
    if isinstance(block, Judgements):
        return ["", *(f"- **{_SHAPES[one.verdict]}** {md_text(one.sentence)}" for one in block.entries)]
    if isinstance(block, Paragraph):
        return ["", ("**Warning.** " if block.warning else "") + md_text(block.text)]
    return []


def _table_lines(table: Table) -> list[str]:
    shown = [i for i, column in enumerate(table.columns) if column.kind != "mark"]
    columns = [table.columns[i] for i in shown]
    lines = ["", *([md_text(table.caption), ""] if table.caption else [])]
    lines.append(f"| {' | '.join(column.title for column in columns)} |")
    lines.append(f"|{'|'.join('---:' if column.kind == 'figure' else '---' for column in columns)}|")
    for row in table.rows[:_MOST_ROWS]:
        lines.append(f"| {' | '.join(_cell(row[i]) for i in shown)} |")
    if len(table.rows) > _MOST_ROWS:
        lines += ["", f"{len(table.rows) - _MOST_ROWS:,} more rows are in report.html."]
    return lines


def _cell(cell: Text | Mark) -> str:
    return "" if isinstance(cell, Mark) else md_text(cell)
