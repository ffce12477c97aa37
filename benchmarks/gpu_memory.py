"""Memory of training over time, with the reference in memory and with stored log-probs, and what is estimated of it.

`python benchmarks/gpu.py --memory FOLDER` draws; this file, given a cell as JSON, prints the samples of one run.
"""

import json
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from threading import Event, Thread
from typing import Any

import torch

import pipeline  # noqa: F401 - finds our packages
from data.durable import write_bytes, write_json
from data.tokens.token_pairs import TokenPairs
from gpu_models import SHAPES
from gpu_plan import Cell
from gpu_record import run_program
from memory import random_pairs
from pipeline.svg import ACCENT, INK, drawing, svg_of
from stages.scoring.config import Numerics
from stages.training.config import TrainConfig
from stages.training.memory_estimate import estimate

STEPS = 4
EVERY = 0.002  # seconds
POINTS = 1500
CARD = 141e9
PLANS: dict[str, dict[str, Any]] = {
    "adamw": {},
    "adamw, checkpointing": {"gradient_checkpointing": True},
    "adamw_8bit": {"optim": "adamw_8bit"},
    "adamw_8bit, checkpointing": {"optim": "adamw_8bit", "gradient_checkpointing": True},
}


def main() -> None:
    """Train, look at memory all the time, print (seconds, bytes)."""
    from gpu_cell import measure

    cell = Cell(**json.loads(sys.argv[1]))
    samples: list[tuple[float, int]] = []
    with sampling(samples):
        measure(cell, time.time())
    print(json.dumps(thinned(samples)))


@contextmanager
def sampling(samples: list[tuple[float, int]]) -> Iterator[None]:
    """Bytes in use, every 2 ms: allocated on a GPU, resident otherwise."""
    stop, began = Event(), time.perf_counter()

    def look() -> None:
        while not stop.wait(EVERY):
            samples.append((time.perf_counter() - began, bytes_in_use()))

    thread = Thread(target=look, daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


def bytes_in_use() -> int:
    """Now."""
    if torch.cuda.is_available():
        return torch.cuda.memory_allocated()
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * 4096


def thinned(samples: Sequence[tuple[float, int]]) -> list[tuple[float, int]]:
    """Of each stretch the highest, so that no peak is lost."""
    size = -(-len(samples) // POINTS)
    stretches = (samples[at : at + size] for at in range(0, len(samples), size))
    return [(round(stretch[0][0], 3), max(used for _, used in stretch)) for stretch in stretches]


def draw_timelines(folder: Path, cells: Sequence[Cell]) -> None:
    """For each cell memory-MODEL.json and memory-MODEL.svg, with and without the reference beside the policy."""
    folder.mkdir(parents=True, exist_ok=True)
    for cell in cells:
        lines: dict[str, list[tuple[float, int]]] = {}
        for end, label in (("-memory", "reference in memory"), ("", "stored log-probs")):
            which = replace(cell, contender=cell.contender + end, pairs=STEPS * cell.pairs_per_step)
            code, out, log = run_program([__file__, json.dumps(asdict(which))], cell.device, 2 * cell.limit)
            if code != 0:
                raise SystemExit(f"{which.title} was not measured (exit code {code}):\n{log[-2000:]}")
            lines[label] = json.loads(out.splitlines()[-1])
        path = folder / f"memory-{cell.model}"
        write_json(path.with_suffix(".json"), lines)
        write_bytes(path.with_suffix(".svg"), picture(lines, f"Training {cell.model}: memory in use"))
        for label, samples in lines.items():
            print(f"{cell.model}, {label}: peak {max(used for _, used in samples) / 1e9:.2f} GB")


def picture(lines: dict[str, list[tuple[float, int]]], title: str) -> bytes:
    """One line a run, each with its peak."""
    with drawing("memory", {"font.size": 9}):
        from matplotlib.figure import Figure

        figure = Figure(figsize=(7.2, 3.2), layout="constrained")
        axes = figure.add_subplot()
        for (label, samples), colour in zip(lines.items(), (ACCENT, INK), strict=True):
            seconds, used = zip(*samples, strict=True)
            peak = max(used) / 1e9
            axes.plot(
                seconds, [n / 1e9 for n in used], color=colour, linewidth=0.9, label=f"{label}, peak {peak:.1f} GB"
            )
            axes.axhline(peak, color=colour, linewidth=0.5, linestyle=":")
        axes.set(title=title, xlabel="seconds", ylabel="GB", ylim=(0, None), xlim=(0, None))
        axes.legend(frameon=False, loc="lower right")
        return svg_of(figure)


ESTIMATE_COLUMNS = ("model", *PLANS)


def estimate_rows() -> Iterator[list[str]]:
    """What the product foresees of full fine-tuning: pairs of 1,024 tokens, packs of 2,048, bf16, 16 pairs a step."""
    for name, shape in SHAPES.items():
        if name == "toy":
            continue
        pairs = TokenPairs.of(random_pairs(16, 1024, shape.vocabulary))
        numerics, weights = Numerics("bfloat16", "auto", 2048), dict(shape.weights())
        cells = []
        for train in PLANS.values():
            plan = estimate(shape.sizes(), weights, numerics, TrainConfig(**train), pairs, on_gpu=True)
            cells.append(f"{plan.total / 1e9:.1f}{'' if plan.total <= CARD else ' (too much)'}")
        yield [f"{name} ({shape.source})", *cells]


if __name__ == "__main__":
    main()
