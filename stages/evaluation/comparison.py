"""Other evaluations to compare with: read from their folders, joined pair by pair by key, refused where they do not
fit.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import polars as pl

from data.errors import ConfigError, StoreError
from stages.evaluation.config import EvalConfig
from stages.metrics.paired import PairedDifference, paired_bootstrap, paired_difference
from stages.metrics.values import PAIR_VALUES, Floats, has_reference, pair_values

Against = Literal["baseline", "anchor"]

REPORTED = ("reward_accuracy", "ranking_accuracy", "reward_margin", "loss")
"""Metrics that are compared whether or not they have a limit."""


class Other(NamedTuple):
    """Which evaluations are compared with, and what for."""

    against: Against
    name: str
    folders: tuple[Path, ...]
    """Of several the mean of each pair is taken; none: there is nothing to compare with yet."""


@dataclass(frozen=True)
class ReadEvaluation:
    """An evaluation that was made before."""

    folder: Path
    document: dict[str, Any]

    @classmethod
    def of(cls, folder: Path) -> "ReadEvaluation":
        """What a folder holds.

        Raises:
            StoreError: no whole evaluation.
        """
        try:
            document = dict(json.loads((folder / "metrics.json").read_bytes()))
            whole = {"identity", "measure", "n_pairs"} <= document.keys() and (folder / "pairs.parquet").is_file()
        except FileNotFoundError:
            raise StoreError(
                f"There is no evaluation in {folder}, which eval.baseline or eval.anchor names: metrics.json is "
                "missing. Nothing passes without it. Name a run that was evaluated or a folder with metrics.json and "
                "pairs.parquet, or evaluate that run first (pipeline eval with its configuration)."
            ) from None
        except (ValueError, TypeError) as error:
            raise StoreError(
                f"{folder / 'metrics.json'}, which eval.baseline or eval.anchor names, is not what an evaluation "
                f"writes ({error}). Evaluate that run again, or name another."
            ) from error
        if not whole:
            raise StoreError(
                f"The evaluation in {folder} is not whole, or of an earlier version of this program. Run `pipeline "
                "eval` with the configuration of that run again, or compare with another."
            )
        return cls(folder, document)

    def pairs(self) -> pl.DataFrame:
        """Its pairs, once each.

        Raises:
            StoreError: they are not those that its metrics are of.
        """
        path = self.folder / "pairs.parquet"
        try:
            pairs = pl.read_parquet(path)
        except (pl.exceptions.PolarsError, OSError) as error:
            raise StoreError(f"{path} cannot be read ({error}). Evaluate that run again, or name another.") from error
        if pairs.height != self.document["n_pairs"] or "pair_key" not in pairs.columns:
            raise StoreError(
                f"{path} has {pairs.height} pairs, and metrics.json beside it is of {self.document['n_pairs']}. "
                "Evaluate that run again, or name another."
            )
        return pairs.unique("pair_key", keep="first").sort("pair_key")


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

    def document(self, seed_sd: float) -> dict[str, Any]:
        """As it stands in metrics.json."""
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
            "detectable": found.detectable(seed_sd=seeds, n_before=self.n_before),
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


def compare(pairs: pl.DataFrame, measure: Mapping[str, Any], other: Other, config: EvalConfig) -> dict[str, Comparison]:
    """The comparisons with one other side, by metric: those that have a limit, and REPORTED as far as they fit.

    `measure` is what the values of this evaluation are relative to: reference, beta, objective.

    Raises:
        StoreError: an evaluation is missing or not whole.
        ConfigError: it is of other pairs, or a metric with a limit means something else there.
    """
    evaluations = [ReadEvaluation.of(folder) for folder in other.folders]
    frames = [evaluation.pairs() for evaluation in evaluations]
    own = pairs.unique("pair_key", keep="first").sort("pair_key")
    shared, overlap = _shared_pairs([own, *frames], other, config.min_overlap)
    limited = {*config.max_drop, *config.max_rise}
    found = {}
    for metric in dict.fromkeys((*REPORTED, *sorted(limited))):
        problem = next((said for each in evaluations if (said := _differs(metric, measure, each.document))), None)
        if problem is None and PAIR_VALUES[metric].reference and not all(map(has_reference, shared)):
            problem = "one of the two has no reference"
        if problem is None:
            after, *before = (pair_values(frame, metric) for frame in shared)
            found[metric] = _comparison(
                other.against, other.name, len(frames), metric, overlap, (np.mean(before, axis=0), after), shared[0]
            )
        elif metric in limited:
            raise ConfigError(
                f"The {other.against} {other.name} cannot be held against this evaluation in {metric}: {problem}. "
                "Compare with an evaluation under the same reference and objective, or set a limit on "
                "ranking_accuracy, which depends on neither."
            )
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
            f"and the {own} of this evaluation {keys.height} are shared, {overlap:.1%}, and eval.min_overlap is "
            f"{least:g}. Nothing passes on so few. Evaluate that policy on the pairs of today (--set "
            f"eval.model={other.folders[0].parent / 'policy'}) and name the folder that this writes, name an "
            "evaluation of the same pairs, or lower eval.min_overlap."
        )
    return [frame.join(keys, on="pair_key", how="semi", maintain_order="left") for frame in frames], overlap


def _differs(metric: str, measure: Mapping[str, Any], document: Mapping[str, Any]) -> str | None:
    """Why the values of a metric are of another kind there; None: they are of the same."""
    for what in PAIR_VALUES[metric].depends_on:
        if measure[what] != document["measure"].get(what):
            return f"its {what} is another one"
    return None


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
