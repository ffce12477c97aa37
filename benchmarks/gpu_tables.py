"""What gpu.py measured, as Markdown: `python benchmarks/gpu_tables.py FILE.json`.

Figures are medians of the rounds. A share is useful operations a second over the rate of matrix products that the same
process measured before and after. What is not there was not measured; what failed says why.
"""

import json
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from gpu_results import Result, Results, is_default_trl, is_ours, is_tuned_trl
from gpu_targets import HOURS_COLUMNS, TARGET_COLUMNS, hours_rows, target_rows
from tables import print_rows

SUMMARY_COLUMNS = (
    "",
    "mix",
    "ours",
    "share",
    "TRL, defaults",
    "TRL, best",
    "peak GB: ours",
    "TRL, defaults",
    "TRL, best",
)
CELL_COLUMNS = (
    *("mix", "contender", "pairs", "pairs/s", "useful tokens/s", "useful TFLOP/s", "share", "peak GB", "reserved GB"),
    *("s to first", "ours / it"),
)
REFERENCE_COLUMNS = ("model", "mix", "contender", "reference", "pairs/s", "peak GB")


def main() -> None:
    """Print the tables of a file."""
    if len(sys.argv) != 2:
        raise SystemExit((__doc__ or "").partition("\n")[0])
    print_document(json.loads(Path(sys.argv[1]).read_bytes()))


def print_document(document: dict[str, Any]) -> None:
    """All tables for which there are figures."""
    results = Results(document)
    for made in made_by(document):
        print("; ".join(f"{name} {value}" for name, value in made.items()))
    _section("Summary", SUMMARY_COLUMNS, summary_rows(results))
    if any(device(entry) != "cpu" for entry in document["cells"]):
        _section("Targets", TARGET_COLUMNS, target_rows(results))
    _section("Device-hours for a million pairs", HOURS_COLUMNS, hours_rows(results))
    _section("Reference in memory, and stored", REFERENCE_COLUMNS, reference_rows(results))
    for task, model in dict.fromkeys((task, model) for task, model, _ in results.rows()):
        _section(f"{task}, {model}", CELL_COLUMNS, cell_rows(results, task, model))
    _section("Not measured", ("cell", "why"), failed_rows(results))
    if document["checks"] is not None:
        print_checks(document["checks"]["rows"])


def _section(title: str, columns: Sequence[str], rows: Iterator[list[str]]) -> None:
    """A table under its title, if it has rows."""
    kept = list(rows)
    if kept:
        print(f"\n{title}\n")
        print_rows(columns, kept)


def made_by(document: dict[str, Any]) -> list[dict[str, str]]:
    """Devices and versions, one line for each set of them; what only some contenders need is put together."""
    lines: dict[tuple[str, ...], dict[str, str]] = {}
    for entry in document["cells"]:
        made = entry["made_by"]
        lines.setdefault((made["device"], made["torch"], made["transformers"]), {}).update(made)
    return list(lines.values())


def device(entry: dict[str, Any]) -> str:
    """`cuda` or `cpu`."""
    return str(entry["cell"]["device"])


def summary_rows(results: Results) -> Iterator[list[str]]:
    """A row a task, model and mix that ours and TRL have taken part in."""
    for row in results.rows():
        ours = results.fastest(row, is_ours)
        default = results.fastest(row, is_default_trl)
        best = results.fastest(row, is_tuned_trl)
        if ours is None or (default is None and best is None):
            continue
        task, model, mix = row
        cells = [
            f"{task}, {model}",
            mix,
            f"{ours.pairs_per_second:.1f} pairs/s ({ours.contender})",
            f"{ours.share:.0%}",
        ]
        for theirs in (default, best):
            cells.append("" if theirs is None else f"{theirs.pairs_per_second:.1f} ({_times(ours, theirs)})")
        cells[-1] += "" if best is None else f" {best.contender.removeprefix('trl-')}"
        yield [*cells, *("" if result is None else f"{result.peak / 1e9:.1f}" for result in (ours, default, best))]


def cell_rows(results: Results, task: str, model: str) -> Iterator[list[str]]:
    """Every contender, the row's own way first."""
    for row in results.rows():
        if row[:2] != (task, model):
            continue
        ours = results.get(*row, "ours") or results.fastest(row, is_ours)
        for result in results.of_row(row):
            reserved = result.runs[0].get("peak_reserved_bytes")
            yield [
                *(result.mix, result.contender, str(result.runs[0]["pairs"])),
                *(f"{result.pairs_per_second:.2f}", f"{result.tokens_per_second:.0f}", f"{result.flops / 1e12:.3g}"),
                *(f"{result.share:.0%}", f"{result.peak / 1e9:.2f}", f"{reserved / 1e9:.2f}" if reserved else ""),
                *(
                    f"{result.median(lambda run: run['seconds_to_first']):.1f}",
                    "" if ours is None else _times(ours, result),
                ),
            ]


def reference_rows(results: Results) -> Iterator[list[str]]:
    """Training with the reference beside the policy and with stored log-probs, where both were measured."""
    for row in results.rows():
        task, model, mix = row
        for result in results.of_row(row) if task == "training" else ():
            stored = result.contender.removesuffix("-memory")
            if stored == result.contender:
                continue
            for found, reference in ((result, "in memory"), (results.get(*row, stored), "stored")):
                if found is not None:
                    figures = f"{found.pairs_per_second:.2f}", f"{found.peak / 1e9:.2f}"
                    yield [model, mix, stored, reference, *figures]


def failed_rows(results: Results) -> Iterator[list[str]]:
    """What could not be measured."""
    for result in results.failed():
        yield [f"{result.task} {result.model} {result.mix} {result.contender}", result.errors[-1]]


def print_checks(rows: Sequence[dict[str, Any]]) -> None:
    """What was checked, what came out, what is allowed."""
    print("\nChecks\n")
    cells = [[row["name"], _shown(row["value"]), _shown(row["limit"]), "yes" if row["ok"] else "NO"] for row in rows]
    print_rows(("check", "value", "at most", "ok"), cells)


def _shown(value: Any) -> str:
    return "" if value is None else f"{value:.1e}" if isinstance(value, float) and value else str(value)


def _times(ours: Result, theirs: Result) -> str:
    return f"{ours.pairs_per_second / theirs.pairs_per_second:.2f}x"


if __name__ == "__main__":
    main()
