"""What the GPU benchmark measures, most valuable first.

A cell is one task, model, mix of lengths and contender; cells that differ in their contender make up a row and follow
one another. A contender's name says what it is: who, and then in any order

    ours   p4096 (packs of so many tokens)  flex rows segments varlen (scoring.backend)  separate (each response has a
           prompt of its own: packs without shared prefixes)  memory (the reference beside the policy, scored in each
           step)  8bit (train.optim: adamw_8bit)  checkpointing  compile (scoring.compile)
    trl    default  best (rows grouped by length, no gradient checkpointing)  sorted (scoring: rows by length)
           bs16 (pairs a batch)  bf16weights (else fp32 weights under autocast)  memory (the reference beside the
           policy)  8bit
    vllm   log-probs of prompts
"""

import re
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from typing import Any

from gpu_lengths import MIXES, draw_lengths
from gpu_models import SHAPES
from stages.scoring.config import ScoringConfig

OURS = re.compile(r"ours(-(p\d+|flex|rows|segments|varlen|separate|memory|8bit|checkpointing|compile))*")
TRL = re.compile(r"trl-(default|best)(-(bs\d+|sorted|bf16weights|memory|8bit))*")
PARAMETERS = {name: shape.body + shape.head_size for name, shape in SHAPES.items()}
SPEED = {"cuda": 250e12, "cpu": 2e9}  # useful operations a second that a cell is made large enough for
SECONDS = {"scoring": 4.0, "training": 8.0}
PER_STEP = {"cuda": 64, "cpu": 4}
LIMIT = {"cuda": 150.0, "cpu": 60.0}


@dataclass(frozen=True)
class Cell:
    """One measurement."""

    task: str
    model: str
    mix: str
    contender: str
    device: str
    dtype: str
    pairs: int
    pairs_per_step: int
    cap: int
    """Tokens of prompt and response, at most."""
    limit: float
    """Seconds that its process may take."""
    round: int = 1

    @property
    def title(self) -> str:
        """For people, and for --only."""
        return f"{self.task} {self.model} {self.mix} {self.contender}"

    def key(self) -> dict[str, Any]:
        """What makes it this cell: all but how long it may take."""
        return {name: value for name, value in asdict(self).items() if name != "limit"}

    def parts(self) -> set[str]:
        """Of the contender's name, without who it is."""
        return set(self.contender.split("-")[1:])

    def number(self, prefix: str) -> int | None:
        """Of the part that is this prefix and a number."""
        found = (re.fullmatch(prefix + r"(\d+)", part) for part in self.parts())
        return next((int(match[1]) for match in found if match), None)


def plan(device: str, models: Iterable[str] | None, rounds: int) -> list[Cell]:
    """All cells, those of one round after those of the round before."""
    wanted = None if models is None else set(models)
    rows = [row for row in ROWS if wanted is None or row[1] in wanted]
    for name in sorted(wanted or ()):
        if not any(row[1] == name for row in rows):
            rows += [(task, name, mix, EVERYTHING[task]) for mix in MIXES for task in ("scoring", "training")]
    cells = [cell for number in range(1, rounds + 1) for row in rows for cell in _cells(device, number, *row)]
    return [cell for cell in dict.fromkeys(cells) if cell.number("p") != ScoringConfig().pack_tokens]  # that is `ours`


def _cells(device: str, number: int, task: str, model: str, mix: str, contenders: str) -> Iterator[Cell]:
    per_step = PER_STEP[device]
    for contender in contenders.split():
        assert contender == "vllm" or OURS.fullmatch(contender) or TRL.fullmatch(contender), contender
        yield Cell(
            task=task,
            model=model,
            mix=mix,
            contender=contender,
            device=device,
            dtype="bfloat16" if device == "cuda" else "float32",
            pairs=pairs_of(device, task, model, mix, per_step),
            pairs_per_step=per_step,
            cap=1024 if device == "cuda" else 128,
            limit=LIMIT[device] * (2 if model in ("3b", "8b") else 1),
            round=number,
        )


def pairs_of(device: str, task: str, model: str, mix: str, per_step: int) -> int:
    """As many as take some seconds at a fair speed, in whole optimiser steps: two at least."""
    if device == "cpu":
        return 4 * per_step
    tokens = float(draw_lengths(MIXES[mix], 1000).sum()) / 1000
    operations = (6 if task == "training" else 2) * PARAMETERS[model] * tokens
    steps = round(SPEED[device] * SECONDS[task] / operations / per_step)
    return per_step * min(max(2, steps), 128)


_BEST = "trl-best-bs8 trl-best-bs8-bf16weights trl-best-bs16"
_SORTED = "trl-default-bs16-sorted-bf16weights trl-default-bs32-sorted-bf16weights"
_IN_MEMORY = "ours ours-memory ours-rows ours-rows-memory trl-default-memory"
_PACKS = "ours-p2048 ours-p4096 ours-p8192 ours-p16384 ours-p32768"
_WAYS = "ours ours-compile ours-separate ours-flex ours-rows"
_EIGHT_BITS = (
    "ours-8bit ours-8bit-checkpointing ours-8bit-memory "
    "trl-default-8bit trl-best-bs4-bf16weights-8bit trl-best-bs4-bf16weights"
)

ROWS: list[tuple[str, str, str, str]] = [
    *(("scoring", model, "ultrafeedback", f"ours trl-default {_SORTED}") for model in ("0.5b", "8b")),
    ("training", "0.5b", "ultrafeedback", f"ours trl-default {_BEST}"),
    ("scoring", "1.7b", "ultrafeedback", f"ours trl-default {_SORTED}"),
    ("training", "1.7b", "ultrafeedback", f"ours trl-default {_BEST}"),
    ("training", "8b", "ultrafeedback", _EIGHT_BITS),
    ("training", "1.7b", "ultrafeedback", _IN_MEMORY),
    *(("scoring", model, "ultrafeedback", _WAYS) for model in ("1.7b", "8b")),
    *(("scoring", model, "ultrafeedback", _PACKS) for model in ("0.5b", "1.7b", "8b")),
    ("training", "1.7b", "ultrafeedback", _WAYS),
    *(("training", model, "ultrafeedback", _PACKS) for model in ("0.5b", "1.7b")),
    *(("scoring", model, "hh", f"ours trl-default {_SORTED}") for model in ("8b", "1.7b", "0.5b")),
    ("training", "1.7b", "hh", f"ours trl-default {_BEST}"),
    ("training", "0.5b", "ultrafeedback", _IN_MEMORY),
    *((task, "0.5b", "ultrafeedback", "ours-compile") for task in ("scoring", "training")),
    ("scoring", "1.7b", "ultrafeedback", "vllm"),
    ("scoring", "8b", "ultrafeedback", "vllm"),
    ("training", "0.5b", "hh", f"ours trl-default {_BEST}"),
    ("training", "8b", "hh", _EIGHT_BITS),
    *(
        (task, model, mix, f"ours trl-default {extra}")
        for model in ("135m", "3b")
        for mix in ("ultrafeedback", "hh")
        for task, extra in (("scoring", _SORTED), ("training", _BEST))
    ),
]  # fmt: skip
"""Task, model, mix, contenders."""

EVERYTHING = {
    "scoring": "ours ours-p256 ours-rows ours-separate ours-flex trl-default trl-default-bs16-sorted-bf16weights vllm",
    "training": "ours ours-memory ours-rows ours-separate ours-8bit ours-checkpointing trl-default trl-default-memory "
    "trl-best-bs2 trl-best-bs2-bf16weights",
}
"""Every kind of contender, for a model that has no rows: the toy."""
