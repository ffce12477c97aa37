"""`pipeline eval` with `eval.model`: each of the models on the held-out pairs, and several as a leaderboard.

work/evaluations/<model>-<id>/      what `eval` leaves of a run in its folder, and config.yaml
work/leaderboard/<identity>/        leaderboard.json, table.md

One model is in memory at a time. Neither `latest` nor `passed` moves.
"""

import gc
import logging
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import polars as pl

from data.durable import write_bytes, write_json
from data.errors import EnvironmentProblem, GateError, Interrupted, PipelineError, one_line, out_of_memory
from data.pairs.preparation import PreparedPairs
from pipeline.eval_job import Subject, check_held_out, evaluation_about, failed_gates, judged
from pipeline.inputs import Inputs
from pipeline.models.named import NamedModel, bind_for_models, find_model
from pipeline.models.table import markdown
from pipeline.models.tokens import TokensOfPairs
from pipeline.report.write import write_report
from stages.evaluation.evaluation import Evaluation
from stages.evaluation.leaderboard import Entry, Failure, leaderboard
from stages.job import JobReport
from stages.model_files import unreachable
from stages.reference import BoundReference

logger = logging.getLogger(__name__)


def run_eval_models(inputs: Inputs) -> JobReport:
    """Evaluate the models that `eval.model` names, in the place of a run's policy."""
    bound = bind_for_models(inputs)
    prepared = inputs.pairs(bound.folder)
    check_held_out(prepared)
    models = _Models(inputs, bound, prepared)
    names = inputs.config.eval.model
    if len(names) == 1:
        alone = _Evaluated(names[0], *models.evaluate(names[0]))
        _tell(alone.report, [alone], [])
        return alone.report
    return _several(models, names)


class _Models:
    """The evaluations of models on the same held-out pairs."""

    def __init__(self, inputs: Inputs, bound: BoundReference, prepared: PreparedPairs) -> None:
        self.inputs = inputs
        self._bound = bound
        self._prepared = prepared
        self._tokens = TokensOfPairs(prepared.splits["eval"], bound.folder or inputs.workspace.pairs.tokenizer)

    def evaluate(self, name: str) -> tuple[JobReport, dict[str, Any] | None]:
        """Evaluate a model unless that was done before; in a dry run, say what it takes.

        Raises:
            PipelineError: it cannot be evaluated.
        """
        model = self.find(name)
        if model is None and not self.inputs.dry_run:
            raise unreachable("eval.model", name)
        if model is None:
            report = JobReport("eval", "dry_run", name, pairs=len(self._prepared.splits["eval"]))
            report.details["plan"] = [{"would": "fetch and evaluate", "what": name}]
            return report, None
        evaluation = self.evaluation(model)
        if evaluation.scored() is None:
            self._tokens.check(model)
            if not self.inputs.dry_run:
                self.inputs.write_config(evaluation.folder)
        report, results = judged(self.inputs, self._bound, evaluation)
        if report.status == "dry_run":
            report.details["plan"] = [{"would": "evaluate", "what": name}]
        if results is not None:
            held_out = self._prepared.splits["eval"]
            report.outputs |= write_report(self.inputs, evaluation.folder, held_out=held_out, job=report.document())
        return report, results

    def find(self, name: str) -> NamedModel | None:
        """The model of this name, if it is there."""
        return find_model(self.inputs, self._bound, name)

    def evaluation(self, model: NamedModel) -> Evaluation:
        """What is to be evaluated of it."""
        folder = self.inputs.workspace.evaluations / model.evaluation
        subject = Subject(model.name, model.folder, model.policy_id, folder)
        return replace(self.of_nobody, **subject._asdict())

    @cached_property
    def of_nobody(self) -> Evaluation:
        """All but the model: the pairs, and their side in the store, which is read once."""
        free = self.inputs.config.eval.reference_free
        nobody = Subject("", Path(), "", Path())
        return evaluation_about(nobody, self.inputs, self._bound, self._prepared, reference_free=free)


def _several(models: _Models, names: Sequence[str]) -> JobReport:
    """Evaluate each model, whatever becomes of the others, and put those that could be beside one another."""
    report = JobReport("eval", pairs=len(models.of_nobody.pairs))  # what the store lacks, it lacks for all of them
    evaluated: list[_Evaluated] = []
    failures: list[Failure] = []
    for i, name in enumerate(names):
        logger.info("model %d of %d: %s", i + 1, len(names), name)
        try:
            evaluated.append(_Evaluated(name, *models.evaluate(name)))
        except Interrupted:
            raise
        except Exception as error:
            failures.append(_failure(models, name, error))
            logger.warning("%s cannot be evaluated: %s", name, failures[-1].message)
        gc.collect()  # what a model leaves in cycles is as large as the model
    _sum_up(report, [each.report for each in evaluated])
    if models.inputs.dry_run:
        report.details["plan"] = [step for each in evaluated for step in each.report.details.get("plan", ())]
    elif evaluated:
        _write(models, report, evaluated, failures)
    _tell(report, evaluated, failures)
    return report


class _Evaluated(NamedTuple):
    name: str
    report: JobReport
    results: dict[str, Any] | None

    @property
    def failed(self) -> bool:
        """Whether a gate did."""
        return self.results is not None and self.results["verdict"] == "failed"


def _failure(models: _Models, name: str, error: Exception) -> Failure:
    """What is kept of an error: not the error, which holds on to the model."""
    if out_of_memory(error):
        message = f"Memory ran out: {one_line(error)}. Lower scoring.pack_tokens, or take a larger device."
        error = EnvironmentProblem(message)
    if not isinstance(error, PipelineError):
        raise error
    policy_id = None
    with suppress(PipelineError):
        model = models.find(name)
        policy_id = None if model is None else model.policy_id
    return Failure(name, policy_id, str(error), error.exit_code)


def _sum_up(report: JobReport, parts: Sequence[JobReport]) -> None:
    for figure in ("pairs_scored", "responses_scored", "tokens", "seconds"):
        setattr(report, figure, sum(getattr(part, figure) for part in parts))
    statuses = {part.status for part in parts}
    report.status = "dry_run" if "dry_run" in statuses else "done" if "done" in statuses else "nothing_to_do"


def _write(models: _Models, report: JobReport, evaluated: Sequence[_Evaluated], failures: Sequence[Failure]) -> None:
    """The leaderboard, in files and in the report."""
    root, entries = models.inputs.workspace.root, []
    for name, own, results in evaluated:
        assert results is not None
        folder = Path(own.outputs["metrics"]).parent
        pairs = pl.read_parquet(own.outputs["pairs"])
        entries.append(Entry(name, folder.relative_to(root).as_posix(), results, pairs))
    document = leaderboard(entries, failures)
    folder = models.inputs.workspace.leaderboards / document["identity"][:12]
    write_json(folder / "leaderboard.json", document)
    write_bytes(folder / "table.md", markdown(document).encode())
    report.outputs = {"leaderboard": str(folder / "leaderboard.json"), "table": str(folder / "table.md")}
    report.details |= {"leaderboard": document, "models": [own.document() for _, own, _ in evaluated]}


def _tell(report: JobReport, evaluated: Sequence[_Evaluated], failures: Sequence[Failure]) -> None:
    """What went wrong: models that could not be evaluated first, then those that do not pass."""
    rejected = [_does_not_pass(each.name, each.results) for each in evaluated if each.results and each.failed]
    said = []
    if failures:
        n = len(evaluated) + len(failures)
        said.append(f"{len(failures)} of {n} models cannot be evaluated; the others are finished.")
        said += [f"{failure.name}: {failure.message}" for failure in failures]
    said += [f"{sentence}." for sentence in rejected]
    if said:
        report.status, report.message = "failed", " ".join(said)
        report.exit_code = failures[0].exit_code if failures else GateError.exit_code


def _does_not_pass(name: str, results: dict[str, Any]) -> str:
    return f"The model {name} does not pass: {failed_gates(results)}"
