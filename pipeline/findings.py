"""What an evaluation looks at beside the scores of its pairs: what is written, what commands say, what the store
shows.
"""

from collections.abc import Mapping
from typing import Any

from data.durable import write_bytes
from data.parquet import parquet_bytes
from data.tokens.tokenization import end_ids, load_tokenizer
from pipeline.inputs import Inputs
from stages.evaluation.evaluation import Evaluation, Findings
from stages.evaluation.external import Places, external_entry, known_metrics, prefixed, run_external
from stages.evaluation.generation import Generation, Speaker, generate_checks
from stages.evaluation.reference_report import reference_report
from stages.evaluation.responses import Speech
from stages.reference import BoundReference


def look_further(
    inputs: Inputs, bound: BoundReference, evaluation: Evaluation, earlier: Mapping[str, Any] | None
) -> Findings:
    """What the configuration asks for; what an earlier document has of the same commands is not run again."""
    speech = _speech(inputs, bound)
    metrics = _generations(inputs, bound, evaluation, speech)
    external = {}
    for name, command in inputs.config.eval.external.items():
        numbers = known_metrics(earlier, name, command, evaluation.policy_id, inputs.config.eval.generate)
        if numbers is None:
            generations = evaluation.folder / "generations.parquet" if inputs.config.eval.generate else None
            places = Places(evaluation.policy, evaluation.folder / "pairs.parquet", generations)
            numbers = run_external(name, command, places, inputs.control)
        external[name] = external_entry(command, evaluation.policy_id, numbers, inputs.config.eval.generate)
        metrics |= prefixed(name, numbers)
    report = None
    if evaluation.reference is not None:
        report = reference_report(evaluation.pairs, evaluation.reference, inputs.store(bound), speech.end_ids)
    return Findings(metrics, external, report)


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
