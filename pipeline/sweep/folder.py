"""The folder of one grid: what its runs come to, written anew by whoever has finished one.

sweep.json        every run, every setting, the choice, the noise of seeds
table.md          the settings as a table
sweep.svg         held-out accuracy against drift, where matplotlib is installed
lock              held while these are written
"""

import json
import logging
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from data.durable import write_bytes, write_json
from data.locks import only_process
from pipeline.sweep.comparison import RunResult, comparison
from pipeline.sweep.plot import picture
from pipeline.sweep.runs import GridRuns
from pipeline.sweep.table import markdown

SCHEMA_VERSION = 2

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class SweepFolder:
    """Where the results of a grid go."""

    path: Path

    def write(self, runs: GridRuns, failures: Mapping[int, str], *, draw: bool = False) -> dict[str, Any]:
        """Compare all runs that are finished, by whichever worker; returns the document of sweep.json.

        `failures`: why runs of this worker failed, by grid point; those of others are kept until they are finished.
        """
        with only_process(self.path / "lock", busy=lambda: None):  # so that the last one to look sees every run
            before = self._before()
            told = {run["run"]: run["message"] for run in before.get("runs", []) if run["status"] == "failed"}
            results = [_result(runs, i, failures, told) for i in range(len(runs.points))]
            splits = runs.prepared.splits
            document = {
                "schema_version": SCHEMA_VERSION,
                "identity": runs.identity,
                "metric": runs.metric,
                **comparison(results, len(splits["dev"]), len(splits["eval"])),
                "seed_sd_beyond_pairs": runs.seed_sd_beyond_pairs(),
            }
            if document != before:
                write_json(self.path / "sweep.json", document)
            self._replace("table.md", markdown(document).encode())
            if draw and (svg := picture(document)) is not None:
                self._replace("sweep.svg", svg)
        return document

    def outputs(self) -> dict[str, str]:
        """The files that are there, by what they are."""
        names = {"sweep": "sweep.json", "table": "table.md", "picture": "sweep.svg"}
        return {what: str(self.path / name) for what, name in names.items() if (self.path / name).is_file()}

    def _before(self) -> dict[str, Any]:
        try:
            document = dict(json.loads((self.path / "sweep.json").read_bytes()))
        except (FileNotFoundError, ValueError, TypeError):
            return {}
        return document if document.get("schema_version") == SCHEMA_VERSION else {}

    def _replace(self, name: str, content: bytes) -> None:
        path = self.path / name
        if not path.is_file() or path.read_bytes() != content:
            write_bytes(path, content)


def _result(runs: GridRuns, i: int, failures: Mapping[int, str], told: Mapping[str, str]) -> RunResult:
    finished, pending = runs.finished(i), runs.pending(i)
    message = failures.get(i, told.get(pending.run))
    if finished is not None:
        return finished
    return pending if message is None else replace(pending, status="failed", message=message)
