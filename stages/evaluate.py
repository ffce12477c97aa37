"""Job three: score the held-out pairs with the policy, take the reference side from the store, and give a verdict.

An evaluation that was made before of the same policy, pairs, reference and objective is judged again without a model.
"""

import json
import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
from pydantic import Field, field_validator

from data.durable import write_bytes, write_json
from data.errors import Interrupted
from data.identity import document_key, set_key
from data.pairs.coverage import Coverage
from data.parquet import parquet_bytes
from data.schema import TokenPair, unique_responses
from data.settings import Settings
from stages.job import Control, JobReport
from stages.metrics.gates import Gate, judge
from stages.metrics.pairwise import PairScores
from stages.metrics.preference import METRIC_NAMES, METRICS_VERSION, PairRecord, preference_metrics
from stages.reference_rows import ReferenceLogps
from stages.run_folder import RunFolder
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
    """What is evaluated: the policy of a run on held-out pairs, under the objective that it was trained with."""

    run: RunFolder
    pairs: Sequence[TokenPair]
    reference: dict[str, ReferenceLogps]
    train: TrainConfig
    coverage: Coverage
    policy_id: str
    reference_id: str

    @property
    def folder(self) -> Path:
        """Where the results go."""
        return self.run.path / "eval"

    @property
    def identity(self) -> str:
        """sha256 over what the numbers depend on; dtypes are in the ids of policy and reference."""
        return document_key(
            {
                "metrics_version": METRICS_VERSION,
                "policy_id": self.policy_id,
                "reference_id": self.reference_id,
                "pairs": set_key(pair.key for pair in self.pairs),
                "objective": [self.train.objective, self.train.objective_parameters()],
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
    evaluation: Evaluation, gates: EvalConfig, numerics: Numerics, control: Control
) -> tuple[JobReport, dict[str, Any]]:
    """Write eval/pairs.parquet and eval/metrics.json; returns the report and the metrics document."""
    report = _report(evaluation)
    earlier = evaluation.earlier()
    if earlier is not None:
        logger.info("run %s is evaluated already; no model was loaded", evaluation.run.path.name)
        report.status, metrics = "nothing_to_do", earlier["metrics"]
    else:
        records = _score(evaluation, numerics, control, report)
        beta = evaluation.train.beta
        metrics = preference_metrics(records, beta)
        write_bytes(evaluation.folder / "pairs.parquet", parquet_bytes(_records_table(records, beta)))
    document = _document(evaluation, metrics, judge(metrics, gates.min, gates.max))
    if document != earlier:
        write_json(evaluation.folder / "metrics.json", document)
    if metrics["ties"] == len(evaluation.pairs):
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
    import torch

    from stages.scoring.scorer import load_scorer

    pairs, responses = evaluation.pairs, unique_responses(evaluation.pairs)
    scorer = load_scorer(evaluation.run.policy, numerics, responses)
    started = time.perf_counter()
    sums: dict[str, float] = {}
    with torch.inference_mode(), control.bar("evaluating", len(pairs)) as bar:
        for batch in scorer.plan([[response] for response in responses]):
            if control.stop_requested():
                raise Interrupted(
                    "Stopped by a signal before the evaluation was complete; nothing of it was written. Run the same "
                    "command again."
                )
            sums |= zip((r.key for r in batch.responses), scorer.logps(batch.responses).tolist(), strict=True)
            bar.advance(len(pairs) * len(batch.responses) / len(responses), batch.n_tokens)
            report.tokens += batch.n_tokens
    report.seconds, report.responses_scored, report.pairs_scored = (
        time.perf_counter() - started,
        len(responses),
        len(pairs),
    )
    reference = [evaluation.reference[pair.key] for pair in pairs]
    scores = [
        PairScores(sums[pair.chosen.key], sums[pair.rejected.key], ref.chosen, ref.rejected)
        for pair, ref in zip(pairs, reference, strict=True)
    ]
    return _records(pairs, scores, evaluation.train)


def _records(pairs: Sequence[TokenPair], scores: Sequence[PairScores], train: TrainConfig) -> list[PairRecord]:
    """The records in an order of their own (pair_key, row), so that no number depends on the source's order."""
    import torch

    from stages.objectives.preference import preference_loss

    columns = torch.tensor(scores, dtype=torch.float64).T
    counts = torch.tensor([(pair.chosen.n_scored, pair.rejected.n_scored) for pair in pairs]).T
    losses = preference_loss(train.objective, *columns, *counts, **train.objective_parameters()).tolist()
    records = [
        PairRecord(pair.row, pair.key, pair.prompt_key, score, pair.chosen.n_scored, pair.rejected.n_scored, loss)
        for pair, score, loss in zip(pairs, scores, losses, strict=True)
    ]
    return sorted(records, key=lambda record: (record.pair_key, record.row))


def _records_table(records: Sequence[PairRecord], beta: float) -> pa.Table:
    return pa.table(
        {
            "pair_key": [r.pair_key for r in records],
            "row": [r.row for r in records],
            "policy_chosen_logps": [r.scores.policy_chosen for r in records],
            "policy_rejected_logps": [r.scores.policy_rejected for r in records],
            "ref_chosen_logps": [r.scores.ref_chosen for r in records],
            "ref_rejected_logps": [r.scores.ref_rejected for r in records],
            "chosen_reward": [r.scores.chosen_reward(beta) for r in records],
            "rejected_reward": [r.scores.rejected_reward(beta) for r in records],
            "margin": [r.scores.margin(beta) for r in records],
            "n_chosen": [r.n_chosen for r in records],
            "n_rejected": [r.n_rejected for r in records],
            "loss": [r.loss for r in records],
            "prompt_key": [r.prompt_key for r in records],
        }
    )


def _document(evaluation: Evaluation, metrics: dict[str, float], gates: Sequence[Gate]) -> dict[str, Any]:
    return {
        "schema_version": SCHEMA_VERSION,
        "identity": evaluation.identity,
        "metrics": metrics,
        "n_pairs": len(evaluation.pairs),
        "coverage": evaluation.coverage.document(),
        "slices": {},
        "gates": [gate.document() for gate in gates],
        "verdict": "failed" if any(not gate.passed for gate in gates) else "passed",
    }
