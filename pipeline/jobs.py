"""The jobs, each from its configuration to its report: gather the inputs, call the stage, keep what comes back."""

import logging
from collections.abc import Callable, Collection
from typing import Any

from data.errors import ConfigError, GateError, StoreError
from data.field_diff import field_diff
from data.tokens.token_pairs import TokenPairs
from pipeline.exchange_jobs import run_export, run_import
from pipeline.inputs import Inputs
from pipeline.inspect_job import run_inspect
from pipeline.snapshots import keep_snapshot, since_last
from pipeline.store_jobs import run_gc, run_status, run_verify
from pipeline.workers import shard_of
from stages.costs import seconds_spared
from stages.evaluate import Evaluation, evaluate, plan_evaluate
from stages.job import JobReport
from stages.model_files import locate, unreachable
from stages.precompute_ref import Precomputation, find_work, plan_precompute, precompute_ref, settle
from stages.reference import BoundReference, write_lock
from stages.reference_rows import ReferenceLogps, reference_logps, values_digest
from stages.run_folder import RunFolder
from stages.train import StartPolicy, finished, plan_train, train
from stages.units import Shard

_SHOWN_REJECTS = 100  # rows in the document of `validate`; all of them stand in rejects.parquet

logger = logging.getLogger(__name__)


def run_validate(inputs: Inputs) -> JobReport:
    """Read configuration and data, account for every row; loads no model."""
    reference = inputs.config.reference
    folder = locate(reference.model, reference.revision, download=True, weights=False)
    prepared = inputs.pairs(folder)
    report = JobReport("validate", pairs=prepared.coverage.used)
    report.outputs = {"prepared": str(inputs.workspace.pairs.path), "rejects": str(inputs.workspace.pairs.rejects)}
    rejected = [vars(rejection) for rejection in prepared.rejections[:_SHOWN_REJECTS]]
    report.details = {"coverage": prepared.coverage.document(), "rejected_rows": rejected, "example": prepared.example}
    report.details |= since_last(inputs.workspace, prepared)
    return report


def run_precompute_ref(inputs: Inputs, shard: str | None = None, accept_drift: bool = False) -> JobReport:
    """Job one."""
    share = shard_of(shard)
    bound = inputs.bind(download=True)
    prepared = inputs.pairs(bound.folder)
    job = precomputation(inputs, bound, prepared.all, share, accept_drift)
    if inputs.dry_run:
        report = plan_precompute(job)
        report.details |= since_last(inputs.workspace, prepared)
    else:
        inputs.write_config(inputs.workspace.root)
        bound, scorer = settle(job)
        job = precomputation(inputs, bound, prepared.all, share, accept_drift)
        todo = find_work(job)
        write_lock(inputs.workspace.lock, inputs.config.reference, bound)
        report = precompute_ref(job, todo, inputs.control, scorer)
        if share.index == 0:
            keep_snapshot(inputs.workspace, prepared)
    report.outputs = {"store": str(job.store), "prepared": str(inputs.workspace.pairs.path)}
    report.details |= {
        "reference_id": bound.reference_id,
        "reference": bound.name,
        "shard": str(share),
        "coverage": prepared.coverage.document(),
    }
    return report


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


def run_train(inputs: Inputs) -> JobReport:
    """Job two."""
    config, workspace = inputs.config, inputs.workspace
    bound = inputs.bind(hold_to_lock=True)
    pairs = inputs.pairs(bound.folder).splits["train"]
    start_id, start_folder = inputs.start_policy(bound, download=True)
    run, document = inputs.run(bound, pairs, start_id)
    if inputs.dry_run:
        return plan_train(pairs, run, config.train, start_folder)
    if run.is_trained and run.holds(document):
        workspace.link(workspace.latest, run)
        return finished(pairs, run)
    if start_folder is None:
        raise unreachable("train.model" if config.train.model else "reference.model", config.train.model or bound.model)
    parts = run.pinned_parts() or inputs.store(bound).part_names()
    reference = _reference_logps(inputs, bound, pairs, parts)
    start = StartPolicy(start_folder, is_reference=start_id == bound.reference_id)
    with run.only_writer():
        if run.is_trained and run.holds(document):  # by another process, since it was asked above
            return finished(pairs, run)
        run.claim(document)
        inputs.write_config(run.path)
        run.pin(parts, values_digest(reference))
        report = train(
            pairs, reference, start, run, config.train, inputs.numerics(bound), workspace.pairs, inputs.control
        )
        report.details |= seconds_spared(inputs.store(bound), len(pairs), config.train.epochs)
    workspace.link(workspace.latest, run)
    return report


def _reference_logps(
    inputs: Inputs, bound: BoundReference, pairs: TokenPairs, parts: Collection[str] | None = None
) -> dict[str, ReferenceLogps]:
    """The stored sums, of these parts where they are all there still."""
    store = inputs.store(bound)
    only = parts if parts is not None and set(parts) <= set(store.part_names()) else None
    return reference_logps(
        pairs.keys.to_list(), store, bound, _command("precompute-ref"), inputs.token_origin(bound), only
    )


def run_eval(inputs: Inputs) -> JobReport:
    """Job three."""
    bound = inputs.bind(hold_to_lock=True)
    prepared = inputs.pairs(bound.folder)
    pairs = prepared.splits["eval"]
    if not pairs:
        raise ConfigError(
            "No pairs are held out, so there is nothing to evaluate on. Set data.eval_fraction above 0, or name a "
            "source under data.eval, and run the three jobs again."
        )
    start_id, _ = inputs.start_policy(bound, download=False)
    run, document = inputs.run(bound, prepared.splits["train"], start_id)
    _check_trained(inputs, run, document)
    reference = _reference_logps(inputs, bound, pairs)
    policy_id = inputs.model_id(run.policy, bound)
    evaluation = Evaluation(
        run, pairs, reference, inputs.config.train, prepared.coverage, policy_id, bound.reference_id
    )
    if inputs.dry_run:
        return plan_evaluate(evaluation)
    report, results = evaluate(evaluation, inputs.config.eval, inputs.numerics(bound), inputs.control)
    report.details = {key: results[key] for key in ("metrics", "n_pairs", "coverage", "gates", "verdict")}
    report.details |= seconds_spared(inputs.store(bound), len(pairs))
    _apply_verdict(inputs, run, report, results)
    return report


def _apply_verdict(inputs: Inputs, run: RunFolder, report: JobReport, results: dict[str, Any]) -> None:
    if results["verdict"] == "passed":
        inputs.workspace.link(inputs.workspace.passed, run)
        return
    failed = [gate for gate in results["gates"] if not gate["passed"]]
    sentences = "; ".join(
        f"{gate['measured_on']} is {gate['value']:.4f}, {gate['kind']} {gate['limit']:g} is wanted" for gate in failed
    )
    report.status, report.exit_code = "failed", GateError.exit_code
    report.message = (
        f"The policy of run {run.path.name} does not pass: {sentences}. It was not made `passed`; the figures are in "
        f"{report.outputs['metrics']}. Train differently, or change the gates under eval.min and eval.max."
    )


def _check_trained(inputs: Inputs, run: RunFolder, document: dict[str, Any]) -> None:
    """The run must be there, be the one that the configuration stands for, and be finished."""
    held = run.document()
    if held is not None and not run.holds(document):
        raise ConfigError(
            f"The run folder {run.path} holds another run, which differs from the configuration in: "
            f"{'; '.join(field_diff(held, document))}. Evaluate it with its own, {run.path / 'config.yaml'}."
        )
    if run.is_trained:
        return
    other = inputs.workspace.latest.document()
    hint = f" The latest run differs in: {'; '.join(field_diff(other, document))}." if other not in (None, held) else ""
    raise StoreError(
        f"There is no trained policy in {run.path}, where this configuration's belongs.{hint} Run: {_command('train')}."
    )


def _command(job: str) -> str:
    return f"pipeline {job} (with the same --config and --set)"


JOBS: dict[str, Callable[..., JobReport]] = {
    "validate": run_validate,
    "inspect": run_inspect,
    "precompute-ref": run_precompute_ref,
    "train": run_train,
    "eval": run_eval,
    "status": run_status,
    "verify": run_verify,
    "gc": run_gc,
    "export": run_export,
    "import": run_import,
}
CHAIN = ("precompute-ref", "train", "eval")
