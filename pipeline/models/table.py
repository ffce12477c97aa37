"""A leaderboard as a table: Markdown in its folder, aligned text on a terminal."""

import textwrap
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any

from pipeline.report.markdown import code_span
from stages.metrics.ranks import ERROR_RATE

_LINE = 120
_MOST = 2000  # characters of a name or message
_WORDS = ("model", "gates")  # columns; the others are numbers

Names = Callable[[str], str]


def markdown(document: dict[str, Any]) -> str:
    """The table, and what has to be said of it."""
    head, *rows = _table(document, _quoted)
    marks = ["---" if title in _WORDS else "---:" for title in head]
    table = [f"| {' | '.join(row)} |" for row in (head, marks, *rows)]
    steps = [f"- {step}" for step in _neighbours(document, _quoted)]
    parts = [f"# {_subject(document)}", "\n".join(table), "\n".join(steps), *_notes(document, _quoted)]
    return "\n\n".join(filter(None, parts)) + "\n"


def _quoted(text: str) -> str:
    """Names and messages are of others' making."""
    return code_span(text, _MOST)


def leaderboard_summary(document: dict[str, Any]) -> str:
    """The same for a terminal."""
    board = document["leaderboard"]
    head, *rows = _table(board, str)
    widths = [max(map(len, column)) for column in zip(head, *rows, strict=True)]
    lines = [_subject(board), *(_aligned(row, head, widths) for row in (head, *rows))]
    lines += [f"  {step}" for step in _neighbours(board, str)]
    lines += [textwrap.fill(note, _LINE, break_long_words=False, break_on_hyphens=False) for note in _notes(board, str)]
    return "\n".join([*lines, *(f"{what}: {path}" for what, path in document["outputs"].items())])


def _subject(document: dict[str, Any]) -> str:
    metric = document["metric"].replace("_", " ")
    return f"Leaderboard: {metric} on {document['n_pairs']} held-out pairs of {document['n_prompts']} prompts"


def _table(document: dict[str, Any], named: Names) -> list[list[str]]:
    """The head, a row for each model, and one for the reference."""
    metrics = list(dict.fromkeys((document["metric"], "ranking_accuracy")))
    judged = any(model["verdict"] in ("failed", "inconclusive") for model in document["models"])
    head = ["rank", "model"]
    for metric in metrics:
        head += [metric.replace("_", " "), "95 % interval"]
    rows = [
        [_ranks(model), named(model["name"]), *_figures(model["metrics"], metrics), _gates(model)]
        for model in document["models"]
    ]
    if document["reference"] is not None:
        name = f"the reference, {named(document['reference']['name'])}"
        rows.append(["", name, *_figures(document["reference"]["metrics"], metrics), ""])
    table = [[*head, "gates"], *rows]
    return table if judged else [row[:-1] for row in table]


def _ranks(model: dict[str, Any]) -> str:
    low, high = model["rank_low"], model["rank_high"]
    return str(low) if low == high else f"{low} to {high}"


def _figures(metrics: dict[str, float], names: Sequence[str]) -> list[str]:
    cells = []
    for name in names:
        if name in metrics:
            cells += [f"{metrics[name]:.3f}", f"{metrics[f'{name}_low']:.3f} to {metrics[f'{name}_high']:.3f}"]
        else:
            cells += ["", ""]
    return cells


def _gates(model: dict[str, Any]) -> str:
    return f"FAILED: {', '.join(model['failed_gates'])}" if model["failed_gates"] else str(model["verdict"])


def _neighbours(document: dict[str, Any], named: Names) -> list[str]:
    """Whether each model is told apart from the next one."""
    tests = {(test["first"], test["second"]): test for test in document["tests"]}
    names = [model["name"] for model in document["models"]]
    return [_test(tests[pair], named) for pair in pairwise(names)]


def _test(test: dict[str, Any], named: Names) -> str:
    first, second = named(test["first"]), named(test["second"])
    figures = f"{test['difference']:+.3f}, p = {test['holm_p']:.2g}"
    if test["low"] is not None:
        figures = f"{test['difference']:+.3f}, {test['low']:+.3f} to {test['high']:+.3f}, p = {test['holm_p']:.2g}"
    if test["better"] is None:
        return f"{first} and {second} are not told apart ({figures})"
    worse = second if test["better"] == test["first"] else first
    return f"{named(test['better'])} > {worse} ({figures})"


def _notes(document: dict[str, Any], named: Names) -> list[str]:
    failed = [f"Not evaluated: {named(each['name'])}. {named(each['message'])}" for each in document["failed"]]
    n = len(document["tests"])
    if not n:
        return failed
    tests = "The one test errs" if n == 1 else f"All {n} tests together err"
    told = (
        f"A rank is a range where models are not told apart. {tests} in at most {100 * ERROR_RATE:g} % of "
        "cases (p-values after Holm's correction); what another training seed would change, no test of single policies "
        "can see. The best of several looks better on the pairs that it was chosen on than it is."
    )
    return [told, *failed]


def _aligned(row: Sequence[str], head: Sequence[str], widths: Sequence[int]) -> str:
    cells = [
        cell.ljust(width) if title in _WORDS else cell.rjust(width)
        for cell, title, width in zip(row, head, widths, strict=True)
    ]
    return "  ".join(cells).rstrip()
