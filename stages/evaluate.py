"""Job three: score held-out pairs with the policy, take the reference side from the store, and give a verdict.

An evaluation that was made before of the same policy, pairs, reference and objective is judged again without a model.
"""

import json
import logging
import time
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, field_validator

from data.durable import write_bytes, write_json
from data.errors import Interrupted
from data.identity import document_key
from data.pairs.coverage import Coverage
from data.parquet import parquet_bytes
from data.schema import unique_responses
from data.settings import Settings
from data.tokens.token_pairs import TokenPairs
from stages.job import Control, JobReport
from stages.metrics.gates import judge
from stages.metrics.preference import METRIC_NAMES, METRICS_VERSION, preference_metrics
from stages.metrics.records import PairRecord, records_table
from stages.promotion import keep_scores
from stages.reference_rows import ReferenceLogps
from stages.run_folder import RunFolder, visits_key
from stages.scoring.config import Numerics
from stages.training.config import TrainConfig

logger = logging.getLogger(__name__)

SCHEMA_VERSION = 1


class EvalConfig(Settings):
    """Section `eval`: the gates. A metric with an interval is judged by the interval's strict side."""

    min: dict[str, float] = Field(default_factory=dict)
    """Least values by metric name, such as {reward_accuracy: 0.6}; exit code 5 below."""
    max: dict[str, float] = Field(default_factory=dict)
    """Greatest values by metric name; exit code 5 above."""

    @field_validator("min", "max")
    @classmethod
    def _known(cls, gates: dict[str, float]) -> dict[str, float]:
        unknown = sorted(set(gates) - set(METRIC_NAMES))
        if unknown:
            raise ValueError(f"no such metric: {', '.join(unknown)}; known: {', '.join(METRIC_NAMES)}")
        return gates


@dataclass(frozen=True)
class Evaluation:
    """What is evaluated: the policy of a run on pairs of a split, under the objective that it was trained with."""

    run: RunFolder
    pairs: TokenPairs
    reference: dict[str, ReferenceLogps] | None
    """By pair key; None where the objective reads none."""
    train: TrainConfig
    coverage: Coverage
    policy_id: str
    reference_id: str
    split: Literal["eval", "dev"] = "eval"
    """Which the pairs are of, and the name of the folder."""

    @property
    def folder(self) -> Path:
        """Where the results go."""
        return self.run.path / self.split

    @property
    def identity(self) -> str:
        """sha256 over what the numbers depend on; dtypes are in the ids of policy and reference."""
        return document_key(
            {
                "metrics_version": METRICS_VERSION,
                "policy_id": self.policy_id,
                "reference_id": self.reference_id if self.train.reads_reference else None,
                "pairs": visits_key(self.pairs),
                "objective": self.train.objective_identity(),
            }
        )

    def earlier(self) -> dict[str, Any] | None:
        """The metrics document of this very evaluation, if it was made before."""
        try:
            document = dict(json.loads((self.folder / "metrics.json").read_bytes()))
        except (FileNotFoundError, ValueError):
            return None
        whole = document.get("identity") == self.identity and (self.folder / "pairs.parquet").is_file()
        return document if whole else None


def plan_evaluate(evaluation: Evaluation) -> JobReport:
    """What `evaluate` would do, without writing anything."""
    report = _report(evaluation)
    if evaluation.earlier() is not None:
        report.status = "nothing_to_do"
        return report
    responses = unique_responses(evaluation.pairs)
    report.status, report.responses_scored = "dry_run", len(responses)
    report.tokens = sum(len(response) for response in responses)
    return report


def evaluate(
    evaluation: Evaluation, gates: EvalConfig | None, numerics: Numerics, control: Control
) -> tuple[JobReport, dict[str, Any]]:
    """Write pairs.parquet, metrics.json and what was scored; returns the report and the metrics document.

    Without `gates` nothing is judged: the verdict is None, or what it was before.
    """
    report = _report(evaluation)
    earlier = evaluation.earlier()
    if earlier is not None:
        logger.info("run %s is evaluated already; no model was loaded", evaluation.run.path.name)
        report.status, metrics = "nothing_to_do", earlier["metrics"]
    else:
        records = _score(evaluation, numerics, control, report)
        beta = evaluation.train.beta
        metrics = preference_metrics(records, beta, rewards=evaluation.reference is not None)
        write_bytes(evaluation.folder / "pairs.parquet", parquet_bytes(records_table(records, beta)))
    document = _document(evaluation, metrics) | _verdict(metrics, gates, earlier)
    if document != earlier:
        write_json(evaluation.folder / "metrics.json", document)
    if metrics.get("ties") == len(evaluation.pairs):
        logger.warning("every margin is 0: the policy scores exactly as the reference does (was it trained?)")
    return report, document


def _report(evaluation: Evaluation) -> JobReport:
    report = JobReport("eval", "done", evaluation.run.path.name, pairs=len(evaluation.pairs))
    report.outputs = {
        "metrics": str(evaluation.folder / "metrics.json"),
        "pairs": str(evaluation.folder / "pairs.parquet"),
    }
    return report


def _score(evaluation: Evaluation, numerics: Numerics, control: Control, report: JobReport) -> list[PairRecord]:
    from stages.response_scores import score_pairs
    from stages.scoring.scorer import Batch, load_scorer

    pairs, responses = evaluation.pairs, unique_responses(evaluation.pairs)
    scorer = load_scorer(evaluation.run.policy, numerics, responses)
    started = time.perf_counter()
    with control.bar("evaluating", len(pairs)) as bar:

        def scored(batch: Batch) -> None:
            bar.advance(len(pairs) * len(batch.responses) / len(responses), batch.n_tokens)
            report.tokens += batch.n_tokens
            if control.stop_requested():
                raise Interrupted(
                    "Stopped by a signal before the evaluation was complete; nothing of it was written. Run the same "
                    "command again."
                )

        keep = partial(keep_scores, evaluation.folder / "scores", evaluation.policy_id, pairs, stack=scorer.stack())
        records = score_pairs(pairs, evaluation.reference, scorer, evaluation.train, scored, keep=keep)
    report.seconds, report.responses_scored, report.pairs_scored = (
        time.perf_counter() - started,
        len(responses),
        len(pairs),
    )
    return records


def _document(evaluation: Evaluation, metrics: dict[str, float]) -> dict[str, Any]:
    return {
        "schema_version": SCHEMA_VERSION,
        "identity": evaluation.identity,
        "metrics": metrics,
        "n_pairs": len(evaluation.pairs),
        "coverage": evaluation.coverage.document(),
        "slices": {},
    }


def _verdict(metrics: dict[str, float], gates: EvalConfig | None, earlier: dict[str, Any] | None) -> dict[str, Any]:
    if gates is None:
        return {"gates": [], "verdict": None} if earlier is None else {k: earlier[k] for k in ("gates", "verdict")}
    judged = judge(metrics, gates.min, gates.max)
    verdict = "failed" if any(not gate.passed for gate in judged) else "passed"
    return {"gates": [gate.document() for gate in judged], "verdict": verdict}
