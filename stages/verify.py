"""Checks all that is stored of a reference, and scores a sample of it again.

A digest finds any change of a part; that sums and tokens say the same finds one whose digest was made to fit.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl
import pyarrow as pa

from data.errors import StoreError
from data.parquet import as_frame
from data.schema import TokenPair
from data.store.parts import PAIR_SCHEMA
from data.store.reference_store import SCHEMAS, PartFolder, ReferenceStore
from stages.agreement import agrees, in_words, limit_in_words
from stages.drift import compare, stored_sums
from stages.units import prefix_sums

if TYPE_CHECKING:
    from stages.scoring.scorer import Scorer

CONFIDENCE = 0.95
_SHOWN = 10  # keys that a message names
_SUMS = [name for name in PAIR_SCHEMA.names if name.endswith("_logps")]


def verify_store(store: ReferenceStore) -> dict[str, Any]:
    """The account of one reference: what was checked, and a sentence for each problem."""
    problems: list[str] = []
    tables: dict[PartFolder, list[pa.Table]] = {folder: [schema.empty_table()] for folder, schema in SCHEMAS.items()}
    for folder, found in tables.items():
        for _, outcome in store.checked_parts(folder):
            if isinstance(outcome, StoreError):
                problems.append(str(outcome))
            else:
                found.append(outcome.table)
    rows, responses = (as_frame(pa.concat_tables(found)) for found in tables.values())
    return {
        "reference_id": store.reference_id,
        "parts": len(tables["parts"]) - 1,
        "token_parts": len(tables["tokens"]) - 1,
        "pairs": rows["pair_key"].n_unique(),
        "responses_with_tokens": responses["response_key"].n_unique(),
        "problems": [*problems, *_no_logps(rows), *_twofold(rows), *_unlike_tokens(rows, responses)],
    }


def rescore(
    pairs: Sequence[TokenPair], store: ReferenceStore, scorer: "Scorer", sample: int, dtype: str
) -> dict[str, Any]:
    """Score a sample of the stored pairs again; what it would have found stands beside what it found."""
    unique = {pair.key: pair for pair in pairs}
    rows = store.rows(["pair_key", "ref_chosen_logps", "ref_rejected_logps"], damaged="skip")
    here = [unique[key] for key in sorted(unique.keys() & set(rows["pair_key"]))]
    # Keys are hashes, so that every so-manieth of them is a random sample, and the same one tomorrow.
    stored = stored_sums(here, rows, sample)
    if not stored:
        raise StoreError("None of the pairs of this configuration is stored, so there is nothing to score again.")
    figures = compare(scorer, stored)
    n = min(sample, len(here))
    found = {"pairs": n, **figures, "detectable_share": 1 - (1 - CONFIDENCE) ** (1 / n)}
    problems = []
    if not agrees(figures, dtype):
        problems.append(
            f"Of {n} pairs scored again, the sums are {in_words(figures)} (expected: {limit_in_words(dtype)}): what is "
            "stored is not what this model gives."
        )
    return {"rescored": found, "problems": problems}


def _no_logps(rows: pl.DataFrame) -> list[str]:
    """Values that may not stand in a store, however they came there."""
    bad = pl.any_horizontal(*(~pl.col(name).is_finite() | (pl.col(name) > 0) for name in _SUMS))
    unordered = pl.any_horizontal(
        *(pl.col(f"ref_{side}_shared_logps") < pl.col(f"ref_{side}_logps") for side in ("chosen", "rejected"))
    )
    keys = rows.filter(bad.fill_null(value=False) | unordered.fill_null(value=False))["pair_key"]
    return [f"{len(keys)} pairs have values that are no sums of log-probs: {_shown(keys)}."] if len(keys) else []


def _twofold(rows: pl.DataFrame) -> list[str]:
    """Pairs that stand there more than once, with different values."""
    values = rows.select("pair_key", *_SUMS).unique()
    keys = values.filter(pl.col("pair_key").is_duplicated())["pair_key"].unique(maintain_order=True)
    if not len(keys):
        return []
    which = "the part with the smallest name counts"
    return [f"{len(keys)} pairs are stored more than once with different values ({which}): {_shown(keys)}."]


def _unlike_tokens(rows: pl.DataFrame, responses: pl.DataFrame) -> list[str]:
    """Pairs whose sums are not those of their tokens."""
    sums = {key: prefix_sums(np.asarray(logps, np.float32)) for key, logps in responses.iter_rows()}
    unlike: dict[str, None] = {}
    for row in rows.iter_rows(named=True):
        shared = min(row["n_chosen"], row["n_rejected"])
        for side in ("chosen", "rejected"):
            found = sums.get(row[f"{side}_key"])
            if found is None:
                continue
            whole, part = row[f"ref_{side}_logps"], row[f"ref_{side}_shared_logps"]
            if len(found) != row[f"n_{side}"] or found[-1] != whole or part not in (None, found[shared - 1]):
                unlike[row["pair_key"]] = None
    if not unlike:
        return []
    return [f"{len(unlike)} pairs have sums that are not those of their tokens: {_shown(list(unlike))}."]


def _shown(keys: Sequence[str] | pl.Series) -> str:
    return ", ".join(key[:12] for key in keys[:_SHOWN])
