"""The jobs, each from its configuration to its report: gather the inputs, call the stage, keep what comes back."""

import logging
from typing import Any

from data.errors import ConfigError, GateError, StoreError
from pipeline.inputs import Inputs
from stages.evaluate import Evaluation, evaluate, plan_evaluate
from stages.job import JobReport
from stages.precompute_ref import plan_precompute, precompute_ref, settle
from stages.reference import field_diff, locate, unreachable, write_lock
from stages.reference_rows import reference_logps
from stages.run_folder import RunFolder
from stages.train import StartPolicy, finished, plan_train, train

logger = logging.getLogger(__name__)


def run_validate(inputs: Inputs) -> JobReport:
    """Read configuration and data, account for every row; loads no model."""
    reference = inputs.config.reference
    folder = locate(reference.model, reference.revision, download=True, weights=False)
    prepared = inputs.pairs(folder)
    report = JobReport("validate", pairs=prepared.coverage.used)
    report.outputs = {"prepared": str(inputs.workspace.pairs.path), "rejects": str(inputs.workspace.pairs.rejects)}
    report.details = {"coverage": prepared.coverage.document()}
    return report


def run_precompute_ref(inputs: Inputs) -> JobReport:
    """Job one."""
    bound = inputs.bind(renew=True)
    prepared = inputs.pairs(bound.folder)
    if inputs.dry_run:
        store = inputs.store(bound)
        report = plan_precompute(prepared.all, store)
    else:
        inputs.write_config(inputs.workspace.root)
        bound, scorer = settle(bound, inputs.numerics(bound), prepared.all)
        store = inputs.store(bound)
        write_lock(inputs.workspace.lock, inputs.config.reference, bound)
        unit_pairs = inputs.config.store.unit_pairs
        report = precompute_ref(prepared.all, store, bound, inputs.numerics(bound), unit_pairs, inputs.control, scorer)
    report.outputs = {"store": str(store.folder), "prepared": str(inputs.workspace.pairs.path)}
    report.details |= {"reference_id": bound.reference_id, "coverage": prepared.coverage.document()}
    return report


def run_train(inputs: Inputs) -> JobReport:
    """Job two."""
    config, workspace = inputs.config, inputs.workspace
    bound = inputs.bind(renew=False)
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
    reference = reference_logps(pairs, inputs.store(bound), bound, _command("precompute-ref"))
    start = StartPolicy(start_folder, is_reference=start_id == bound.reference_id)
    with run.only_writer():
        run.claim(document)
        inputs.write_config(run.path)
        report = train(
            pairs, reference, start, run, config.train, inputs.numerics(bound), workspace.pairs, inputs.control
        )
    workspace.link(workspace.latest, run)
    return report


def run_eval(inputs: Inputs) -> JobReport:
    """Job three."""
    bound = inputs.bind(renew=False)
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
    reference = reference_logps(pairs, inputs.store(bound), bound, _command("precompute-ref"))
    policy_id = inputs.model_id(run.policy, bound)
    evaluation = Evaluation(
        run, pairs, reference, inputs.config.train, prepared.coverage, policy_id, bound.reference_id
    )
    if inputs.dry_run:
        return plan_evaluate(evaluation)
    report, results = evaluate(evaluation, inputs.config.eval, inputs.numerics(bound), inputs.control)
    report.details = {key: results[key] for key in ("metrics", "n_pairs", "coverage", "gates", "verdict")}
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


JOBS = {"validate": run_validate, "precompute-ref": run_precompute_ref, "train": run_train, "eval": run_eval}
CHAIN = ("precompute-ref", "train", "eval")
