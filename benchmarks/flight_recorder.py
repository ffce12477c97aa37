"""What the flight recorder costs: its share of training, and a million visits.

python benchmarks/flight_recorder.py --model FOLDER [--steps 8]

A run of `pipeline train` on the model with synthetic pairs, 16 a step: the seconds inside the recorder against those of
the steps. Then a million visits, flushed each 200 steps, that nothing is computed for: seconds, bytes, memory.
"""

import argparse
import json
import resource
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from hashlib import sha256
from itertools import islice
from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory
from typing import Any
from unittest.mock import patch

import numpy as np

import pipeline  # noqa: F401 - finds our packages
from data.schema import Response, TokenPair
from pipeline.chain import Options, run_job_document
from stages.metrics.pairwise import PairScores
from stages.training.visits import VisitLog
from workloads import shared_rows

PAIRS_PER_STEP, CHECKPOINT_EVERY, VISITS = 16, 200, 1_000_000


def main() -> None:
    """Print both."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=8)
    arguments = parser.parse_args()
    with TemporaryDirectory() as folder:
        share_of_training(Path(folder), arguments.model.resolve(), arguments.steps)
    for epochs in (1, 4):
        with TemporaryDirectory() as folder:
            a_million(Path(folder), epochs)


def share_of_training(folder: Path, model: Path, steps: int) -> None:
    """A run whose objective reads no reference, so that nothing has to be scored before it."""
    rows = [json.dumps(row.content) for row in islice(shared_rows(), steps * PAIRS_PER_STEP)]
    (folder / "rows.jsonl").write_text("\n".join(rows))
    (folder / "config.yaml").write_text(
        f"workdir: {folder / 'work'}\nreference: {{model: {model}, dtype: float32}}\n"
        f"data: {{train: {folder / 'rows.jsonl'}, eval_fraction: 0}}\ntrain: {{objective: naive}}\n"
    )
    timer = Timer()
    with ExitStack() as patches:
        for name in ("take_back", "add", "flush_if_due", "flush", "finish"):
            patches.enter_context(patch.object(VisitLog, name, timer.timed(getattr(VisitLog, name))))
        document = run_job_document("train", Options(folder / "config.yaml", [], True, False, True, 0))
    assert document["exit_code"] == 0, document["message"]
    seconds = timer.seconds
    spent = sum(seconds.values())
    print(
        f"{steps} steps of {PAIRS_PER_STEP} pairs: {document['seconds'] / steps:.2f} s a step; recorder: "
        f"{seconds['add'] / steps * 1e3:.2f} ms a step, {(spent - seconds['add']) * 1e3:.1f} ms to begin, write and "
        f"join; {spent / document['seconds']:.3%} of the run"
    )


class Timer:
    """Seconds inside of methods, by name; of a method that another one calls, they count there."""

    def __init__(self) -> None:
        self.seconds: defaultdict[str, float] = defaultdict(float)
        self._busy = False

    def timed(self, method: Callable[..., Any]) -> Callable[..., Any]:
        """The method, timed."""

        def call(*arguments: Any, **keywords: Any) -> Any:
            if self._busy:
                return method(*arguments, **keywords)
            self._busy, started = True, time.perf_counter()
            try:
                return method(*arguments, **keywords)
            finally:
                self._busy = False
                self.seconds[method.__name__] += time.perf_counter() - started

        return call


def a_million(folder: Path, epochs: int) -> None:
    """Visits of pairs of one source, in another order each epoch."""
    log, started = VisitLog(folder, 0.1), time.perf_counter()
    steps = 0
    for step, pairs in enumerate(steps_of(VISITS // epochs, epochs), 1):
        scores = np.random.default_rng(step).normal(-80, 30, (len(pairs), 4))
        losses = np.abs(scores[:, 0]).tolist()
        log.add(step, pairs, [PairScores(*row) for row in scores.tolist()], losses, losses)
        if step % CHECKPOINT_EVERY == 0:
            log.flush()
        steps = step
    before, made = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.perf_counter()
    log.finish()
    joined, after = time.perf_counter(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    size = (folder / "visits.parquet").stat().st_size
    print(
        f"{VISITS:,} visits, pairs {epochs} times each, {steps:,} steps: {size / VISITS:.1f} bytes a visit, "
        f"{(made - started) / steps * 1e3:.2f} ms a step (numbers drawn, too), joined in {joined - made:.1f} s and "
        f"{(after - before) / 1024:.0f} MB more than before"
    )


def steps_of(n_pairs: int, epochs: int) -> Iterator[list[TokenPair]]:
    """The pairs of each step."""
    nothing = Response(*(np.zeros(0, np.int32),) * 2, np.zeros(0, np.bool_))
    for epoch in range(epochs):
        rows = Random(epoch).sample(range(n_pairs), n_pairs)
        for first in range(0, n_pairs, PAIRS_PER_STEP):
            some = rows[first : first + PAIRS_PER_STEP]
            pairs = [TokenPair(row, f"data/prefs.jsonl.gz:{row + 1}", nothing, nothing) for row in some]
            for pair in pairs:
                vars(pair)["key"] = sha256(str(pair.row).encode()).hexdigest()
            yield pairs


if __name__ == "__main__":
    main()
