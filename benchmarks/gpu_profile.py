"""Where the time of a cell goes: `python benchmarks/gpu.py --profile CELL`.

This file, given a cell as JSON, measures a few steps of it under torch's profiler and prints what it saw.
"""

import json
import sys
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, replace
from typing import Any

import torch
from torch.autograd import DeviceType  # type: ignore[attr-defined]
from torch.profiler import ProfilerActivity, profile

import gpu_measure
import pipeline  # noqa: F401 - finds our packages
from gpu_plan import Cell
from gpu_record import run_program

STEPS = 3
ROWS = 25
WAITING = ("cudaStreamSynchronize", "cudaDeviceSynchronize", "cudaEventSynchronize", "aten::_local_scalar_dense")


def profile_of(cell: Cell) -> str:
    """The profile of a cell, made in a process of its own."""
    few = replace(cell, pairs=STEPS * cell.pairs_per_step)
    code, out, log = run_program([__file__, json.dumps(asdict(few))], cell.device, 2 * cell.limit)
    if code != 0:
        raise SystemExit(f"{cell.title} was not profiled (exit code {code}):\n{log[-2000:]}")
    return out


def main() -> None:
    """Measure under the profiler, print the tables."""
    from gpu_cell import measure

    cell = Cell(**json.loads(sys.argv[1]))
    activities = [ProfilerActivity.CPU] + ([ProfilerActivity.CUDA] if torch.cuda.is_available() else [])
    profiler: Any = profile(activities=activities)
    gpu_measure.watches.append(profiler)
    report = measure(cell, time.time())
    print(f"{cell.title}: {report['pairs']} pairs in {report['seconds']:.3f} s, profiled\n")
    print("\n".join(account(list(profiler.events()))))
    by = "self_device_time_total" if torch.cuda.is_available() else "self_cpu_time_total"
    print(profiler.key_averages().table(sort_by=by, row_limit=ROWS, max_name_column_width=70))


def account(events: Sequence[Any]) -> Iterator[str]:
    """How long the device had nothing to do, and how often the program waited for it."""
    work = [event for event in events if event.device_type == DeviceType.CUDA and not event.is_user_annotation]
    if work:
        busy, span = busy_time((event.time_range.start, event.time_range.end) for event in work)
        yield f"GPU: {span / 1e6:.3f} s from its first to its last work, idle {1 - busy / span:.1%} of it"
    waits = Counter(event.name for event in events if event.name in WAITING)
    yield f"waits for the device: {', '.join(f'{name} {count}' for name, count in waits.items()) or 'none'}"


def busy_time(ranges: Iterable[tuple[float, float]]) -> tuple[float, float]:
    """Time covered by at least one of the ranges, and the time from the first to the last."""
    busy, first, end = 0.0, None, 0.0
    for start, stop in sorted(ranges):
        if first is None:
            first = end = start
        busy += max(0.0, stop - max(start, end))
        end = max(end, stop)
    return busy, end - (first or 0.0)


if __name__ == "__main__":
    main()
