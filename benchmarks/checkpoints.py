"""What checkpoints and records cost: their share of training where a checkpoint is written every 50 steps.

python benchmarks/checkpoints.py --model FOLDER [--steps 6]

A run of `pipeline train` on the model with synthetic pairs, 16 a step, and a checkpoint every other step. Counted: the
seconds for which training waits, and the processor's seconds that writing takes beside it, as if they were all taken
from training.
"""

import argparse
import json
import time
from collections import defaultdict
from collections.abc import Callable
from contextlib import ExitStack
from itertools import islice
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from unittest.mock import patch

import pipeline  # noqa: F401 - finds our packages
from pipeline.chain import Options, run_job_document
from stages.training.checkpoint import Checkpoints
from stages.training.recorder import Recorder
from workloads import shared_rows

PAIRS_PER_STEP, EVERY, CLAIMED = 16, 2, 50


def main() -> None:
    """Print the shares."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=6)
    arguments = parser.parse_args()
    with TemporaryDirectory() as folder:
        measure(Path(folder), arguments.model.resolve(), arguments.steps)


def measure(folder: Path, model: Path, steps: int) -> None:
    """A run whose objective reads no reference, so that nothing has to be scored before it."""
    rows = [json.dumps(row.content) for row in islice(shared_rows(), steps * PAIRS_PER_STEP)]
    (folder / "rows.jsonl").write_text("\n".join(rows))
    (folder / "config.yaml").write_text(
        f"workdir: {folder / 'work'}\nreference: {{model: {model}, dtype: float32}}\n"
        f"data: {{train: {folder / 'rows.jsonl'}, eval_fraction: 0}}\n"
        f"train: {{objective: naive, checkpoint_every: {EVERY}}}\n"
    )
    waited, beside, until_durable = Clock(time.perf_counter), Clock(time.thread_time), Clock(time.perf_counter)
    with ExitStack() as patches:
        for owner, name, clocks in (
            (Checkpoints, "save", [waited]),
            (Checkpoints, "_replace_older", [beside, until_durable]),
            (Recorder, "add", [waited]),
            (Recorder, "flush", [waited]),
        ):
            method = getattr(owner, name)
            for clock in clocks:
                method = clock.timed(name, method)
            patches.enter_context(patch.object(owner, name, method))
        document = run_job_document("train", Options(folder / "config.yaml", [], True, False, True, 0))
    assert document["exit_code"] == 0, document["message"]
    step, n = document["seconds"] / steps, beside.calls["_replace_older"]
    once, recording = waited.seconds["save"] / n, (waited.seconds["add"] + waited.seconds["flush"]) / steps
    background = beside.seconds["_replace_older"] / n
    print(f"{steps} steps of {PAIRS_PER_STEP} pairs: {step:.2f} s a step")
    print(
        f"{n} checkpoints: training waits {once:.2f} s, writing takes {background:.2f} s of a core beside it, durable "
        f"after {until_durable.seconds['_replace_older'] / n:.2f} s"
    )
    print(f"recording a step: {recording * 1e3:.2f} ms")
    print(
        f"every {CLAIMED} steps: {(once + background) / (CLAIMED * step):.3%} of training, and recording "
        f"{recording / step:.3%}"
    )


class Clock:
    """Seconds inside of methods, by name."""

    def __init__(self, now: Callable[[], float]) -> None:
        self._now = now
        self.seconds: defaultdict[str, float] = defaultdict(float)
        self.calls: defaultdict[str, int] = defaultdict(int)

    def timed(self, name: str, method: Callable[..., Any]) -> Callable[..., Any]:
        """The method, timed."""

        def call(*arguments: Any, **keywords: Any) -> Any:
            started = self._now()
            try:
                return method(*arguments, **keywords)
            finally:
                self.seconds[name] += self._now() - started
                self.calls[name] += 1

        return call


if __name__ == "__main__":
    main()
