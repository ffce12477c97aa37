"""Job one: the reference is scored on all pairs that the store does not have."""

import logging
import time
from typing import Any

from data.errors import Interrupted
from data.pairs.preparation import PreparedPairs
from data.store.reference_store import missing_keys
from data.tokens.token_pairs import TokenPairs
from data.tokens.tokenization import end_ids, load_tokenizer
from pipeline.inputs import Inputs
from pipeline.records import recorded
from pipeline.snapshots import keep_snapshot, since_last
from pipeline.workers import shard_of
from stages.evaluation.reference_report import first_look
from stages.job import JobReport
from stages.precompute_ref import Precomputation, find_work, plan_precompute, precompute_ref, settle
from stages.promotion import promotable, promote, settle_by_evaluation
from stages.reference import BoundReference, write_lock
from stages.units import ALL, Shard

_LOOK_SECONDS = 1.0  # between looks at what other workers have stored

logger = logging.getLogger(__name__)


def run_precompute_ref(inputs: Inputs, shard: str | None = None, accept_drift: bool = False) -> JobReport:
    """Job one, where the objective reads the reference."""
    share = shard_of(shard)
    bound = inputs.bind(download=True)
    prepared = inputs.pairs(bound.folder)
    if not inputs.config.train.reads_reference:
        why = f"train.objective: {inputs.config.train.objective_name()} reads no reference"
        return JobReport("precompute-ref", "nothing_to_do", pairs=len(prepared.all), details={"why": why})
    return score_reference(inputs, bound, prepared, share, accept_drift=accept_drift)


def score_reference(
    inputs: Inputs, bound: BoundReference, prepared: PreparedPairs, share: Shard = ALL, *, accept_drift: bool = False
) -> JobReport:
    """Job one, whatever the objective."""
    with recorded(inputs, "precompute-ref", shard=str(share)) as record:
        report = record.report = _score(record.inputs, bound, prepared, share, accept_drift)
        record.facts |= {name: report.details[name] for name in ("reference_id", "reference")}
    return report


def _score(
    inputs: Inputs, bound: BoundReference, prepared: PreparedPairs, share: Shard, accept_drift: bool
) -> JobReport:
    bound = settle_by_evaluation(bound, inputs.workspace.runs)
    evaluated = promotable(inputs.store(bound), bound, inputs.workspace.runs)
    promoted = [key for keys in evaluated.values() for key in keys]
    job = precomputation(inputs, bound, prepared.all, share, accept_drift)
    if inputs.dry_run:
        report = plan_precompute(job, promoted)
        report.details |= since_last(inputs.workspace, prepared)
    else:
        inputs.write_config(inputs.workspace.root)
        promote(job.store, bound, evaluated)
        bound, scorer = settle(job)
        job = precomputation(inputs, bound, prepared.all, share, accept_drift)
        todo = find_work(job)
        write_lock(inputs.workspace.lock, inputs.config.reference, bound)
        report = precompute_ref(job, todo, inputs.control, scorer)
        if share.index == 0:
            keep_snapshot(inputs.workspace, prepared)
            report.details |= _look_at_reference(inputs, bound, job) if report.responses_scored else {}
    report.outputs = {"store": str(job.store), "prepared": str(inputs.workspace.pairs.path)}
    report.details |= {
        "reference_id": bound.reference_id,
        "reference": bound.name,
        "pairs_promoted": len(promoted),
        "shard": str(share),
        "coverage": prepared.coverage.document(),
    }
    return report


def _look_at_reference(inputs: Inputs, bound: BoundReference, job: Precomputation) -> dict[str, Any]:
    """Warn where what was stored looks like a base model's, or of a wrong template."""
    tokenizer = load_tokenizer(inputs.workspace.pairs.tokenizer)
    ends = end_ids(tokenizer, inputs.tokenization(bound.folder)["generation_eos"])
    found = first_look(job.pairs, job.store, ends)
    for sentence in found["warnings"]:
        logger.warning("%s", sentence)
    return {"reference_report": found}


def await_other_workers(inputs: Inputs) -> None:
    """Until the store is complete: whoever has scored its share goes on when the others have.

    No connection is held meanwhile, so none can time out; a worker that fails ends the others through torchrun.
    """
    if not inputs.config.train.reads_reference:
        return
    bound = inputs.bind()
    pairs, store = inputs.pairs(bound.folder).all, inputs.store(bound)
    wanted = pairs.keys.unique()
    while missing := len(missing_keys(wanted.to_list(), store.rows(["pair_key"], damaged="skip"))):
        if inputs.control.stop_requested():
            raise Interrupted(
                f"Stopped by a signal while other workers were scoring {missing} pairs; what is scored is stored. Run "
                "the same command again."
            )
        time.sleep(_LOOK_SECONDS)


def precomputation(
    inputs: Inputs, bound: BoundReference, pairs: TokenPairs, shard: Shard, accept_drift: bool
) -> Precomputation:
    """What job one is to do."""
    return Precomputation(
        pairs,
        inputs.store(bound),
        bound,
        inputs.numerics(bound),
        inputs.config.store,
        shard,
        inputs.token_origin(bound),
        accept_drift,
    )
