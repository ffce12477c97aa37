"""A sweep as a table: Markdown in its folder, aligned text on a terminal."""

import shlex
import textwrap
from collections.abc import Sequence
from typing import Any

_HEAD = ("", "objective", "beta", "learning rate", "seeds", "dev", "held-out", "95 % interval", "drift")
_LINE = 120
_WORDS = 2  # columns; the others are numbers


def markdown(document: dict[str, Any]) -> str:
    """The table, and what has to be said of it."""
    marks = ["---"] * _WORDS + ["---:"] * (len(_HEAD) - _WORDS)
    table = [f"| {' | '.join(row)} |" for row in (_HEAD, marks, *_rows(document))]
    notes = [*_notes(document), *(f"{words}\n\n    {command}" for words, command in _again(document))]
    return "\n\n".join([f"# {_subject(document)}", "\n".join(table), *notes]) + "\n"


def sweep_summary(document: dict[str, Any]) -> str:
    """The same for a terminal; it ends with the options that make the chosen run."""
    rows = [_HEAD, *_rows(document)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    notes = [textwrap.fill(note, _LINE, break_long_words=False, break_on_hyphens=False) for note in _notes(document)]
    lines = [_subject(document), *(_aligned(row, widths) for row in rows), *notes]
    lines += [f"{what}: {path}" for what, path in document["outputs"].items()]
    return "\n".join([*lines, *(f"{words} {command}" for words, command in _again(document))])


def _subject(document: dict[str, Any]) -> str:
    metric = document["metric"].replace("_", " ")
    return f"Sweep: {metric} on {document['n_dev_pairs']} dev pairs and {document['n_held_out_pairs']} held-out pairs"


def _rows(document: dict[str, Any]) -> list[list[str]]:
    chosen = document["choice"] and document["choice"]["setting"]
    return [_row(setting, chosen=i == chosen) for i, setting in enumerate(document["settings"])]


def _row(setting: dict[str, Any], *, chosen: bool) -> list[str]:
    n, dev, held_out = len(setting["seeds"]), setting["dev"], setting["held_out"]
    figures = ["", "", "", ""]
    if held_out is not None:
        drift = "" if held_out["drift"] is None else f"{held_out['drift']:.4f}"
        interval = f"{held_out['low']:.3f} to {held_out['high']:.3f}"
        figures = [f"{dev['value']:.3f}", f"{held_out['value']:.3f}", interval, drift]
    seeds = str(n) if setting["done"] == n else f"{setting['done']} of {n}"
    numbers = [f"{setting['beta']:g}", f"{setting['learning_rate']:g}", seeds]
    return ["*" if chosen else "", setting["objective_name"], *numbers, *figures]


def _notes(document: dict[str, Any]) -> list[str]:
    runs = document["runs"]
    n_done, n_pending = (sum(run["status"] == status for run in runs) for status in ("done", "pending"))
    if document["choice"] is not None:
        choice = (
            "The choice (*) was made on the dev pairs, so the held-out figure of the chosen setting is not biased by "
            "it, while the best held-out figure, read off this table, would be."
        )
    elif n_pending:
        choice = f"{n_done} of {len(runs)} runs are finished; the choice is made when none is left to come."
    else:
        choice = "No setting is finished with all of its seeds, so none is chosen."
    failed = [f"failed: {', '.join(run['assignments'])}: {run['message']}" for run in runs if run["status"] == "failed"]
    return [
        choice,
        _noise(document),
        "Drift is the mean of |log pi - log ref| a token on held-out pairs, in nats.",
        *failed,
    ]


def _noise(document: dict[str, Any]) -> str:
    metric, sd = document["metric"].replace("_", " "), document["seed_sd"]
    if sd is None:
        return "The noise of seeds is not known: it takes two seeds or more (sweep.seed)."
    beyond = document["seed_sd_beyond_pairs"]
    return (
        f"Seeds of one setting differ in held-out {metric} by a standard deviation of {sd:.3f}; {beyond:.4f} is more "
        "than single pairs explain, and what gates have to allow for (eval.seed_sd)."
    )


def _again(document: dict[str, Any]) -> list[tuple[str, str]]:
    """How the chosen run is had: words and a command; nothing where there is none."""
    if document["choice"] is None:
        return []
    options = " ".join(f"--set {shlex.quote(assignment)}" for assignment in document["choice"]["assignments"])
    return [(f"Run {document['choice']['run']} was chosen; with the same --config:", f"pipeline run {options}")]


def _aligned(row: Sequence[str], widths: Sequence[int]) -> str:
    cells = [
        cell.ljust(width) if i < _WORDS else cell.rjust(width)
        for i, (cell, width) in enumerate(zip(row, widths, strict=True))
    ]
    return "  ".join(cells).rstrip()
