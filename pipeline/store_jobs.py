"""The commands that look after the store: what it holds, whether it is sound, what may go."""

import logging
import shutil
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from data.errors import StoreError
from data.schema import both_sides
from data.store.compaction import find_merges
from data.store.reference_store import ReferenceStore
from data.store.references import stored_references
from pipeline.eval_job import evaluation_of
from pipeline.inputs import Inputs
from pipeline.ledger import read, totals
from pipeline.redaction import redacted
from pipeline.run_list import run_list
from pipeline.start import start_policy
from stages.garbage import find_garbage, take_away
from stages.job import JobReport
from stages.model_files import unreachable
from stages.status import store_status
from stages.verify import rescore as rescore_pairs
from stages.verify import verify_store

logger = logging.getLogger(__name__)


def run_status(inputs: Inputs) -> JobReport:
    """What is stored, and what to run next."""
    bound = inputs.bind()
    prepared = inputs.pairs(bound.folder)
    start = start_policy(inputs, bound, prepared.splits, download=False)
    document = store_status(prepared.all, inputs.store(bound), bound, inputs.token_origin(bound))
    document["store"] = redacted(document["store"])
    run, _ = inputs.run(bound, prepared.splits, start.policy_id)
    if document["reference"]["pairs_missing"] and inputs.config.train.reads_reference:
        document["next"] = "pipeline precompute-ref"
    elif not run.is_trained:
        document["next"] = "pipeline train"
    else:
        free = inputs.config.eval.reference_free
        evaluation = evaluation_of(inputs, bound, run, prepared, read_store=False, reference_free=free)
        document["next"] = "pipeline eval" if evaluation.pairs and evaluation.earlier() is None else None
    document["ledger"] = totals(read(inputs.workspace.ledger), datetime.now(UTC))
    document["runs"] = run_list(inputs.workspace)
    return JobReport("status", run=run.path.name, pairs=document["reference"]["pairs_wanted"], details=document)


def run_verify(inputs: Inputs, rescore: int | None = None) -> JobReport:
    """Whether everything stored is what it says."""
    storage = inputs.workspace.storage(inputs.config.store)
    references = [
        {"name": found.name, **verify_store(ReferenceStore(storage, found.reference_id))}
        for found in stored_references(storage)
    ]
    problems = [problem for reference in references for problem in reference["problems"]]
    report = JobReport("verify", details={"references": references})
    if rescore is not None:
        outcome = _rescore(inputs, rescore)
        problems += outcome["problems"]
        report.details["rescored"] = outcome["rescored"]
    if problems:
        report.status, report.exit_code = "failed", StoreError.exit_code
        report.message = " ".join(problems)
    return report


def _rescore(inputs: Inputs, sample: int) -> dict[str, Any]:
    bound = inputs.bind()
    if bound.folder is None or not bound.own:
        raise unreachable("reference.model", bound.model)
    from stages.scoring.scorer import load_scorer

    pairs = inputs.pairs(bound.folder).all
    scorer = load_scorer(bound.folder, inputs.numerics(bound), both_sides(pairs))
    return rescore_pairs(pairs, inputs.store(bound), scorer, sample, inputs.config.reference.dtype)


def run_gc(inputs: Inputs, compact: bool = False, drop: Sequence[str] = ()) -> JobReport:
    """What may go, and with `--apply` its going."""
    workspace = inputs.workspace
    storage = workspace.storage(inputs.config.store)
    garbage = find_garbage(storage, workspace.references_in_use(), drop, own=inputs.config.store.url is None)
    report = JobReport("gc", "dry_run" if inputs.dry_run else "done", details=garbage.document())
    finished = [run for run in workspace.all_runs() if run.is_trained and run.checkpoint_bytes]
    report.details["checkpoints"] = [{"run": run.path.name, "bytes": run.checkpoint_bytes} for run in finished]
    answers = workspace.kept_for_nobody()
    report.details["generations"] = [folder.name for folder in answers]
    if not inputs.dry_run:
        take_away(storage, garbage)
        for folder in answers:
            shutil.rmtree(folder)
        for run in finished:
            run.drop_checkpoints()
    if compact:
        gone = {found.reference_id for found in garbage.references}
        stores = [ReferenceStore(storage, each.reference_id) for each in stored_references(storage)]
        report.details["parts_merged"] = report.details["parts_made"] = 0
        for store in stores:
            if store.reference_id in gone:
                continue
            for merge in find_merges(store):
                report.details["parts_merged"] += len(merge.names)
                report.details["parts_made"] += 1
                if not inputs.dry_run:
                    store.replace(merge.folder, merge.names, merge.table, merge.stack)
    return report
