"""Job two: a policy is trained. `pipeline sweep` does the same to many."""

import logging
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from typing import Any

from data.errors import ConfigError, PipelineError
from data.pairs.preparation import PreparedPairs
from data.tokens.token_pairs import TokenPairs
from pipeline.inputs import Inputs
from pipeline.records import recorded, saved
from pipeline.start import Start, keep_start, out_of_reach, start_policy
from pipeline.workers import shard_of
from stages.costs import seconds_spared
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
        facts = {"run": run.path.name, **{name: document[name] for name in ("reference_id", "start_policy")}}
        try:
            with recorded(inputs, "train", run.path, **facts) as record:
                report = record.report = train(job, record.inputs.control, worker)
                if split.reference is not None:
                    report.details |= seconds_spared(inputs.store(bound), len(pairs), config.train.epochs)
                    record.saved = saved(report, len(pairs) * config.train.epochs)
        except PipelineError as error:
            error.run = run.path.name
            raise
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
    return reference_logps(pairs.keys.to_list(), store, bound, command("precompute-ref"), origin, only, shared=shared)


def command(job: str) -> str:
    """How a job of the same configuration is called in messages."""
    return f"pipeline {job} (with the same --config and --set)"
