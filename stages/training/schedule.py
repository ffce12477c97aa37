"""The learning rate of each step."""

import math
from typing import Literal

ScheduleName = Literal["linear", "cosine", "constant"]


def warmup_length(warmup_steps: float, total_steps: int) -> int:
    """Warm-up in steps; a value below 1 is a share of all steps, rounded up (as in transformers)."""
    return math.ceil(warmup_steps * total_steps) if warmup_steps < 1 else int(warmup_steps)


def learning_rate(step: int, total_steps: int, peak: float, warmup: int, name: ScheduleName) -> float:
    """Rate of step `step` (from 0): rises linearly over `warmup` steps, then falls to 0 at `total_steps`, or stays."""
    if step < warmup:
        return peak * step / warmup
    if name == "constant":
        return peak
    progress = (step - warmup) / max(1, total_steps - warmup)
    return peak * ((1.0 - progress) if name == "linear" else 0.5 * (1.0 + math.cos(math.pi * progress)))
