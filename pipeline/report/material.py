"""What a report is made of, read from where the jobs left it; all but metrics and pairs may be missing.

metrics.json pairs.parquet     of the evaluation's folder, always
generations.parquet            beside them, with eval.generate
metrics.jsonl config.yaml      of the run, where the policy is a run's
jobs/*.json                    of the work folder: what the last job of each kind took
"""

import hashlib
import json
import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import polars as pl

from data.errors import StoreError, one_line
from stages.evaluation.evaluation import SCHEMA_VERSION, evaluation_of_pairs
from stages.run_folder import RunFolder

_OF_A_JOB = ("pairs", "pairs_scored", "pairs_stored_before", "tokens", "seconds", "seconds_saved", "device")
"""What is told of a job, out of its document."""

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class WrongPair:
    """A pair that the policy has the wrong way round, with its texts."""

    location: str
    key: str
    margin: float
    """Of rewards, or of log-probs where there is no reference."""
    prompt: str
    chosen: str
    rejected: str


@dataclass(frozen=True)
class Material:
    """All of it."""

    document: dict[str, Any]
    """metrics.json."""
    pairs: pl.DataFrame
    generations: pl.DataFrame | None = None
    steps: list[dict[str, Any]] = field(default_factory=list)
    """metrics.jsonl, an entry for each optimiser step."""
    configuration: str | None = None
    """The config.yaml of the run, or of the evaluation of a model that is no run's."""
    jobs: dict[str, dict[str, Any]] = field(default_factory=dict)
    """By the job's name, the document of its last run that did something, if it was about this run or reference."""
    costs: dict[str, Any] = field(default_factory=dict)
    """What scoring the reference took, as stages.costs.ledger has it."""
    settings: dict[str, Any] = field(default_factory=dict)
    """Section `eval` of the configuration."""
    stack: dict[str, str] = field(default_factory=dict)
    """Versions and device that scored the pairs."""
    wrong: list[WrongPair] = field(default_factory=list)
    """The most wrong pairs, if their texts are to be shown."""

    @property
    def key(self) -> str:
        """sha256 over all that a report is made of; of the pairs, that of their evaluation stands for them."""
        shown = int(self.settings.get("show_pairs") or 0)
        samples = [] if self.generations is None else self.generations.head(shown).to_dicts()
        others = {name: value for name, value in vars(self).items() if name not in ("pairs", "generations", "wrong")}
        everything = {**others, "samples": samples, "wrong": [vars(pair) for pair in self.wrong]}
        return hashlib.sha256(json.dumps(everything, sort_keys=True).encode()).hexdigest()

    @property
    def metrics(self) -> dict[str, float]:
        """The flat metrics."""
        found: dict[str, float] = self.document["metrics"]
        return found


def read_evaluation(folder: Path) -> tuple[dict[str, Any], pl.DataFrame]:
    """The metrics document of an evaluation and its pairs.

    Raises:
        StoreError: they are missing, cannot be read, or another version wrote them.
    """
    try:
        document = dict(json.loads((folder / "metrics.json").read_bytes()))
        pairs = pl.read_parquet(folder / "pairs.parquet")
    except (OSError, ValueError, TypeError, pl.exceptions.PolarsError) as error:
        raise StoreError(
            f"There is no whole evaluation in {folder} ({type(error).__name__}: {error}), so there is nothing to "
            "report on. Run: pipeline eval (with the same --config and --set)."
        ) from error
    if document.get("schema_version") != SCHEMA_VERSION:
        raise StoreError(
            f"{folder / 'metrics.json'} has schema_version {document.get('schema_version')}, and reports are made of "
            f"{SCHEMA_VERSION}: another version of this program wrote it. Run `pipeline eval` again, which brings it "
            "up to date."
        )
    if evaluation_of_pairs(folder / "pairs.parquet") != document["identity"]:
        raise StoreError(
            f"{folder / 'pairs.parquet'} has the scores of another evaluation than metrics.json beside it: one that "
            "was stopped before its verdict. Run `pipeline eval` again, which goes on from these scores."
        )
    return document, pairs


def read_generations(folder: Path) -> pl.DataFrame | None:
    """What policy and reference wrote, if anything is to be had."""
    path = folder / "generations.parquet"
    try:
        return pl.read_parquet(path)
    except FileNotFoundError:
        return None
    except (pl.exceptions.PolarsError, OSError) as error:
        again = "remove metrics.json beside it, and `pipeline eval` writes both again"
        logger.warning("%s cannot be read (%s) and is left out; %s", path, one_line(error), again)
        return None


def read_steps(run: RunFolder) -> list[dict[str, Any]]:
    """The lines of metrics.jsonl; one that is torn ends them."""
    steps = []
    try:
        lines = (run.path / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    except (FileNotFoundError, ValueError):
        return []
    for line in lines:
        try:
            steps.append(dict(json.loads(line)))
        except (ValueError, TypeError):
            logger.warning("a line of %s is not JSON; the curves end before it", run.path / "metrics.jsonl")
            break
    return steps


def read_configuration(folder: Path) -> str | None:
    """The config.yaml of a run, or of an evaluation that is no run's."""
    try:
        return (folder / "config.yaml").read_text(encoding="utf-8")
    except (FileNotFoundError, ValueError):
        return None


def jobs_about(jobs: Mapping[str, dict[str, Any] | None], run: str | None, reference: str | None) -> dict[str, Any]:
    """Those of the jobs' documents that are about this run (or model), or score this reference."""
    found = {}
    for name, job in jobs.items():
        for one in [] if job is None else [job, *_models_of(job)]:
            about = one.get("reference_id") == reference if name == "precompute-ref" else one.get("run") == run
            if about and one["seconds"] > 0:
                found[name] = {key: one[key] for key in _OF_A_JOB if key in one}
    return found


def _models_of(job: dict[str, Any]) -> list[dict[str, Any]]:
    """The evaluations that one job made of several models, each on the job's device."""
    return [{"device": job.get("device", ""), **model} for model in job.get("models") or []]
