"""What comparing two snapshots costs, and whether it counts exactly: `python benchmarks/changes.py`.

Snapshots of 100,000 and 1,000,000 rows (`--rows`) that differ in planted edits of every kind, 1 % of the rows each; the
same number of rows of which nothing stayed; and as many rows of one prompt, too many to compare. Making the rows takes
minutes. Each measurement is a process of its own: reading both snapshots, then comparing them five times (the median).
"""

import argparse
import json
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

import pipeline  # noqa: F401 - finds our packages
from data.pairs.changes import changes, read_snapshot, write_snapshot

ROOT = Path(__file__).resolve().parent.parent
sys.path.append(str(ROOT))  # tests/planted.py makes the rows
ROUNDS = 5


def main() -> None:
    """Make, measure and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--rows", type=int, nargs="+", default=[100_000, 1_000_000])
    parser.add_argument("--child", nargs=2, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child:
        step, folder = arguments.child
        print(json.dumps(measure(Path(folder)) if step == "measure" else make(Path(folder), int(step))))
        return
    for rows in arguments.rows:
        with tempfile.TemporaryDirectory() as folder:
            for case in child(str(rows), folder):
                figures = child("measure", str(Path(folder) / case))
                report(f"{rows:,} rows, {case}", figures, Path(folder) / case / "expected.json")


def child(step: str, folder: str) -> Any:
    """What a process of its own reports: the memory of one says nothing about another's."""
    command = [sys.executable, __file__, "--child", step, folder]
    return json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def make(folder: Path, rows: int) -> list[str]:
    """The snapshots of each case, and the counts where they are known; returns the cases."""
    planted = import_module("tests.planted")
    edits = {kind: rows // 100 for kind in planted.KINDS if kind != "unchanged"}
    before, after, expected = planted.planted(rows, edits)
    cases = {"planted edits": (before, after), "nothing stayed": (before, others(after))}
    cases["one prompt"] = (of_one_prompt(before), of_one_prompt(cases["nothing stayed"][1]))
    for name, pair in cases.items():
        for side, snapshot in zip(("before", "after"), pair, strict=True):
            write_snapshot(folder / name / f"{side}.parquet", snapshot, {})
    (folder / "planted edits" / "expected.json").write_text(json.dumps(expected))
    return list(cases)


def others(snapshot: pl.DataFrame) -> pl.DataFrame:
    """As many rows with the same prompts, and everything else another."""
    keys = [pl.col(name).str.reverse() for name in ("pair_key", "chosen_key", "rejected_key")]
    rng = np.random.default_rng(1)
    texts = [
        pl.Series(f"{side}_text", [rng.bytes(16) for _ in range(len(snapshot))]) for side in ("chosen", "rejected")
    ]
    seeds = {"chosen_sketch": 1, "rejected_sketch": 2}
    sketches = [snapshot[name].shuffle(seed=seed) for name, seed in seeds.items()]
    return snapshot.with_columns(*keys, *texts, *sketches)


def of_one_prompt(snapshot: pl.DataFrame) -> pl.DataFrame:
    """The same rows, all of one prompt."""
    return snapshot.with_columns(pl.lit(bytes(16)).alias("prompt_text"))


def measure(folder: Path) -> dict[str, Any]:
    """Seconds, memory and counts."""
    started = time.perf_counter()
    found = [read_snapshot(folder / f"{side}.parquet") for side in ("before", "after")]
    before, after = (snapshot[0] for snapshot in found if snapshot)
    figures: dict[str, Any] = {"reading": time.perf_counter() - started, "read": peak_mb()}
    seconds, counts = [], {}
    for _ in range(ROUNDS):
        started = time.perf_counter()
        counts = changes(before, after).document()
        seconds.append(time.perf_counter() - started)
    assert "torch" not in sys.modules
    return figures | {"seconds": statistics.median(seconds), "at most": peak_mb(), "counts": counts}


def report(name: str, figures: dict[str, Any], planted: Path) -> None:
    """Print, and refuse counts that are not what was planted."""
    counts = figures["counts"]
    verdict = f"; {against(counts, json.loads(planted.read_text()))}" if planted.exists() else ""
    print(
        f"{name}: {figures['seconds']:.2f} s (reading both {figures['reading']:.2f} s); "
        f"at most {figures['at most']:,} MB, {figures['read']:,} of them once both are read"
    )
    print("    " + ", ".join(f"{kind} {n:,}" for kind, n in counts.items()) + verdict, flush=True)


def against(counts: dict[str, int], planted: dict[str, int]) -> str:
    """All but rewordings must be exact; these are judged by samples, so in 10,000 of them one may be missed."""
    missed = planted["reworded"] - counts["reworded"]
    by_samples = {"reworded": -missed, "added": missed, "removed": missed}
    assert counts == {kind: n + by_samples.get(kind, 0) for kind, n in planted.items()}, (counts, planted)
    assert 10_000 * abs(missed) <= planted["reworded"], (counts, planted)
    return f"{missed} rewordings missed" if missed else "exactly as planted"


def peak_mb() -> int:
    """Most memory that this process has had resident, in MB."""
    return round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3)


if __name__ == "__main__":
    main()
