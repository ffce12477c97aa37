"""Jobs two and three: a policy is trained, and evaluated. `pipeline sweep` does the same to many."""

import logging
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from typing import Any, Literal

from data.errors import ConfigError, GateError, PipelineError, StoreError
from data.field_diff import field_diff
from data.pairs.preparation import PreparedPairs
from data.tokens.token_pairs import TokenPairs
from pipeline.inputs import Inputs
from pipeline.start import Start, keep_start, out_of_reach, start_policy
from pipeline.workers import shard_of
from stages.costs import seconds_spared
from stages.evaluate import Evaluation, evaluate, plan_evaluate
from stages.job import JobReport
from stages.objectives.config import unusual_betas
from stages.reference import BoundReference
from stages.reference_rows import ReferenceLogps, SplitPairs, reference_logps, values_digest
from stages.run_folder import RunFolder
from stages.train import finished, plan_train, train
from stages.training.job import StartPolicy, Training
from stages.training.lora import check_start
from stages.training.trackers import check_installed
from stages.units import ALL, Shard

logger = logging.getLogger(__name__)


def run_train(inputs: Inputs) -> JobReport:
    """Job two."""
    workspace = inputs.workspace
    bound = inputs.bind(hold_to_lock=True)
    worker = shard_of(None)
    prepared = inputs.pairs(bound.folder)
    start = start_policy(inputs, bound, prepared.splits, download=True)
    run, report = train_policy(inputs, bound, prepared, start, worker)
    if not inputs.dry_run and worker.index == 0:
        workspace.link(workspace.latest, run)
    return report


def train_policy(
    inputs: Inputs, bound: BoundReference, prepared: PreparedPairs, start: Start, worker: Shard = ALL
) -> tuple[RunFolder, JobReport]:
    """The run that the configuration stands for, trained now or before; by this `worker` and its like, if not alone."""
    config, pairs = inputs.config, prepared.splits["train"]
    if start.folder is not None:
        check_start(start.folder, config.train.lora, config.reference.quantization)
    run, document = inputs.run(bound, prepared.splits, start.policy_id)
    if inputs.dry_run:
        return run, plan_train(pairs, run, config.train, inputs.numerics(bound), start.folder)
    if run.is_trained and run.holds(document):
        keep_start(inputs, run, start)
        return run, finished(pairs, run)
    if start.folder is None:
        raise out_of_reach(inputs, start, run)
    check_installed(config.train.report_to)
    for sentence in unusual_betas(config.train):
        logger.warning("%s", sentence)
    policy = StartPolicy(start.folder, start.policy_id == bound.reference_id, start.name)
    pinned = run.pinned_parts() if run.holds(document) else None  # the folder of another run is refused below
    parts = pinned or (inputs.store(bound).part_names() if config.train.reads_reference else [])
    split = SplitPairs(pairs, stored_logps(inputs, bound, pairs, parts))
    dev = _dev_pairs(inputs, bound, prepared)
    # Of several processes the first one claims the folder, before the others go on.
    claim = _claimed(inputs, run, document, start, parts, split) if worker.index == 0 else nullcontext(True)
    with claim as is_ours:
        if not is_ours:
            return run, finished(pairs, run)
        job = Training(split, dev, policy, run, config.train, inputs.numerics(bound), inputs.workspace.pairs)
        try:
            report = train(job, inputs.control, worker)
        except PipelineError as error:
            error.run = run.path.name
            raise
        if split.reference is not None:
            report.details |= seconds_spared(inputs.store(bound), len(pairs), config.train.epochs)
    return run, report


@contextmanager
def _claimed(
    inputs: Inputs, run: RunFolder, document: dict[str, Any], start: Start, parts: Sequence[str], split: SplitPairs
) -> Iterator[bool]:
    """Hold the folder and write down what is begun in it; False where another process has finished it meanwhile."""
    with run.only_writer():
        if run.is_trained and run.holds(document):
            yield False
            return
        run.claim(document)
        keep_start(inputs, run, start)
        inputs.write_config(run.path)
        if split.reference is not None:
            run.pin(parts, values_digest(split.reference))
        yield True


def _dev_pairs(inputs: Inputs, bound: BoundReference, prepared: PreparedPairs) -> SplitPairs | None:
    """What training looks at every `train.eval_every` steps."""
    if inputs.config.train.eval_every == 0:
        return None
    pairs = prepared.splits["dev"]
    if not pairs:
        raise ConfigError(
            "train.eval_every asks for evaluations on dev pairs, and there are none. Set data.dev_fraction above 0 "
            "(0.05, say), or take train.eval_every out of the configuration."
        )
    return SplitPairs(pairs, stored_logps(inputs, bound, pairs))


def stored_logps(
    inputs: Inputs, bound: BoundReference, pairs: TokenPairs, parts: Collection[str] | None = None
) -> dict[str, ReferenceLogps] | None:
    """The stored sums, of these parts where they are all there still; None where the objective reads none."""
    train, store = inputs.config.train, inputs.store(bound)
    if not train.reads_reference:
        return None
    only = parts if parts is not None and set(parts) <= set(store.part_names()) else None
    origin, shared = inputs.token_origin(bound), train.ld_alpha is not None
    return reference_logps(pairs.keys.to_list(), store, bound, _command("precompute-ref"), origin, only, shared=shared)


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
    start = start_policy(inputs, bound, prepared.splits, download=False)
    run, document = inputs.run(bound, prepared.splits, start.policy_id)
    _check_trained(inputs, run, document)
    if not inputs.dry_run:
        keep_start(inputs, run, start)
    reference = stored_logps(inputs, bound, pairs)
    evaluation = evaluation_of(inputs, bound, run, prepared, reference)
    if inputs.dry_run:
        return plan_evaluate(evaluation)
    report, results = evaluate(evaluation, inputs.config.eval, inputs.numerics(bound), inputs.control)
    report.details = {key: results[key] for key in ("metrics", "n_pairs", "coverage", "gates", "verdict")}
    if reference is not None:
        report.details |= seconds_spared(inputs.store(bound), len(pairs))
    _apply_verdict(inputs, run, report, results)
    return report


def evaluation_of(
    inputs: Inputs,
    bound: BoundReference,
    run: RunFolder,
    prepared: PreparedPairs,
    reference: dict[str, ReferenceLogps] | None,
    split: Literal["eval", "dev"] = "eval",
) -> Evaluation:
    """What is to be evaluated of a trained run."""
    pairs, policy_id = prepared.splits[split], inputs.model_id(run.policy, bound)
    train, coverage = inputs.config.train, prepared.coverage
    return Evaluation(run, pairs, reference, train, coverage, policy_id, bound.reference_id, split)


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
    if held is not None and (step := run.checkpointed_step):
        raise StoreError(
            f"The training of run {run.path.name} is not finished: its newest checkpoint is that of step {step}. Let "
            f"it finish, or run: {_command('train')}."
        )
    other = inputs.workspace.latest.document()
    hint = f" The latest run differs in: {'; '.join(field_diff(other, document))}." if other not in (None, held) else ""
    raise StoreError(
        f"There is no trained policy in {run.path}, where this configuration's belongs.{hint} Run: {_command('train')}."
    )


def _command(job: str) -> str:
    return f"pipeline {job} (with the same --config and --set)"
