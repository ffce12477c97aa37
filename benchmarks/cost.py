"""What a stored reference saves, as Markdown: counted in passes of the model, and by the clock of a work folder.

python benchmarks/cost.py                 passes over the training pairs, with and without a store
python benchmarks/cost.py WORKDIR         seconds, from what the jobs of that work folder took

A pass is the arithmetic of the reference's forward pass over a token, 2 operations a parameter. Backward is two passes
where all weights are trained, one where only an adapter is (what remains is the gradient of activations); recomputing
activations is one more. Evaluation is left out: it is the same on either side.
"""

import argparse
import json
from pathlib import Path
from typing import Any

STEPS = {
    "all weights": 3,
    "all weights, `gradient_checkpointing`": 4,
    "an adapter (`lora`)": 2,
    "an adapter, `gradient_checkpointing`": 3,
}
"""Passes of a training step over its tokens."""
LOOPS = [(1, 1), (3, 1), (1, 8), (3, 8)]
"""Epochs a run, runs over the same pairs."""
NEW_A_NIGHT = 0.01  # share of the pairs that are new on a later night
NIGHTS = 30


def main() -> None:
    """Print the table that was asked for."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("workdir", nargs="?", type=Path, help="work folder whose jobs are done")
    workdir: Path | None = parser.parse_args().workdir
    print("\n".join(arithmetic() if workdir is None else measured(workdir)))


def arithmetic() -> list[str]:
    """Work with a stored reference as a share of the work with one that is computed in each step."""
    heads = [f"{epochs} epoch{'s' * (epochs > 1)}, {runs} run{'s' * (runs > 1)}" for epochs, runs in LOOPS]
    heads.append(f"{NIGHTS} nights, {NEW_A_NIGHT:.0%} new")
    lines = [f"| trained | a step | {' | '.join(heads)} |", "|---|---|" + "---|" * len(heads)]
    for name, step in STEPS.items():
        shares = [share_of_work(step, epochs * runs) for epochs, runs in LOOPS]
        shares.append(share_of_work(step, NIGHTS, 1 + (NIGHTS - 1) * NEW_A_NIGHT))
        cells = [f"{step / (step + 1):.0%}", *(f"{share:.0%}" for share in shares)]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return lines


def share_of_work(step: int, visits: int, scored: float = 1.0) -> float:
    """Passes with a store (`scored` passes of the reference, once) over passes without (one a visit)."""
    return (scored + visits * step) / (visits * (step + 1))


def measured(workdir: Path) -> list[str]:
    """The same shares from the rates of the jobs of a work folder, with what the store takes on disk."""
    scoring, training = job(workdir, "precompute-ref"), job(workdir, "train")
    visits = training["tokens"]
    reference = scoring["seconds"] / scoring["tokens"] * visits  # over the tokens that training visited
    step, store = training["seconds"], Path(scoring["outputs"]["store"])
    size = sum(path.stat().st_size for folder in ("parts", "tokens") for path in (store / folder).glob("*.parquet"))
    return [
        f"device: {training['device']}",
        f"scoring: {scoring['tokens'] / scoring['seconds']:,.0f} tokens/s; training: {visits / step:,.0f} tokens/s",
        f"{visits:,} tokens of training: the reference {reference:.1f} s, the policy {step:.1f} s",
        f"with a stored reference a step takes {step / (step + reference):.0%} of one that computes it",
        f"store: {size / scoring['pairs_scored']:,.0f} bytes a pair, of {scoring['pairs_scored']} pairs",
    ]


def job(workdir: Path, name: str) -> dict[str, Any]:
    """The document of a job's last run that did something."""
    path = workdir / "jobs" / f"{name}.json"
    if not path.exists():
        raise SystemExit(f"{path} is not there. Run `pipeline {name}` in this work folder first.")
    return dict(json.loads(path.read_bytes()))


if __name__ == "__main__":
    main()
