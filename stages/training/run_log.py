"""metrics.jsonl: one JSON object a step, under the names that TRL uses; what a run has said of itself so far."""

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from data.durable import write_bytes
from stages.training.step import StepResult


def step_metrics(result: StepResult, beta: float, *, rewards: bool) -> dict[str, float]:
    """What a step says of its pairs on average; without `rewards` (no reference) log-probs only."""

    def mean(values: Sequence[float]) -> float:
        return math.fsum(values) / len(values)

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

    def __init__(self, path: Path, steps: int) -> None:
        """Keep the lines of the first `steps` steps."""
        lines = _whole_lines(path)[:steps]
        write_bytes(path, "".join(lines).encode())
        self.earlier = [json.loads(line) for line in lines]
        self._file = path.open("a")

    def append(self, metrics: Mapping[str, Any]) -> None:
        """Add a line; what is not finite becomes null, as JSON has no such number."""
        values = {name: _finite(value) for name, value in metrics.items()}
        self._file.write(json.dumps(values, allow_nan=False) + "\n")
        self._file.flush()

    def close(self) -> None:
        """Close the file."""
        self._file.close()


def _finite(value: Any) -> Any:
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _whole_lines(path: Path) -> list[str]:
    if not path.exists():
        return []
    return [line for line in path.read_text().splitlines(keepends=True) if line.endswith("\n")]
