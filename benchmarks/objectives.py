"""Every objective on the same pairs, one epoch each: what it makes of held-out pairs.

    python benchmarks/objectives.py --model FOLDER --data FILE --out RESULTS.parquet    trains, or goes on
    python benchmarks/objectives.py --out RESULTS.parquet                               prints the table

`--data`: the politeness rows of docs/benchmarks.md. The first 240 usable rows are trained on, 200 others with other
prompts are held out; one reference pass serves all runs. Each run is `pipeline run` as a process of its own: fp32, 16
pairs a step, AdamW at 2e-5 with linear decay, beta 0.1 or the objective's usual one. Three objectives are trained on 60
and 120 pairs too.
"""

import argparse
import json
import subprocess
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import polars as pl

import pipeline  # noqa: F401 - finds our packages
from data.durable import write_bytes
from data.parquet import parquet_bytes
from data.sources.source import Source, read_rows
from stages.metrics.intervals import wilson
from stages.metrics.pairwise import win
from stages.objectives.catalogue import OBJECTIVES

ROOT = Path(__file__).resolve().parent.parent
MOST, HELD_OUT = 240, 200
CURVE = ("sigmoid", "sft", "naive")
SIZES = (60, 120)
LEARNING_RATE = 2e-5
SUMS = ("policy_chosen_logps", "policy_rejected_logps", "ref_chosen_logps", "ref_rejected_logps")


def main() -> None:
    """Train what is not trained yet, and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--model", type=Path)
    parser.add_argument("--data", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--workdir", type=Path, default=Path("objectives-work"))
    arguments = parser.parse_args()
    found = pl.read_parquet(arguments.out) if arguments.out.exists() else pl.DataFrame()
    if arguments.model is not None:
        cut_data(arguments.data, arguments.workdir)
        done = set(found.select("objective", "pairs").unique().iter_rows()) if len(found) else set()
        for objective, pairs in wanted():
            if (objective, pairs) not in done:
                found = pl.concat([found, trained(arguments.model, arguments.workdir, objective, pairs)])
                write_bytes(arguments.out, parquet_bytes(found.to_arrow()))
    print_tables(found)


def wanted() -> list[tuple[str, int]]:
    """Objective and training pairs of each run, the ones that others are compared with first."""
    first = [(objective, MOST) for objective in CURVE]
    return [
        *first,
        *((objective, size) for objective in CURVE for size in SIZES),
        *((objective, MOST) for objective in OBJECTIVES if objective not in CURVE),
    ]


def cut_data(data: Path, folder: Path) -> None:
    """Files of training rows, each the opening of the next, and of held-out rows."""
    folder.mkdir(parents=True, exist_ok=True)
    contents = [row.content for row in read_rows(Source(path=str(data))) if isinstance(row.content, dict)]
    rows = [row for row in contents if row["chosen"] != row["rejected"]]
    train = rows[:MOST]
    prompts = {row["prompt"] for row in train}
    held_out = [row for row in rows[MOST:] if row["prompt"] not in prompts][:HELD_OUT]
    for name, some in [(str(n), train[:n]) for n in (*SIZES, MOST)] + [("held-out", held_out)]:
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in some))


def trained(model: Path, folder: Path, objective: str, pairs: int) -> pl.DataFrame:
    """Score, train and evaluate; a row for each held-out pair."""
    beta = OBJECTIVES[objective].usual_beta or 0.1
    settings = {
        "workdir": folder / "work",
        "reference.model": model,
        "reference.dtype": "float32",
        "data.train": folder / f"{pairs}.jsonl",
        "data.eval": folder / "held-out.jsonl",
        "train.objective": objective,
        "train.beta": beta,
        "train.learning_rate": LEARNING_RATE,
        "train.warmup_steps": 0.1,
    }
    options = [option for key, value in settings.items() for option in ("--set", f"{key}={value}")]
    command = [sys.executable, "-m", "pipeline", "run", "--json", *options]
    process = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, check=False)
    document = json.loads(process.stdout)
    if document["exit_code"]:
        raise SystemExit(f"{objective} on {pairs} pairs: {document['message']}")
    columns = ["pair_key", *SUMS, "n_chosen", "n_rejected"]
    records = pl.read_parquet(document["outputs"]["pairs"]).select(columns).sort("pair_key")
    about = {"objective": objective, "pairs": pairs, "beta": beta}
    return records.select(*(pl.lit(value).alias(name) for name, value in about.items()), *columns)


def print_tables(found: pl.DataFrame) -> None:
    """One row a run; accuracies with their 95 % intervals (Wilson)."""
    reference = found.filter(pl.col("ref_chosen_logps").is_not_null()).unique("pair_key").select("pair_key", *SUMS[2:])
    n = len(reference)
    print(f"{n} held-out pairs, ranking accuracy of the reference {accuracy(ranking(reference.to_dicts(), 'ref'))}\n")
    print("| objective | beta | pairs | reward accuracy | ranking accuracy | chosen, rejected: log-ratio a token |")
    print("|---|---|---|---|---|---|")
    joined = found.drop(*SUMS[2:]).join(reference, on="pair_key")  # also for objectives that read no reference
    order = pl.Series(list(OBJECTIVES))
    joined = joined.sort(pl.col("objective").replace_strict(order, range(len(order))), "pairs", maintain_order=True)
    for (objective, pairs, beta), some in joined.group_by("objective", "pairs", "beta", maintain_order=True):
        records = some.to_dicts()
        rewards = [win(log_ratio(r, "chosen") - log_ratio(r, "rejected")) for r in records]
        drifts = [sum(log_ratio(r, s) / r[f"n_{s}"] for r in records) / n for s in ("chosen", "rejected")]
        shown = f"{beta:g}" if OBJECTIVES[str(objective)].takes_beta else "-"
        row = [f"`{objective}`", shown, str(pairs), accuracy(rewards), accuracy(ranking(records, "policy"))]
        print(f"| {' | '.join([*row, f'{drifts[0]:+.3f}, {drifts[1]:+.3f}'])} |")


def log_ratio(record: dict[str, Any], side: str) -> float:
    """Of policy to reference, in nats."""
    ratio: float = record[f"policy_{side}_logps"] - record[f"ref_{side}_logps"]
    return ratio


def ranking(records: Iterable[dict[str, Any]], model: str) -> list[float]:
    """For each pair whether the chosen response is the likelier one under the model."""
    return [win(r[f"{model}_chosen_logps"] - r[f"{model}_rejected_logps"]) for r in records]


def accuracy(wins: Sequence[float]) -> str:
    """A share with its interval."""
    low, high = wilson(sum(wins), len(wins))
    return f"{sum(wins) / len(wins):.3f} ({low:.3f} to {high:.3f})"


if __name__ == "__main__":
    main()
