"""What against_trl.py measured, as Markdown: `python benchmarks/tables.py FILE.json ...`.

First one row for each task, dtype and set, then every contender. Seconds, memory and shares are medians of the rounds.
A share is useful FLOP/s over the rate of matrix products in a dtype, measured in the same process before and after.
"""

import json
import statistics
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

SUMMARY = (
    "",
    "set (pairs)",
    "ours",
    "TRL, defaults",
    "TRL, best",
    "peak GiB: ours",
    "TRL, defaults",
    "TRL, best",
    "share",
)


def main() -> None:
    """Print the tables of the files that are named."""
    documents = [json.loads(Path(name).read_bytes()) for name in sys.argv[1:]]
    if not documents:
        raise SystemExit((__doc__ or "").partition("\n")[0])
    print_rows(SUMMARY, [row for document in documents for row in summary(document)])
    for document in documents:
        print_tables(document)


def print_tables(document: dict[str, Any]) -> None:
    """What was measured, and one table a task and dtype."""
    runs = measured(document)
    facts = {key: value for run in runs for key, value in run["facts"].items()}
    print(f"\n{document['model']}; {'; '.join(f'{k} {v}' for k, v in (document['machine'] | facts).items())}")
    for (task, dtype), some in grouped(runs, "task", "dtype"):
        rates = list(dict.fromkeys(["float32", dtype]))
        columns = ["set (pairs)", "contender", "seconds", "min-max", "pairs/s", "useful tokens/s", "peak GiB"]
        columns += [f"of {rate}" for rate in rates] + ["time / ours"]
        print(f"\n{task}, {dtype}\n")
        print_rows(columns, contender_rows(some, rates))
        counts = dict.fromkeys((run["set"], run["contender"][:4].strip("-"), run["scored_tokens"]) for run in some)
        print("\nTokens to score, both sides of every pair: " + ", ".join(" ".join(map(str, c)) for c in counts))


def summary(document: dict[str, Any]) -> Iterable[list[str]]:
    """One row a task, dtype and set: ours, TRL as it comes, and the fastest of its other settings."""
    for (task, dtype, rows), runs in grouped(measured(document), "task", "dtype", "set"):
        by_name = {name: some for (name,), some in grouped(runs, "contender")}
        ours, trl = by_name.get("ours"), [name for name in by_name if name.startswith("trl")]
        if not ours or not trl:
            continue
        tuned = min(trl, key=lambda name: median(by_name[name], "seconds"))
        theirs = [by_name.get("trl-default"), by_name[tuned]]
        cells = [f"{task}, {dtype}", f"{rows} ({ours[0]['pairs']})", f"{median(ours, 'seconds'):.1f} s"]
        for some in theirs:
            seconds = median(some, "seconds") if some else float("nan")
            cells.append(f"{seconds:.1f} s, {seconds / median(ours, 'seconds'):.2f}x" if some else "")
        cells[-1] += f" ({tuned.removeprefix('trl-')})"
        cells += [f"{median(some, 'peak_bytes') / 2**30:.2f}" if some else "" for some in (ours, *theirs)]
        yield [*cells, f"{statistics.median(share(run, 'float32') for run in ours):.2f}"]


def contender_rows(runs: Sequence[dict[str, Any]], rates: Sequence[str]) -> Iterable[list[str]]:
    """One row a set and contender."""
    ours = {rows: median(some, "seconds") for (rows, who), some in grouped(runs, "set", "contender") if who == "ours"}
    for (rows, contender), rounds in grouped(runs, "set", "contender"):
        every, first = [run["seconds"] for run in rounds], rounds[0]
        seconds = statistics.median(every)
        cells = [f"{rows} ({first['pairs']})", contender, f"{seconds:.2f}", f"{min(every):.2f}-{max(every):.2f}"]
        cells += [f"{first['pairs'] / seconds:.2f}", f"{first['useful_tokens'] / seconds:.0f}"]
        cells += [f"{median(rounds, 'peak_bytes') / 2**30:.2f}"]
        cells += [f"{statistics.median(share(run, rate) for run in rounds):.2f}" for rate in rates]
        yield [*cells, f"{seconds / ours[rows]:.2f}" if rows in ours else ""]


def print_rows(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """A table in Markdown."""
    print(f"| {' | '.join(columns)} |\n|{'---|' * len(columns)}")
    for row in rows:
        print(f"| {' | '.join(row)} |")


def measured(document: dict[str, Any]) -> list[dict[str, Any]]:
    """The runs that ended well."""
    runs = [run for run in document["runs"] if "error" not in run]
    if not runs:
        raise SystemExit("Nothing was measured.")
    return runs


def grouped(runs: Sequence[dict[str, Any]], *names: str) -> Iterable[tuple[Any, list[dict[str, Any]]]]:
    """The runs by the values that they have under `names`, in order of appearance."""
    groups: dict[Any, list[dict[str, Any]]] = {}
    for run in runs:
        groups.setdefault(tuple(run[name] for name in names), []).append(run)
    return groups.items()


def median(runs: Sequence[dict[str, Any]], name: str) -> float:
    """Over the rounds."""
    return statistics.median(float(run[name]) for run in runs)


def share(run: dict[str, Any], rate: str) -> float:
    """Useful FLOP/s over the mean of the rates before and after."""
    around = (run["rates_before"][rate] + run["rates_after"][rate]) / 2
    return float(run["useful_flops"] / run["seconds"] / around)


if __name__ == "__main__":
    main()
