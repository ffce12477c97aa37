"""Job three: the policy of a run is evaluated on held-out pairs, and passes or does not."""

import logging
from dataclasses import replace
from functools import cache, partial
from pathlib import Path
from typing import Any, Literal, NamedTuple

from data.errors import ConfigError, GateError, StoreError, one_line
from data.field_diff import field_diff
from data.pairs.preparation import PreparedPairs
from pipeline.baselines import keep_baseline, other_evaluations
from pipeline.evaluation_summary import gate_sentence
from pipeline.findings import look_further
from pipeline.inputs import Inputs
from pipeline.records import recorded, saved
from pipeline.report.write import write_report
from pipeline.start import keep_start, start_policy
from pipeline.train_job import command, stored_logps
from pipeline.workers import shard_of
from stages.costs import seconds_spared
from stages.evaluate import evaluate, plan_evaluate
from stages.evaluation.evaluation import Evaluation
from stages.evaluation.pair_facts import leakage, pair_facts
from stages.job import JobReport
from stages.reference import BoundReference
from stages.run_folder import RunFolder
from stages.units import ALL, Shard

logger = logging.getLogger(__name__)


def run_eval(inputs: Inputs) -> JobReport:
    """Job three."""
    bound = inputs.bind(hold_to_lock=True)
    prepared = inputs.pairs(bound.folder)
    check_held_out(prepared)
    start = start_policy(inputs, bound, prepared.splits, download=False)
    run, document = inputs.run(bound, prepared.splits, start.policy_id)
    _check_trained(inputs, run, document)
    worker = shard_of(None)
    if not inputs.dry_run and worker.index == 0:
        keep_start(inputs, run, start)
    evaluation = evaluation_of(inputs, bound, run, prepared, reference_free=inputs.config.eval.reference_free)
    report, results = judged(inputs, bound, evaluation, worker)
    if results is not None:
        _apply_verdict(inputs, run, report, results)
        report.outputs |= _report_of(inputs, evaluation, run, report)
    return report


def _report_of(inputs: Inputs, evaluation: Evaluation, run: RunFolder, report: JobReport) -> dict[str, str]:
    """The page and what goes with it; a page that cannot be made costs no verdict."""
    try:
        return write_report(inputs, evaluation.folder, run, evaluation.pairs, report.document(), card=True)
    except Exception as error:  # whatever it is, the verdict is known
        logger.warning(
            "the report could not be made (%s); the verdict stands, and `pipeline report` tries again", one_line(error)
        )
        return {}


def check_held_out(prepared: PreparedPairs) -> None:
    """Refuse where there are no held-out pairs."""
    if not prepared.splits["eval"]:
        raise ConfigError(
            "No pairs are held out, so there is nothing to evaluate on. Set data.eval_fraction above 0, or name a "
            "source under data.eval, and run the three jobs again."
        )


def judged(
    inputs: Inputs, bound: BoundReference, evaluation: Evaluation, worker: Shard = ALL
) -> tuple[JobReport, dict[str, Any] | None]:
    """The evaluation made, or found, and judged: its report and the metrics document.

    In a dry run there is the plan alone, and of several workers the first alone has the document.
    """
    others = other_evaluations(inputs.config.eval, inputs.workspace, evaluation)
    if inputs.dry_run:
        return plan_evaluate(evaluation, inputs.config.eval, others), None
    before = evaluation.earlier()
    with recorded(inputs, "eval", result_folder(evaluation), **subject_of(evaluation)) as record:
        numerics, hands = inputs.numerics(bound), record.inputs.control
        evaluation = replace(evaluation, look_further=partial(look_further, record.inputs, bound))
        report, results = evaluate(evaluation, inputs.config.eval, numerics, hands, others, worker)
        if worker.index > 0:
            return report, None
        record.report, record.facts["verdict"] = report, results["verdict"]
        record.is_new = results != before
        if evaluation.reference is not None and report.responses_scored:
            record.saved = saved(
                report, len(evaluation.pairs), seconds_spared(inputs.store(bound), len(evaluation.pairs))
            )
    keep_baseline(inputs.config.eval, others, evaluation)  # what was refused is held against nothing
    report.details = {
        key: results[key] for key in ("metrics", "n_pairs", "coverage", "comparisons", "gates", "verdict")
    }
    if evaluation.reference is not None:
        report.details |= seconds_spared(inputs.store(bound), len(evaluation.pairs))
    return report, results


def result_folder(evaluation: Evaluation) -> Path:
    """Where the record of an evaluation belongs: beside the policy where a run here made it."""
    run = evaluation.folder.parent
    return run if RunFolder(run).policy == evaluation.policy else evaluation.folder


def subject_of(evaluation: Evaluation) -> dict[str, Any]:
    """What an evaluation's record says that it is about."""
    facts = {"run": evaluation.name, "policy_id": evaluation.policy_id, "reference_id": evaluation.reference_id}
    return facts | {"split": evaluation.folder.name} if result_folder(evaluation) != evaluation.folder else facts


class Subject(NamedTuple):
    """Whose evaluation it is."""

    name: str
    policy: Path
    policy_id: str
    folder: Path
    """Where the results go."""


def evaluation_of(
    inputs: Inputs,
    bound: BoundReference,
    run: RunFolder,
    prepared: PreparedPairs,
    split: Literal["eval", "dev"] = "eval",
    *,
    read_store: bool = True,
    reference_free: bool = False,
) -> Evaluation:
    """What is to be evaluated of a trained run; without `read_store` it can only be looked up."""
    subject = Subject(run.path.name, run.policy, inputs.model_id(run.policy, bound), run.path / split)
    return evaluation_about(
        subject, inputs, bound, prepared, split, read_store=read_store, reference_free=reference_free
    )


def evaluation_about(
    subject: Subject,
    inputs: Inputs,
    bound: BoundReference,
    prepared: PreparedPairs,
    split: Literal["eval", "dev"] = "eval",
    *,
    read_store: bool = True,
    reference_free: bool = False,
) -> Evaluation:
    """The same of any policy."""
    pairs, train = prepared.splits[split], inputs.config.train
    columns = inputs.config.eval.slices if split == "eval" else []
    return Evaluation(
        **subject._asdict(),
        pairs=pairs,
        reference=stored_logps(inputs, bound, pairs) if read_store and not reference_free else None,
        train=train,
        coverage=prepared.coverage,
        reference_id=bound.reference_id if train.reads_reference and not reference_free else None,
        reference_name=bound.name,
        facts=cache(partial(pair_facts, pairs, prepared, inputs.config.data, columns)),  # may read all of a source
        leakage=partial(leakage, prepared.splits["train"], pairs, prepared.coverage),
        look_further=partial(look_further, inputs, bound),
    )


def _apply_verdict(inputs: Inputs, run: RunFolder, report: JobReport, results: dict[str, Any]) -> None:
    if results["verdict"] != "failed":
        inputs.workspace.link(inputs.workspace.passed, run)
        if results["verdict"] == "inconclusive":
            said = "; ".join(gate_sentence(gate) for gate in results["gates"] if gate["verdict"] == "inconclusive")
            logger.warning("the verdict is inconclusive, and the policy passes: %s", said)
        return
    link = "It was not made `passed`"
    if inputs.workspace.passed.path.resolve() == run.path.resolve():
        link = "`passed` stands for it since it passed under other limits, and still does, until another run passes"
    report.status, report.exit_code = "failed", GateError.exit_code
    report.message = (
        f"The policy of run {run.path.name} does not pass: {failed_gates(results)}. {link}; the figures are in "
        f"{report.outputs['metrics']}. Train differently, or change the limits (eval.min, eval.max, eval.max_drop, "
        "eval.max_rise)."
    )


def failed_gates(results: dict[str, Any]) -> str:
    """Which limits do not hold."""
    return "; ".join(gate_sentence(gate) for gate in results["gates"] if not gate["passed"])


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
            f"it finish, or run: {command('train')}."
        )
    other = inputs.workspace.latest.document()
    hint = f" The latest run differs in: {'; '.join(field_diff(other, document))}." if other not in (None, held) else ""
    raise StoreError(
        f"There is no trained policy in {run.path}, where this configuration's belongs.{hint} Run: {command('train')}."
    )
