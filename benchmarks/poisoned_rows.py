"""Which statistic of the flight recorder finds rows whose sides were exchanged: 20 of 320, the tiny model of the tests.

python benchmarks/poisoned_rows.py [--seeds 3] [--leave FOLDER]

Prints, for each way to rank pairs, how many of the 20 are among the 50 worst, and how many of these 50 are others that
only the first tenth of the steps visited, summed over the seeds. `easy`: the rule stands in the first token. `hard`: in
the last two, and every fifth of the other rows follows no rule. With --leave only the second case is trained, in
FOLDER, as a run called nightly: what docs/inspecting.md looks at.
"""

import argparse
import sys
from importlib import import_module
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import polars as pl

import pipeline  # noqa: F401 - finds our packages
from stages.metrics.worst import worst_pairs
from stages.training.visits import read_visits

ROOT = Path(__file__).resolve().parents[1]
sys.path.append(str(ROOT))  # tests/tiny.py builds the model, tests/poisoned.py the rows

ROWS, POISONED, LISTED = 320, 20, 50
_LOSS, _MARGIN, _STEP = pl.col("loss"), pl.col("margin"), "step"


class Case(NamedTuple):
    """A training."""

    name: str
    settings: tuple[str, ...]
    hard: bool = True


CASES = (
    Case("easy, 1 epoch", ("train.epochs=1",), hard=False),
    Case("easy, 2 epochs", ("train.epochs=2",), hard=False),
    Case("hard, 1 epoch", ("train.epochs=1",)),
    Case("hard, 1 epoch, warm-up for half", ("train.epochs=1", "train.warmup_steps=0.5")),
    Case("hard, 2 epochs", ("train.epochs=2",)),
    Case("hard, 2 epochs, slow", ("train.epochs=2", "train.learning_rate=1e-4")),
    Case("hard, 5 epochs, fast", ("train.epochs=5", "train.learning_rate=3e-3")),
    Case("hard, 2 epochs, hinge", ("train.epochs=2", "train.objective=hinge")),
    Case("hard, 2 epochs, ipo", ("train.epochs=2", "train.objective=ipo")),
    Case("hard, 2 epochs, sigmoid_norm", ("train.epochs=2", "train.objective=sigmoid_norm", "train.beta=5")),
    Case("hard, 2 epochs, simpo", ("train.epochs=2", "train.objective=simpo", "train.beta=2")),
    Case("hard, 2 epochs, sft", ("train.epochs=2", "train.objective=sft")),
)
"""How pairs are trained on; learning rate 1e-3, 8 pairs a step and sigmoid where nothing else is said."""

RANKINGS: dict[str, pl.Expr] = {
    "excess in deviations of the step": ((_LOSS - _LOSS.mean()) / (_LOSS.std() + 1e-12)).over(_STEP),
    "place in the step": (_LOSS.rank() / pl.len()).over(_STEP),
    "loss": _LOSS,
    "margin below the step's": (_MARGIN.mean() - _MARGIN).over(_STEP),
    "weight above the step's": (pl.col("weight") - pl.col("weight").mean()).over(_STEP),
}
"""Of a visit; a pair's is the mean over its visits."""


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--leave", type=Path)
    arguments = parser.parse_args()
    if arguments.leave:
        arguments.leave.mkdir()
        trained(arguments.leave, CASES[1]._replace(settings=(*CASES[1].settings, "run=nightly")), 0)
        return
    seeds = arguments.seeds
    names = ("excess", "excess of the last visit", "loss of the last visit", *RANKINGS)
    for i, name in enumerate(names, 1):
        print(f"({i}) {name}")
    print(
        f"{f'found of {seeds * POISONED}, (early ones listed)':<36}" + "".join(f"{f'({i})':>10}" for i in range(1, 9))
    )
    for case in CASES:
        seen = [found_of(case, seed) for seed in range(seeds)]
        sums = {name: Found(*map(sum, zip(*(each[name] for each in seen), strict=True))) for name in seen[0]}
        cells = [f"{sums[name].poisoned} ({sums[name].early})" if name in sums else "-" for name in names]
        print(f"{case.name:<36}" + "".join(f"{cell:>10}" for cell in cells), flush=True)


class Found(NamedTuple):
    """Of the worst rows: poisoned ones, and others that only the first tenth of the steps visited."""

    poisoned: int
    early: int


def found_of(case: Case, seed: int) -> dict[str, Found]:
    """By ranking."""
    with TemporaryDirectory() as folder:
        visits, bad = trained(Path(folder), case, seed)
    by_row = visits.with_columns(excess=_LOSS - _LOSS.mean().over(_STEP)).group_by("line")
    ranked = {
        "excess": worst_pairs(visits.lazy()).select("line", value="excess"),
        "excess of the last visit": by_row.agg(value=pl.col("excess").last()),
        "loss of the last visit": by_row.agg(value=_LOSS.last()),
    }
    for name, value in RANKINGS.items():
        if visits["margin"].null_count() == 0 or "margin" not in name:
            ranked[name] = visits.with_columns(value=value).group_by("line").agg(pl.col("value").mean())
    later = set(visits.filter(pl.col(_STEP) > pl.col(_STEP).max() / 10)["line"])
    worst = {name: set(frame.top_k(LISTED, by="value")["line"]) for name, frame in ranked.items()}
    return {name: Found(len(lines & bad), len(lines - bad - later)) for name, lines in worst.items()}


def trained(folder: Path, case: Case, seed: int) -> tuple[pl.DataFrame, set[str]]:
    """The visits of a run, and the lines of the poisoned rows."""
    tiny: Any = import_module("tests.tiny")
    poisoned: Any = import_module("tests.poisoned")
    work = tiny.Work(folder, tiny.save_model(folder / "model", seed))
    rule = (poisoned.ENDINGS, 0.2) if case.hard else (poisoned.OPENINGS, 0.0)
    rows, bad = poisoned.poisoned_rows(ROWS, POISONED, seed, *rule)
    tiny.write_jsonl(work.data, rows)
    settings = ("data.eval_fraction=0", "train.pairs_per_step=8", f"train.seed={seed}", *case.settings)
    work.run("precompute-ref", *settings)
    run = work.root / "runs" / work.run("train", *settings)["run"]
    return read_visits(run).collect(), {str(place + 1) for place in bad}


if __name__ == "__main__":
    main()
