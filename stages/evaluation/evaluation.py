"""What is evaluated, and what identifies an evaluation."""

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

from data.durable import write_bytes
from data.identity import document_key
from data.pairs.coverage import Coverage
from data.parquet import parquet_bytes
from data.tokens.token_pairs import TokenPairs
from stages.metrics.preference import METRICS_VERSION
from stages.reference_rows import ReferenceLogps
from stages.run_folder import visits_key
from stages.training.config import TrainConfig

SCHEMA_VERSION = 2
_IDENTITY = b"evaluation"


@dataclass(frozen=True)
class Findings:
    """What an evaluation finds beside the scores of its pairs."""

    metrics: dict[str, float] = field(default_factory=dict)
    """Of generations and of commands, by the names that gates take."""
    external: dict[str, Any] = field(default_factory=dict)
    """What metrics.json keeps of each command."""
    reference_report: dict[str, Any] | None = None


@dataclass(frozen=True)
class Evaluation:
    """What is evaluated: a policy on held-out pairs, under an objective."""

    name: str
    """Of the run or model."""
    policy: Path
    """Folder of the model."""
    folder: Path
    """Where the results go."""
    pairs: TokenPairs
    reference: dict[str, ReferenceLogps] | None
    """By pair key; None where none is read."""
    train: TrainConfig
    coverage: Coverage
    policy_id: str
    reference_id: str | None
    """None where none is read."""
    reference_name: str | None = None
    facts: Callable[[], pl.DataFrame] = pl.DataFrame
    """What is known of the pairs beside their scores: pair_key, row, n_prompt, turns, source, slices; a row for
    each."""
    leakage: Callable[[], dict[str, int]] = field(default=dict)
    """Held-out pairs that training has seen, too."""
    look_further: Callable[["Evaluation"], Findings] = field(default=lambda _: Findings())
    """Looks at what the pairs' scores do not show, given this."""

    @property
    def measure(self) -> dict[str, Any]:
        """What the values of single pairs are relative to."""
        reference = None if self.reference is None else self.reference_id
        return {"reference": reference, "beta": self.train.beta, "objective": self._objective}

    @cached_property  # it reads the keys of all pairs
    def identity(self) -> str:
        """sha256 over what the scores depend on; dtypes are in the ids of policy and reference."""
        return document_key(
            {
                "metrics_version": METRICS_VERSION,
                "policy_id": self.policy_id,
                "reference_id": self.reference_id,
                "pairs": visits_key(self.pairs),
                "objective": self._objective,
            }
        )

    @property
    def _objective(self) -> dict[str, Any] | None:
        """What losses are of; None where there are none: the objective reads a reference, and none is read here."""
        unknown = self.reference_id is None and self.train.reads_reference
        return None if unknown else self.train.objective_identity()

    def earlier(self) -> dict[str, Any] | None:
        """The metrics document of this policy and these pairs, if it was made before."""
        try:
            document = dict(json.loads((self.folder / "metrics.json").read_bytes()))
        except (FileNotFoundError, ValueError, TypeError):
            return None
        same = document.get("schema_version") == SCHEMA_VERSION and document.get("identity") == self.identity
        return document if same and self.scored() is not None else None

    def scored(self) -> pl.DataFrame | None:
        """The scores of this policy and these pairs, if they are there; pairs.parquet says whose they are."""
        path = self.folder / "pairs.parquet"
        try:
            return pl.read_parquet(path) if evaluation_of_pairs(path) == self.identity else None
        except (FileNotFoundError, pa.ArrowInvalid, pl.exceptions.PolarsError):
            return None

    def keep(self, pairs: pl.DataFrame) -> None:
        """Write pairs.parquet."""
        table = pairs.to_arrow().replace_schema_metadata({_IDENTITY: self.identity})
        write_bytes(self.folder / "pairs.parquet", parquet_bytes(table))


def evaluation_of_pairs(path: Path) -> str:
    """The identity of the evaluation whose scores a pairs.parquet has; empty where it does not say so."""
    identity: bytes = (pq.read_schema(path).metadata or {}).get(_IDENTITY, b"")
    return identity.decode()
