"""Our scorer and trainer on a GPU, beside TRL, vLLM and themselves in other settings: docs/gpu.md.

    python benchmarks/gpu.py --out FILE.json [--budget SECONDS] [--only PATTERN]   measure, and go on where it stopped
    python benchmarks/gpu.py --list --out FILE.json the cells in their order, and those that FILE.json has already
    python benchmarks/gpu.py --fit                  the lengths beside what is published
    python benchmarks/gpu.py --checks [--out FILE.json]                            correctness on this device
    python benchmarks/gpu.py --memory FOLDER --models 1.7b                         memory over time, as pictures
    python benchmarks/gpu.py --estimates            memory of full fine-tuning as the product foresees it
    python benchmarks/gpu.py --profile CELL         where a cell's time goes
    python benchmarks/gpu.py --show --out FILE.json the tables of what was measured (gpu_tables.py)

Each cell (gpu_plan.py) is a process of its own. What is in FILE.json stays, and is measured again only where versions,
device or code have changed. Nothing is downloaded.
"""

import argparse
import re
import sys
import time
from pathlib import Path

import torch

import pipeline  # noqa: F401 - finds our packages
from gpu_checks import checks_of
from gpu_lengths import FIT_COLUMNS, fit_rows
from gpu_memory import ESTIMATE_COLUMNS, draw_timelines, estimate_rows
from gpu_models import SHAPES
from gpu_plan import Cell, plan
from gpu_profile import profile_of
from gpu_record import Record, read_facts, run_cell
from gpu_tables import print_checks, print_document
from tables import print_rows

START = 20.0  # seconds that a process needs before it measures anything
SPARE = 10.0  # of the budget, for this process's own start and end


def main() -> None:
    """Do what is asked."""
    end = time.monotonic() - SPARE
    arguments = parse_arguments()
    if arguments.fit:
        print_rows(FIT_COLUMNS, fit_rows())
    if arguments.estimates:
        print_rows(ESTIMATE_COLUMNS, estimate_rows())
    if arguments.fit or arguments.estimates:
        return
    cells = [
        cell for cell in plan(arguments.device, arguments.models, arguments.rounds) if wanted(cell, arguments.only)
    ]
    if arguments.memory:
        draw_timelines(arguments.memory, training_cells(cells))
        return
    if arguments.profile:
        print(profile_of(one(arguments.profile, cells)))
        return
    record = Record(arguments.out, read_facts(arguments.device))
    if arguments.checks:
        rows = checks_of(arguments.device)
        record.add_checks(rows)
        print_checks(rows)
    elif arguments.list:
        for cell in cells:
            print("have" if record.has(cell) else "    ", cell.title, f"{cell.pairs} pairs", f"round {cell.round}")
    elif arguments.show:
        print_document(record.document)
    else:
        measure(cells, record, end + arguments.budget)
        print_document(record.document)


def parse_arguments() -> argparse.Namespace:
    """The command line."""
    described, _, commands = (__doc__ or "").partition("\n\n")
    parser = argparse.ArgumentParser(
        description=described, epilog=commands, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    for name, text in (
        ("fit", "the lengths beside what is published"),
        ("estimates", "memory of full fine-tuning as the product foresees it; needs no GPU"),
        ("list", "the cells in their order"),
        ("checks", "correctness on this device"),
        ("show", "the tables of what was measured"),
    ):
        parser.add_argument(f"--{name}", action="store_true", help=text)
    parser.add_argument("--memory", type=Path, metavar="FOLDER", help="draw memory over time, a picture a model")
    parser.add_argument("--profile", metavar="CELL", help="where the time of a cell goes; a pattern as of --only")
    parser.add_argument("--out", type=Path, metavar="FILE.json", help="everything measured; what stands there is kept")
    parser.add_argument("--budget", type=float, default=float("inf"), metavar="SECONDS", help="end within these")
    parser.add_argument("--only", metavar="PATTERN", help="cells in whose title this regular expression is found")
    parser.add_argument("--models", nargs="+", choices=SHAPES, help="default: all but toy; with others: their cells")
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--rounds", type=int, default=1, help="how often each cell is measured")
    arguments = parser.parse_args()
    if (
        arguments.device == "cuda"
        and not torch.cuda.is_available()
        and not (arguments.fit or arguments.estimates or arguments.show)
    ):
        parser.error("torch sees no GPU here; --device cpu --models toy shows that everything runs")
    if arguments.show and (arguments.out is None or not arguments.out.is_file()):
        parser.error("--show needs --out with a file that is there")
    return arguments


def wanted(cell: Cell, pattern: str | None) -> bool:
    """Whether --only asks for it."""
    return pattern is None or re.search(pattern, cell.title) is not None


def training_cells(cells: list[Cell]) -> list[Cell]:
    """The first of each model's."""
    return list({cell.model: cell for cell in cells[::-1] if cell.task == "training"}.values())


def one(pattern: str, cells: list[Cell]) -> Cell:
    """The cell whose title is this, or the first in which the pattern is found."""
    found = [cell for cell in cells if cell.title == pattern] or [cell for cell in cells if wanted(cell, pattern)]
    if not found:
        raise SystemExit(f"No cell is called {pattern}; --list shows them all.")
    return found[0]


def measure(cells: list[Cell], record: Record, end: float) -> None:
    """All that the record does not have, until `end`, a moment of the monotonic clock."""
    for number, cell in enumerate(cells, 1):
        if record.has(cell):
            continue
        left = end - time.monotonic()
        if left < START:
            print(f"the time is over before {cell.title}; the same command goes on there", file=sys.stderr)
            return
        report = run_cell(cell, left)
        if "error" in report and left < cell.limit and "took longer" in report["error"]:
            print(f"the time was over within {cell.title}", file=sys.stderr)
            return
        record.add(cell, report)
        outcome = report.get("error") or f"{report['pairs'] / report['seconds']:.2f} pairs/s"
        print(f"{number}/{len(cells)} {cell.title}, round {cell.round}: {outcome}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
