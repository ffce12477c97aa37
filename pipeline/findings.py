"""What an evaluation looks at beside the scores of its pairs: what is written, what commands say, what the store
shows.
"""

import json
from pathlib import Path
from typing import Any

from data.durable import write_bytes, write_json
from data.parquet import parquet_bytes
from data.tokens.tokenization import end_ids, load_tokenizer
from pipeline.inputs import Inputs
from stages.evaluation.evaluation import Evaluation, Findings
from stages.evaluation.external import Places, external_entry, known_metrics, prefixed, run_external
from stages.evaluation.generation import Generation, Speaker, generate_checks
from stages.evaluation.reference_report import reference_report
from stages.evaluation.responses import Speech
from stages.reference import BoundReference


def look_further(inputs: Inputs, bound: BoundReference, evaluation: Evaluation) -> Findings:
    """What the configuration asks for; what is known already is neither generated nor run again."""
    speech = _speech(inputs, bound)
    metrics = _generations(inputs, bound, evaluation, speech)
    external = _external(inputs, evaluation) if inputs.config.eval.external else {}
    for name, entry in external.items():
        metrics |= prefixed(name, entry["metrics"])
    report = None
    if evaluation.reference is not None:
        report = reference_report(evaluation.pairs, evaluation.reference, inputs.store(bound), speech.end_ids)
    return Findings(metrics, external, report)


def _external(inputs: Inputs, evaluation: Evaluation) -> dict[str, Any]:
    """What each command has said of this evaluation; kept (external.json) before the next one is run."""
    settings, path = inputs.config.eval, evaluation.folder / "external.json"
    kept = _kept(path, evaluation.identity)
    for name, command in settings.external.items():
        if known_metrics(kept, name, command, evaluation.policy_id, settings.generate) is None:
            generations = evaluation.folder / "generations.parquet" if settings.generate else None
            places = Places(evaluation.policy, evaluation.folder / "pairs.parquet", generations)
            numbers = run_external(name, command, places, inputs.control)
            kept[name] = external_entry(command, evaluation.policy_id, numbers, settings.generate)
            write_json(path, {"identity": evaluation.identity, "external": kept})
    return {name: kept[name] for name in settings.external}


def _kept(path: Path, identity: str) -> dict[str, Any]:
    try:
        document = json.loads(path.read_bytes())
        return dict(document["external"]) if document["identity"] == identity else {}
    except (FileNotFoundError, ValueError, TypeError, KeyError):
        return {}


def _speech(inputs: Inputs, bound: BoundReference) -> Speech:
    tokenizer = load_tokenizer(inputs.workspace.pairs.tokenizer)
    return Speech(tokenizer, end_ids(tokenizer, inputs.tokenization(bound.folder)["generation_eos"]))


def _generations(inputs: Inputs, bound: BoundReference, evaluation: Evaluation, speech: Speech) -> dict[str, float]:
    settings = inputs.config.eval.generate
    if settings is None:
        return {}
    policy = Speaker(evaluation.policy_id, evaluation.policy)
    reference = Speaker(bound.reference_id, bound.folder) if bound.own and evaluation.reference is not None else None
    job = Generation(settings, inputs.numerics(bound), speech, inputs.workspace.generations, inputs.control)
    metrics, frame = generate_checks(evaluation.pairs, policy, reference, job)
    write_bytes(evaluation.folder / "generations.parquet", parquet_bytes(frame.to_arrow()))
    return metrics
