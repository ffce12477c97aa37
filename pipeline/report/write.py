"""Writes the report of an evaluation: the page, the summary, the policy's card.

report.html  report.md     beside metrics.json
policy/README.md           of a run, after an evaluation
$GITHUB_STEP_SUMMARY       gets report.md, where CI has set it
"""

import logging
from pathlib import Path
from typing import Any

from data.durable import write_bytes
from data.errors import PipelineError, StoreError
from data.store.reference_store import ReferenceStore
from data.store.storage import LocalStorage
from data.tokens.token_pairs import TokenPairs
from pipeline.inputs import Inputs
from pipeline.report.compose import compose
from pipeline.report.markdown import append_to_job_summary, summary_of
from pipeline.report.material import (
    Material,
    jobs_about,
    read_configuration,
    read_evaluation,
    read_generations,
    read_steps,
)
from pipeline.report.model_card import write_card
from pipeline.report.page import html_page, is_page_of, page_key
from pipeline.report.texts import most_wrong
from stages.costs import ledger
from stages.run_folder import RunFolder

logger = logging.getLogger(__name__)


def write_report(
    inputs: Inputs,
    folder: Path,
    run: RunFolder | None = None,
    held_out: TokenPairs | None = None,
    job: dict[str, Any] | None = None,
    *,
    card: bool = False,
) -> dict[str, str]:
    """Write report.html and report.md of the evaluation in this folder; returns what was written, by what it is.

    `run` is the policy's, if it is a run's; `held_out` are the pairs, for texts that `eval.show_pairs` asks for; `job`
    is the evaluation's own document, which is not written yet; with `card` the run's policy gets its model card.

    Raises:
        StoreError: there is no whole evaluation.
    """
    material = gather(inputs, folder, run, held_out, job)
    page, text = folder / "report.html", folder / "report.md"
    key = page_key(material.key)
    if not is_page_of(page, key) or not text.is_file():
        report = compose(material)
        write_bytes(text, summary_of(report))
        write_bytes(page, html_page(report, key))
    outputs = {"report": str(page), "summary": str(text)}
    if card and run is not None and (written := write_card(material, run.policy)) is not None:
        outputs["card"] = str(written)
    append_to_job_summary(text.read_bytes())
    return outputs


def gather(
    inputs: Inputs,
    folder: Path,
    run: RunFolder | None = None,
    held_out: TokenPairs | None = None,
    job: dict[str, Any] | None = None,
) -> Material:
    """What the report is made of, as far as it is there."""
    document, pairs = read_evaluation(folder)
    settings = inputs.config.eval.model_dump(mode="json")
    wrong = []
    if held_out is not None and inputs.config.eval.show_pairs:
        wrong = most_wrong(pairs, held_out, inputs.workspace.pairs.tokenizer, inputs.config.eval.show_pairs)
    return Material(
        document=document,
        pairs=pairs,
        generations=read_generations(folder),
        steps=[] if run is None else read_steps(run),
        configuration=read_configuration(folder if run is None else run.path),
        jobs=_jobs(inputs, document, run, job),
        costs=_costs(inputs, document),
        settings=settings,
        stack=_stack(folder, document),
        wrong=wrong,
    )


def _jobs(
    inputs: Inputs, document: dict[str, Any], run: RunFolder | None, job: dict[str, Any] | None
) -> dict[str, dict[str, Any]]:
    """Documents of the three jobs that are about this evaluation; `job` is that of the one under way."""
    last = {name: inputs.workspace.last_job(name) for name in ("precompute-ref", "train", "eval")}
    if job is not None and job["seconds"] > 0:
        from stages.scoring.model import device_name

        last["eval"] = job | {"device": device_name()}
    reference = (document.get("reference") or {}).get("id")
    name = (document.get("policy") or {}).get("name") if run is None else run.path.name
    return jobs_about(last, name, reference)


def _costs(inputs: Inputs, document: dict[str, Any]) -> dict[str, Any]:
    """What scoring the reference took; nothing where its store is out of reach."""
    reference = (document.get("reference") or {}).get("id")
    if reference is None:
        return {}
    try:
        return ledger(inputs.workspace.store(inputs.config.store, reference), document["coverage"]["used"])
    except PipelineError as error:
        logger.warning("what scoring the reference took is not known: %s", error)
        return {}


def _stack(folder: Path, document: dict[str, Any]) -> dict[str, str]:
    """Versions and device that scored the policy, as its stored scores have them."""
    policy = (document.get("policy") or {}).get("id")
    if policy is None:
        return {}
    for _, part in ReferenceStore(LocalStorage(folder / "scores"), policy).checked_parts("parts"):
        if not isinstance(part, StoreError):
            return dict(part.stack)
    return {}
