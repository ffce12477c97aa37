"""The runs of a work folder for `pipeline status`: how far each is, its verdict, when."""

import json
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from pipeline.workspace import Workspace
from stages.run_folder import RunFolder

SHOWN = 5
_TAIL = 65536  # bytes of metrics.jsonl, far more than its last line has


def run_list(workspace: Workspace) -> dict[str, Any]:
    """How many there are, and the newest."""
    runs = sorted(workspace.all_runs(), key=_touched, reverse=True)
    return {"total": len(runs), "newest": [_entry(run) for run in runs[:SHOWN]]}


def in_words(found: dict[str, Any]) -> list[str]:
    """The list, for people."""
    if not found["total"]:
        return []
    newest = f", the newest {len(found['newest'])}" if found["total"] > len(found["newest"]) else ""
    lines = [f"{'1 run' if found['total'] == 1 else str(found['total']) + ' runs'}{newest}"]
    for run in found["newest"]:
        state = run["verdict"] or ("not evaluated" if run["trained"] else "not finished")
        lines.append(f"  {run['run']}  step {run['steps']}, {state}, {run['when'][:16].replace('T', ' ')} UTC")
    return lines


def _entry(run: RunFolder) -> dict[str, Any]:
    verdict = None
    with suppress(FileNotFoundError, ValueError, KeyError, TypeError):
        verdict = json.loads((run.path / "eval" / "metrics.json").read_bytes())["verdict"]
    when = datetime.fromtimestamp(_touched(run), UTC).isoformat(timespec="seconds")
    steps = max(_last_step(run.path / "metrics.jsonl"), run.checkpointed_step)
    return {"run": run.path.name, "steps": steps, "trained": run.is_trained, "verdict": verdict, "when": when}


def _touched(run: RunFolder) -> float:
    """When it was trained, or last written to, in seconds since 1970."""
    if run.is_trained:
        return run.trained_at / 1e9
    times = [0.0]
    for name in ("run.json", "metrics.jsonl"):
        with suppress(FileNotFoundError):
            times.append((run.path / name).stat().st_mtime)
    return max(times)


def _last_step(metrics: Path) -> int:
    try:
        with metrics.open("rb") as file:
            file.seek(max(0, metrics.stat().st_size - _TAIL))
            lines = file.read().splitlines()
    except FileNotFoundError:
        return 0
    for line in reversed(lines):
        with suppress(ValueError, KeyError, TypeError):
            return int(json.loads(line)["step"])
    return 0
