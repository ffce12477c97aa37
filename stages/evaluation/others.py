"""Evaluations that were made before, read from their folders to be compared with."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

import polars as pl
import pyarrow as pa

from data.errors import ConfigError, StoreError, one_line
from stages.evaluation.evaluation import SCHEMA_VERSION, evaluation_of_pairs
from stages.metrics.preference import METRICS_VERSION
from stages.metrics.records import scores_digest

Against = Literal["baseline", "anchor"]


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
            ConfigError: no evaluation, or one of another version.
            StoreError: a damaged one.
        """
        try:
            document = dict(json.loads((folder / "metrics.json").read_bytes()))
            whole = {"identity", "measure", "scores_digest"} <= document.keys() and (folder / "pairs.parquet").is_file()
        except FileNotFoundError:
            raise ConfigError(
                f"There is no evaluation in {folder}, which eval.baseline or eval.anchor names: metrics.json is "
                "missing. Nothing passes without it. Name a run that was evaluated or a folder with metrics.json and "
                "pairs.parquet, or evaluate that run first (pipeline eval with its configuration)."
            ) from None
        except (ValueError, TypeError) as error:
            raise StoreError(
                f"{folder / 'metrics.json'}, which eval.baseline or eval.anchor names, is not what an evaluation "
                f"writes ({one_line(error)}). Evaluate that run again, or name another."
            ) from error
        version = {"schema_version": SCHEMA_VERSION, "metrics_version": METRICS_VERSION}
        differing = {name: document.get(name) for name, number in version.items() if document.get(name) != number}
        if differing:
            held = ", ".join(f"{name} {number} instead of {version[name]}" for name, number in differing.items())
            raise ConfigError(
                f"{folder / 'metrics.json'} was written by another version of this program ({held}), so nothing is "
                "compared with it. Evaluate that run again with this version, or compare with another."
            )
        if not whole:
            raise StoreError(
                f"The evaluation in {folder} is not whole: pairs.parquet is missing, or metrics.json was cut. Run "
                "`pipeline eval` with the configuration of that run again, or compare with another."
            )
        return cls(folder, document)

    def pairs(self) -> pl.DataFrame:
        """Its pairs, once each.

        Raises:
            StoreError: they are not those that its metrics are of.
        """
        path = self.folder / "pairs.parquet"
        try:
            pairs, identity = pl.read_parquet(path), evaluation_of_pairs(path)
        except (pl.exceptions.PolarsError, pa.ArrowException, OSError) as error:
            raise StoreError(
                f"{path} cannot be read ({one_line(error)}). Evaluate that run again, or name another."
            ) from error
        if identity != self.document["identity"]:
            raise StoreError(
                f"{path} is of another evaluation than metrics.json beside it, which was stopped before its verdict. "
                "Evaluate that run again, or name another."
            )
        if "pair_key" not in pairs.columns or scores_digest(pairs) != self.document["scores_digest"]:
            raise StoreError(
                f"{path} does not hold the scores that metrics.json beside it was made of: it was changed, or damaged. "
                "Move the folder away, evaluate that run again, or name another."
            )
        return pairs.unique("pair_key", keep="first").sort("pair_key")
