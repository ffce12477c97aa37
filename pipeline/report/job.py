"""`pipeline report`: the evaluation that `pipeline eval` made of the configured policy, as a page and a summary."""

import logging
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from data.errors import ConfigError, PipelineError, StoreError
from data.tokens.token_pairs import TokenPairs
from pipeline.inputs import Inputs
from pipeline.models.named import bind_for_models, find_model
from pipeline.report.material import read_evaluation
from pipeline.report.write import write_report
from pipeline.start import start_policy
from stages.job import JobReport
from stages.run_folder import RunFolder

logger = logging.getLogger(__name__)


class _Evaluated(NamedTuple):
    name: str
    folder: Path
    run: RunFolder | None
    held_out: TokenPairs | None


def run_report(inputs: Inputs) -> JobReport:
    """The report of each evaluation that is meant; loads no model."""
    looking = replace(inputs, dry_run=True)
    found = _of_models(looking) if inputs.config.eval.model else [_of_run(looking)]
    report = JobReport("report", run=found[0].name)
    for each in found:
        document, _ = read_evaluation(each.folder)
        outputs = write_report(inputs, each.folder, each.run, each.held_out)
        named = f" of {each.name}" if len(found) > 1 else ""
        report.outputs |= {f"{what}{named}": path for what, path in outputs.items()}
        report.pairs = document["n_pairs"]
        report.details.setdefault("verdicts", {})[each.name] = document["verdict"]
    return report


def _of_models(inputs: Inputs) -> list[_Evaluated]:
    """The evaluations of the models that `eval.model` names."""
    bound = bind_for_models(inputs)
    held_out = inputs.pairs(bound.folder).splits["eval"]
    found = []
    for name in inputs.config.eval.model:
        model = find_model(inputs, bound, name)
        if model is None:
            raise ConfigError(
                f"eval.model: {name} is neither a folder on this machine nor a model that the Hub's local cache has, "
                "so it cannot be told which evaluation is its. Correct eval.model, or make the model reachable."
            )
        found.append(_Evaluated(name, inputs.workspace.evaluations / model.evaluation, None, held_out))
    return found


def _of_run(inputs: Inputs) -> _Evaluated:
    """The configured run if it is evaluated, otherwise the latest; with the held-out pairs, if they are at hand."""
    held_out, why = None, "it is not evaluated"
    try:
        bound = inputs.bind()
        prepared = inputs.pairs(bound.folder)
        held_out = prepared.splits["eval"]
        start = start_policy(inputs, bound, prepared.splits, download=False)
        run, _ = inputs.run(bound, prepared.splits, start.policy_id)
        if (run.path / "eval" / "metrics.json").is_file():
            return _Evaluated(run.path.name, run.path / "eval", run, held_out)
        why = f"run {run.path.name} is not evaluated"
    except PipelineError as error:
        why = str(error).rstrip(".")
    latest = RunFolder(inputs.workspace.latest.path.resolve())
    if not (latest.path / "eval" / "metrics.json").is_file():
        raise StoreError(
            f"There is nothing to report on: neither the configured run nor {latest.path} has an evaluation "
            f"({why}). Run: pipeline eval (with the same --config and --set)."
        )
    logger.warning("the report is of the latest run, %s, not of the configured one (%s)", latest.path.name, why)
    return _Evaluated(latest.path.name, latest.path / "eval", latest, held_out)
