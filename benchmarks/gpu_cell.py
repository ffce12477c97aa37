"""One cell of the GPU benchmark, in a process of its own: `python benchmarks/gpu_cell.py CELL BEGAN`.

CELL is JSON; BEGAN is when the process was begun, in seconds since the epoch. The last line on standard output is a
JSON object: what was measured, or `error`, why it was not. `--facts` prints device and versions alone.
"""

import json
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any

import pipeline  # noqa: F401 - finds our packages
from data.errors import PipelineError, one_line, out_of_memory
from data.schema import TokenPair
from gpu_lengths import MIXES, random_pairs
from gpu_measure import facts
from gpu_models import SHAPES
from gpu_plan import Cell


def main() -> None:
    """Measure and print."""
    if sys.argv[1] == "--facts":
        print(json.dumps(facts()))
        return
    cell = Cell(**json.loads(sys.argv[1]))
    try:
        report = measure(cell, float(sys.argv[2]))
    except ImportError as error:
        report = {"error": f"not installed: {error.name}"}
    except (RuntimeError, MemoryError, PipelineError) as error:
        if not (out_of_memory(error) or isinstance(error, PipelineError)):
            raise
        report = {"error": "out of memory" if out_of_memory(error) else one_line(error)}
    print(json.dumps(report))


def measure(cell: Cell, began: float) -> dict[str, Any]:
    """What one contender takes for its work, and how long after `began` it was ready and had its first result."""
    began -= time.time() - time.perf_counter()
    pairs = random_pairs(MIXES[cell.mix], cell.pairs, SHAPES[cell.model].vocabulary, cell.cap)
    report = contender(cell)(cell, pairs)
    report["seconds_to_ready"] = report.pop("ready_at") - began
    report["seconds_to_first"] = report.pop("first_at") - began
    return report


def contender(cell: Cell) -> Callable[[Cell, Sequence[TokenPair]], dict[str, Any]]:
    """Who is measured; each is imported only where it takes part."""
    who = cell.contender.partition("-")[0]
    if who == "ours":
        from gpu_ours import our_scoring, our_training

        return our_scoring if cell.task == "scoring" else our_training
    if who == "trl":
        from gpu_trl import trl_scoring, trl_training

        return trl_scoring if cell.task == "scoring" else trl_training
    from gpu_vllm import vllm_scoring

    return vllm_scoring


if __name__ == "__main__":
    main()
