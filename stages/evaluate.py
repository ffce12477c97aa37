"""Job three: score held-out pairs with a policy, take the reference side from the store, and give a verdict.

What was scored before of the same policy, pairs, reference and objective is judged again without a model.
"""

import logging
import time
from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np
import polars as pl

from data.durable import write_json
from data.errors import Interrupted, PipelineError
from data.schema import unique_responses
from stages.evaluation.comparison import check_comparable
from stages.evaluation.config import EvalConfig
from stages.evaluation.document import evaluation_document, judged_by
from stages.evaluation.evaluation import Evaluation, Findings
from stages.evaluation.others import Other
from stages.job import Control, JobReport, Laps
from stages.metrics.records import records_frame, with_facts
from stages.promotion import keep_scores
from stages.scoring.config import Numerics
from stages.units import ALL, Shard

logger = logging.getLogger(__name__)


def plan_evaluate(evaluation: Evaluation, config: EvalConfig, others: Sequence[Other]) -> JobReport:
    """What `evaluate` would do, without writing anything.

    Raises:
        ConfigError, StoreError: what is compared with does not fit, or is not there.
    """
    report = _report(evaluation)
    _check(evaluation, config, others)
    earlier = evaluation.earlier()
    if earlier is not None and _is_judged(evaluation, earlier, config, others):
        report.status = "nothing_to_do"
        return report
    report.status = "dry_run"
    plan = []
    if evaluation.scored() is None:
        responses = unique_responses(evaluation.pairs)
        report.responses_scored, report.tokens = len(responses), sum(len(response) for response in responses)
    if config.generate is not None:
        plan.append({"would": "generate", "what": f"responses to {config.generate.prompts} prompts, where not kept"})
    plan += [{"would": "run", "what": f"eval.external.{name}, where not kept"} for name in config.external]
    report.details["plan"] = [*plan, {"would": "judge", "what": evaluation.name}]
    return report


def evaluate(
    evaluation: Evaluation,
    config: EvalConfig | None,
    numerics: Numerics,
    control: Control,
    others: Sequence[Other] = (),
    worker: Shard = ALL,
) -> tuple[JobReport, dict[str, Any]]:
    """Write pairs.parquet, metrics.json and what was scored; returns the report and the metrics document.

    Without `config` nothing is judged: the verdict is None, or what it was before. Where there are several workers,
    each calls this; they score together, and the first one alone judges and writes (the others return no document).

    Raises:
        ConfigError: a limit on a metric that the data do not give, or another evaluation that does not fit.
        StoreError: another evaluation is missing.
        PipelineError: the policy gives numbers that are not finite.
    """
    report, earlier = _report(evaluation), evaluation.earlier()
    if earlier is not None and (config is None or _is_judged(evaluation, earlier, config, others)):
        logger.info("%s is evaluated already; no model was loaded", evaluation.name)
        report.status = "nothing_to_do"
        return report, earlier
    _check(evaluation, config or EvalConfig(), others)
    kept, facts = evaluation.scored(), evaluation.facts()  # a column that is not there is told before a model is loaded
    scores = _score(evaluation, numerics, control, report, worker) if kept is None else kept
    if worker.index > 0:
        return report, {}
    pairs = with_facts(scores, facts)
    if kept is not None and (config is None or not (config.generate or config.external)):
        report.status = "nothing_to_do"  # but to judge
    if kept is None or not pairs.equals(kept):
        evaluation.keep(pairs)
    findings = Findings() if config is None else evaluation.look_further(evaluation)
    document = evaluation_document(evaluation, pairs, findings, config, others)
    write_json(evaluation.folder / "metrics.json", document)
    if document["metrics"].get("ties") == len(evaluation.pairs):
        logger.warning("every margin is 0: the policy scores exactly as the reference does (was it trained?)")
    return report, document


def _check(evaluation: Evaluation, config: EvalConfig, others: Sequence[Other]) -> None:
    for other in others:
        check_comparable(evaluation.pairs.keys, evaluation.measure, other, config)


def _is_judged(evaluation: Evaluation, earlier: dict[str, Any], config: EvalConfig, others: Sequence[Other]) -> bool:
    """Whether this very verdict was given before."""
    return bool(earlier["judged_by"] == judged_by(evaluation, config, others, earlier))


def _report(evaluation: Evaluation) -> JobReport:
    report = JobReport("eval", "done", evaluation.name, pairs=len(evaluation.pairs))
    report.outputs = {
        "metrics": str(evaluation.folder / "metrics.json"),
        "pairs": str(evaluation.folder / "pairs.parquet"),
    }
    return report


def _score(
    evaluation: Evaluation, numerics: Numerics, control: Control, report: JobReport, worker: Shard
) -> pl.DataFrame:
    from stages.processes import working_together
    from stages.response_scores import score_pairs
    from stages.scoring.scorer import Batch, load_scorer

    pairs, responses = evaluation.pairs, unique_responses(evaluation.pairs)
    scorer = load_scorer(evaluation.policy, numerics, responses)
    started, laps = time.perf_counter(), Laps()
    with (
        working_together(worker, evaluation.train.ddp_timeout, "eval") as processes,
        control.bar("evaluating", len(pairs)) as bar,
    ):

        def scored(batch: Batch) -> None:
            of_all = processes.size  # the others are about as far
            bar.advance(of_all * len(pairs) * len(batch.responses) / len(responses), of_all * batch.n_tokens)
            if processes.is_first:
                control.worked("evaluation", of_all * laps.lap(), of_all * batch.n_tokens)
            report.tokens += batch.n_tokens
            if control.stop_requested():
                raise Interrupted(
                    "Stopped by a signal before the evaluation was complete; nothing of it was written. Run the same "
                    "command again."
                )

        keep = partial(keep_scores, evaluation.folder / "scores", evaluation.policy_id, pairs, stack=scorer.stack())
        kept = keep if processes.is_first else lambda _: None
        records = score_pairs(pairs, evaluation.reference, scorer, evaluation.train, scored, processes, kept)
        report.tokens = round(processes.total(report.tokens))
    report.seconds = time.perf_counter() - started
    report.responses_scored, report.pairs_scored = len(responses), len(pairs)
    scores = records_frame(records, evaluation.train.beta)
    _check_finite(scores, evaluation)
    return scores


def _check_finite(scores: pl.DataFrame, evaluation: Evaluation) -> None:
    sums = scores.select("policy_chosen_logps", "policy_rejected_logps", pl.col("loss").fill_null(0.0)).to_numpy()
    broken = np.flatnonzero(~np.isfinite(sums).all(axis=1))
    if len(broken):
        raise PipelineError(
            f"The policy {evaluation.policy} gives log-probs or losses that are not finite to {len(broken)} of "
            f"{len(sums)} held-out pairs, the first with the key {scores['pair_key'][int(broken[0])]}. Its weights "
            "are broken, or overflow under reference.dtype. Nothing was written. Look for a step without a finite "
            "loss in the run's metrics.jsonl, and train again with a lower train.learning_rate."
        )
