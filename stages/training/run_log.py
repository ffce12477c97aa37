"""metrics.jsonl: one JSON object a step, under the names that TRL uses; what a run has said of itself so far."""

import json
import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from data.durable import write_bytes
from stages.training.step import StepResult


def step_metrics(result: StepResult, beta: float, *, rewards: bool) -> dict[str, float]:
    """What a step says of its pairs on average; without `rewards` (no reference) log-probs only."""

    def mean(values: Sequence[float]) -> float:
        # Of infinite ones of both signs there is no sum, and fsum refuses it.
        return math.fsum(values) / len(values) if all(map(math.isfinite, values)) else math.nan

    scores = result.scores
    metrics = {"loss": result.loss}
    if rewards:
        metrics |= {
            "rewards/chosen": mean([s.chosen_reward(beta) for s in scores]),
            "rewards/rejected": mean([s.rejected_reward(beta) for s in scores]),
            "rewards/margins": mean([s.margin(beta) for s in scores]),
            "rewards/accuracies": mean([s.win for s in scores]),
        }
    return metrics | {
        "logps/chosen": mean([s.policy_chosen for s in scores]),
        "logps/rejected": mean([s.policy_rejected for s in scores]),
    }


class RunLog:
    """The file, appended to a line at a time; what a resumed run does again is taken back first."""

    def __init__(self, path: Path, step: int) -> None:
        """Keep the lines of the steps up to this one."""
        self.earlier = _lines(path, step)
        write_bytes(path, "".join(map(_line, self.earlier)).encode())
        self._file = path.open("a")

    def append(self, metrics: Mapping[str, Any]) -> None:
        """Add a line; what is not finite becomes null, as JSON has no such number."""
        self._file.write(_line(metrics))
        self._file.flush()

    def flush(self) -> None:
        """Make durable what was appended."""
        os.fsync(self._file.fileno())

    def close(self) -> None:
        """Close the file."""
        self._file.close()


def _line(metrics: Mapping[str, Any]) -> str:
    return json.dumps({name: _finite(value) for name, value in metrics.items()}, allow_nan=False) + "\n"


def _finite(value: Any) -> Any:
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _lines(path: Path, step: int) -> list[dict[str, Any]]:
    """What the file says of the steps up to this one; of later ones a kill may have left a part."""
    lines: list[dict[str, Any]] = []
    for text in path.read_text().splitlines(keepends=True) if path.exists() else ():
        if not text.endswith("\n") or (line := json.loads(text))["step"] > step:
            break
        lines.append(line)
    return lines
