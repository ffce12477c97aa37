"""metrics.json: every number of an evaluation and the verdict, from its pairs; no time, no order, nothing of the
machine.
"""

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import polars as pl

from data.errors import ConfigError
from data.identity import document_key, set_key
from stages.evaluation.comparison import Comparison, compare, compare_with_reference
from stages.evaluation.config import EvalConfig
from stages.evaluation.evaluation import SCHEMA_VERSION, Evaluation, Findings
from stages.evaluation.others import Other, ReadEvaluation
from stages.metrics.calibration import reliability
from stages.metrics.gates import Change, Gate, judge_bounds, judge_change, overall
from stages.metrics.intervals import gate_interval
from stages.metrics.lengths import length_strata
from stages.metrics.preference import METRICS_VERSION, preference_metrics
from stages.metrics.records import scores_digest
from stages.metrics.slices import slices
from stages.metrics.values import PAIR_VALUES, has_reference, pair_values


def judged_by(
    evaluation: Evaluation, config: EvalConfig, others: Sequence[Other], earlier: dict[str, Any] | None = None
) -> str:
    """sha256 over all that a document depends on: an evaluation with the same need not be looked at again.

    Of other evaluations that are gone by now, what the `earlier` document knows of them.
    """
    return document_key(
        {
            "identity": evaluation.identity,
            "settings": config.model_dump(mode="json", exclude={"model", "show_pairs"}),
            "compared_with": compared_with(others, earlier),
            "coverage": evaluation.coverage.document(),
            "facts": _facts_digest(evaluation),
        }
    )


def _facts_digest(evaluation: Evaluation) -> str:
    """sha256 over what slices are cut by, whatever the order of the rows."""
    facts = evaluation.facts()
    return set_key(str(row) for row in facts.drop("row", strict=False).iter_rows())


def compared_with(others: Sequence[Other], earlier: dict[str, Any] | None = None) -> list[dict[str, Any]]:
    """Which evaluations a verdict was made against, by their identities."""
    known = {(each["against"], each["name"]): each["identities"] for each in (earlier or {}).get("compared_with", ())}
    found = []
    for other in others:
        key = (other.against, other.name)
        if key in known and not all((folder / "metrics.json").is_file() for folder in other.folders):
            identities = known[key]
        else:
            identities = [ReadEvaluation.of(folder).document["identity"] for folder in other.folders]
        found.append({"against": other.against, "name": other.name, "identities": identities})
    return found


def evaluation_document(
    evaluation: Evaluation,
    pairs: pl.DataFrame,
    findings: Findings,
    config: EvalConfig | None,
    others: Sequence[Other],
) -> dict[str, Any]:
    """The document; without `config` there is no verdict."""
    settings = EvalConfig() if config is None else config
    leakage = evaluation.leakage()
    metrics = preference_metrics(pairs) | findings.metrics
    metrics |= {f"leaked_{what}": float(count) for what, count in leakage.items()}
    compared = {other: compare(pairs, evaluation.measure, other, settings) for other in others if other.folders}
    gates = [] if config is None else _gates(metrics, pairs, settings, compared, others)
    comparisons = [*compare_with_reference(pairs), *(each for found in compared.values() for each in found.values())]
    return {
        "schema_version": SCHEMA_VERSION,
        "metrics_version": METRICS_VERSION,
        "identity": evaluation.identity,
        "scores_digest": scores_digest(pairs),
        "judged_by": None if config is None else judged_by(evaluation, config, others),
        "policy": {"name": evaluation.name, "id": evaluation.policy_id},
        "reference": _reference(evaluation),
        "measure": evaluation.measure,
        "objective": evaluation.train.objective_name(),
        "beta": evaluation.train.beta,
        "metrics": metrics,
        "n_pairs": pairs.height,
        "n_prompts": pairs["prompt_key"].n_unique(),
        "coverage": evaluation.coverage.document(),
        "leakage": leakage,
        "slices": slices(pairs),
        "reliability": reliability(pairs["margin"].to_numpy()) if has_reference(pairs) else [],
        "length_strata": length_strata(pairs),
        "reference_report": findings.reference_report,
        "external": findings.external,
        "compared_with": compared_with(others),
        "comparisons": [_comparison(each, settings) for each in comparisons],
        "seed_sd": settings.seed_sd,
        "looks": settings.looks,
        "gates": [gate.document() for gate in gates],
        "verdict": None if config is None else overall(gates),
    }


def _comparison(comparison: Comparison, settings: EvalConfig) -> dict[str, Any]:
    limited = comparison.against != "reference" and comparison.metric in {*settings.max_drop, *settings.max_rise}
    seed_sd = settings.seed_sd.get(comparison.metric, 0.0)
    return comparison.document(seed_sd, settings.level) if limited else comparison.document(seed_sd)


def _reference(evaluation: Evaluation) -> dict[str, Any] | None:
    if evaluation.reference is None:
        return None
    return {"name": evaluation.reference_name, "id": evaluation.reference_id}


def _gates(
    metrics: dict[str, float],
    pairs: pl.DataFrame,
    config: EvalConfig,
    compared: dict[Other, dict[str, Comparison]],
    others: Sequence[Other],
) -> list[Gate]:
    bounded = {*config.min, *config.max}
    if missing := sorted(bounded - metrics.keys()):
        raise ConfigError(
            f"eval.min and eval.max: the data give no value of {', '.join(missing)} here, and a limit is never passed "
            "for lack of a number. Take the limit out, or evaluate on pairs that have one (docs/eval-metrics.md says "
            f"what each needs). There are: {', '.join(sorted(metrics))}."
        )
    intervals = {} if config.point else _intervals(pairs, bounded)
    gates = judge_bounds(metrics, config.min, config.max, intervals, point=config.point)
    for other in others:
        found = compared.get(other, {})
        for metric in sorted({*config.max_drop, *config.max_rise}):
            difference = found[metric].found if other.folders else None
            seed_sd, n_before = config.seed_sd.get(metric, 0.0), max(1, len(other.folders))
            change = Change(other.against, other.name, difference, config.level, seed_sd, n_before)
            if difference is not None:
                _refuse_endless(metric, change.interval())
            if metric in config.max_drop:
                gates.append(judge_change(metric, "max_drop", config.max_drop[metric], change))
            if metric in config.max_rise:
                gates.append(judge_change(metric, "max_rise", config.max_rise[metric], change))
    return gates


def _intervals(pairs: pl.DataFrame, metrics: Iterable[str]) -> dict[str, tuple[float, float]]:
    """What limits on means over pairs are held against."""
    prompts, found = pairs["prompt_key"].to_list(), {}
    for name in sorted(PAIR_VALUES.keys() & {*metrics}):
        found[name] = gate_interval(pair_values(pairs, name), prompts, share=PAIR_VALUES[name].share)
        _refuse_endless(name, found[name])
    return found


def _refuse_endless(metric: str, interval: tuple[float, float]) -> None:
    if not np.isfinite(interval).all():
        raise ConfigError(
            f"The limit on {metric} cannot be judged: {metric} has no interval, for all held-out pairs have one "
            "prompt. Hold out pairs of more prompts, or take the limit out (of eval.min and eval.max, eval.point: true "
            "takes the metric itself)."
        )
