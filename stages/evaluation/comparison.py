"""Other evaluations to compare with: joined pair by pair by key, refused where they do not fit."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal, NamedTuple

import numpy as np
import polars as pl

from data.errors import ConfigError
from stages.evaluation.config import EvalConfig
from stages.evaluation.others import Other, ReadEvaluation
from stages.metrics.paired import LEVEL, PairedDifference, paired_bootstrap, paired_difference
from stages.metrics.values import PAIR_VALUES, Floats, has_reference, pair_values

REPORTED = ("reward_accuracy", "ranking_accuracy", "reward_margin", "loss")
"""Metrics that are compared whether or not they have a limit."""


class Comparison(NamedTuple):
    """One metric of this evaluation beside that of others."""

    against: Literal["baseline", "anchor", "reference"]
    name: str
    n_before: int
    """Evaluations that the values before are means of."""
    metric: str
    overlap: float
    found: PairedDifference
    bootstrap: tuple[float, float]

    def document(self, seed_sd: float, gate_level: float = LEVEL) -> dict[str, Any]:
        """As it stands in metrics.json: at 95 %, but for `detectable`, which is at the level of the gate."""
        found, seeds = self.found, seed_sd if self.against != "reference" else 0.0
        low, high = found.interval(seed_sd=seeds, n_before=self.n_before)
        better = PAIR_VALUES[self.metric].better
        up, down = ("better", "worse") if better == "higher" else ("worse", "better") if better else ("higher", "lower")
        numbers = {
            "before": found.before,
            "after": found.after,
            "difference": found.difference,
            "standard_error": found.standard_error,
            "low": low,
            "high": high,
            "bootstrap_low": self.bootstrap[0],
            "bootstrap_high": self.bootstrap[1],
            "mcnemar_p": found.mcnemar_p() if PAIR_VALUES[self.metric].share and self.n_before == 1 else None,
            "detectable": found.detectable(gate_level, seeds, self.n_before),
        }
        return {
            "against": self.against,
            "name": self.name,
            "metric": self.metric,
            "n": found.n,
            "n_prompts": found.n_prompts,
            "overlap": self.overlap,
            **{key: value if value is None or np.isfinite(value) else None for key, value in numbers.items()},
            "gained": found.gained,
            "lost": found.lost,
            "verdict": up if low > 0 else down if high < 0 else "inconclusive",
        }


def check_comparable(keys: pl.Series, measure: Mapping[str, Any], other: Other, config: EvalConfig) -> None:
    """Refuse, before anything is scored, what could not be compared with afterwards; `keys` are those of the own pairs.

    Raises:
        StoreError: an evaluation is missing or not whole.
        ConfigError: it is of other pairs, or a metric with a limit means something else there.
    """
    evaluations = [ReadEvaluation.of(folder) for folder in other.folders]
    if evaluations:
        own = pl.DataFrame({"pair_key": keys}).unique()
        _shared_pairs([own, *(each.pairs() for each in evaluations)], other, config.min_overlap)
        for metric in sorted({*config.max_drop, *config.max_rise}):
            _refuse_other_kind(metric, measure, evaluations, other)


def compare(pairs: pl.DataFrame, measure: Mapping[str, Any], other: Other, config: EvalConfig) -> dict[str, Comparison]:
    """The comparisons with one other side, by metric: those that have a limit, and REPORTED as far as they fit.

    `measure` is what the values of this evaluation are relative to: reference, beta, objective.

    Raises:
        StoreError, ConfigError: as check_comparable.
    """
    evaluations = [ReadEvaluation.of(folder) for folder in other.folders]
    own = pairs.unique("pair_key", keep="first").sort("pair_key")
    shared, overlap = _shared_pairs([own, *(each.pairs() for each in evaluations)], other, config.min_overlap)
    limited = {*config.max_drop, *config.max_rise}
    found = {}
    for metric in dict.fromkeys((*REPORTED, *sorted(limited))):
        if metric in limited:
            _refuse_other_kind(metric, measure, evaluations, other)
        elif _differs(metric, measure, evaluations):
            continue
        after, *before = (pair_values(frame, metric) for frame in shared)
        values = np.mean(before, axis=0), after
        found[metric] = _comparison(other.against, other.name, len(before), metric, overlap, values, shared[0])
    return found


def compare_with_reference(pairs: pl.DataFrame) -> Iterator[Comparison]:
    """Policy beside reference, as rankers of the same pairs: the honest before and after."""
    if has_reference(pairs):
        for metric in ("ranking_accuracy", "ranking_accuracy_normalized"):
            values = pair_values(pairs, f"ref_{metric}"), pair_values(pairs, metric)
            yield _comparison("reference", "reference", 1, metric, 1.0, values, pairs)


def _shared_pairs(frames: Sequence[pl.DataFrame], other: Other, least: float) -> tuple[list[pl.DataFrame], float]:
    """The pairs that all frames have, in the order of their keys; the share that they are of the largest frame.

    Raises:
        ConfigError: they are too few.
    """
    keys = frames[0].select("pair_key")
    for frame in frames[1:]:
        keys = keys.join(frame, on="pair_key", how="semi")
    own, *others = (frame.height for frame in frames)
    overlap = keys.height / max(own, *others)
    if overlap < least or not keys.height:
        raise ConfigError(
            f"The {other.against} {other.name} was evaluated on other pairs: of its {' and '.join(map(str, others))} "
            f"pairs and the {own} of this evaluation {keys.height} are shared, {overlap:.1%}, and eval.min_overlap is "
            f"{least:g}. Nothing passes on so few. Evaluate that policy on the pairs of today (--set "
            f"eval.model={other.folders[0].parent / 'policy'}) and name the folder that this writes, name an "
            "evaluation of the same pairs, or lower eval.min_overlap."
        )
    return [frame.join(keys, on="pair_key", how="semi", maintain_order="left") for frame in frames], overlap


def _differs(metric: str, measure: Mapping[str, Any], evaluations: Sequence[ReadEvaluation]) -> str | None:
    """What makes the values of a metric mean something else there; None: they are of the same kind."""
    all_of_them = [measure, *(each.document["measure"] for each in evaluations)]
    for what in PAIR_VALUES[metric].depends_on:
        if measure[what] is None or any(measure[what] != each.get(what) for each in all_of_them):
            return what
    if PAIR_VALUES[metric].reference and any(each.get("reference") is None for each in all_of_them):
        return "reference"
    return None


def _refuse_other_kind(
    metric: str, measure: Mapping[str, Any], evaluations: Sequence[ReadEvaluation], other: Other
) -> None:
    what = _differs(metric, measure, evaluations)
    if what is not None:
        raise ConfigError(
            f"The {other.against} {other.name} cannot be held against this evaluation in {metric}: its {what} is not "
            f"the same. Compare with an evaluation under the same {what}, or set the limit on ranking_accuracy, which "
            "depends on neither reference nor objective."
        )


def _comparison(
    against: Literal["baseline", "anchor", "reference"],
    name: str,
    n_before: int,
    metric: str,
    overlap: float,
    values: tuple[Floats, Floats],
    pairs: pl.DataFrame,
) -> Comparison:
    prompts = pairs["prompt_key"].to_list()
    found = paired_difference(*values, prompts, share=PAIR_VALUES[metric].share)
    return Comparison(against, name, n_before, metric, overlap, found, paired_bootstrap(*values, prompts))
