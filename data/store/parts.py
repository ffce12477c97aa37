"""The parts of a store: immutable Parquet files, each named by the sha256 of its bytes, which vouches for them.

A part belongs to one reference and says so, with its schema version and what made it, in its own metadata.
"""

import hashlib
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from data.errors import StoreError
from data.parquet import parquet_bytes

SCHEMA_VERSION = 2  # 1 had no shared sums
PAIR_SCHEMA = pa.schema(
    [
        ("pair_key", pa.string()),
        ("prompt_key", pa.string()),
        ("chosen_key", pa.string()),
        ("rejected_key", pa.string()),
        ("n_prompt", pa.int32()),
        ("n_chosen", pa.int32()),
        ("n_rejected", pa.int32()),
        ("ref_chosen_logps", pa.float32()),
        ("ref_rejected_logps", pa.float32()),
        ("ref_chosen_shared_logps", pa.float32()),
        ("ref_rejected_shared_logps", pa.float32()),
    ]
)
"""One row a pair. Shared: over the first min(n_chosen, n_rejected) scored tokens (LD-DPO); null: not known."""
MAY_BE_UNKNOWN = ("ref_chosen_shared_logps", "ref_rejected_shared_logps")
RESPONSE_SCHEMA = pa.schema([("response_key", pa.string()), ("token_logps", pa.list_(pa.float32()))])
"""One row a response: the log-prob of each scored token, so that other pairs of known responses need no model."""

_OWN_METADATA = {"reference_id", "schema_version"}  # the others are the stack that scored the part


class DamagedPart(StoreError):
    """A part that is not what its name or its place says; scoring its pairs again repairs it."""


class BadLogps(Exception):
    """Values that are no log-probs; `rows` are their places in the table, `example` is the first."""

    def __init__(self, column: str, rows: Sequence[int], example: float) -> None:
        super().__init__(f"{column}: {len(rows)} values, the first {example}")
        self.column, self.rows, self.example = column, rows, example


class Part(NamedTuple):
    """A part that has been checked."""

    table: pa.Table
    stack: dict[str, str]


def pack_part(table: pa.Table, schema: pa.Schema, reference_id: str, stack: Mapping[str, str]) -> tuple[str, bytes]:
    """File name and bytes of a part; the same rows and stack give the same.

    Raises:
        BadLogps: a value is not a finite, non-positive log-prob.
    """
    table = table.select(schema.names).cast(schema)
    _check_logps(table)
    metadata = {"reference_id": reference_id, "schema_version": str(SCHEMA_VERSION), **stack}
    content = parquet_bytes(table.replace_schema_metadata(metadata))
    return f"{hashlib.sha256(content).hexdigest()}.parquet", content


def open_part(
    name: str, place: str, content: bytes, reference_id: str, schema: pa.Schema, columns: Sequence[str]
) -> Part:
    """The rows of a part, once it is known to be whole and this reference's; `place` is for messages.

    Raises:
        DamagedPart: it is not. StoreError: a newer version made it.
    """
    if f"{hashlib.sha256(content).hexdigest()}.parquet" != name:
        raise DamagedPart(
            f"The part {place} is damaged: its bytes are not those that its name vouches for, so none of its rows "
            "can be believed. Run `pipeline precompute-ref`, which sets it aside and scores its pairs again."
        )
    try:
        file = pq.ParquetFile(pa.BufferReader(content))
        metadata = {key.decode(): value.decode() for key, value in (file.schema_arrow.metadata or {}).items()}
        _check_owner(place, metadata, reference_id)
        present = [column for column in columns if column in file.schema_arrow.names]
        table = file.read(columns=present, use_threads=False)
    except pa.ArrowException as error:
        raise DamagedPart(
            f"The part {place} is no Parquet file ({error}). Run `pipeline precompute-ref`, which sets it aside."
        ) from error
    for column in columns:
        if column not in present:  # an older schema
            table = table.append_column(column, pa.nulls(len(table), schema.field(column).type))
    table = table.select(columns).replace_schema_metadata(None)
    return Part(table, {key: value for key, value in metadata.items() if key not in _OWN_METADATA})


def _check_owner(place: str, metadata: Mapping[str, str], reference_id: str) -> None:
    if metadata.get("reference_id") != reference_id:
        raise DamagedPart(
            f"The part {place} holds log-probs of another reference ({metadata.get('reference_id', 'none named')}), "
            f"copied into the folder of {reference_id}. Run `pipeline precompute-ref`, which sets it aside."
        )
    version = metadata.get("schema_version", "")
    if not version.isdigit():
        raise DamagedPart(
            f"The part {place} names no schema version. Run `pipeline precompute-ref`, which sets it aside."
        )
    if int(version) > SCHEMA_VERSION:
        raise StoreError(
            f"The part {place} has schema version {version}; this version reads up to {SCHEMA_VERSION}. It was made "
            "by a newer version of this program: upgrade, or use another store.url."
        )


def _check_logps(table: pa.Table) -> None:
    """No NaN, infinity or positive log-prob is ever committed."""
    for field in table.schema:
        column = table[field.name].combine_chunks()
        if pa.types.is_list(field.type):
            rows = np.repeat(np.arange(len(column)), np.diff(column.offsets.to_numpy()))
            values = column.values.to_numpy(zero_copy_only=False)
        elif pa.types.is_floating(field.type):
            rows, values = np.arange(len(column)), column.to_numpy(zero_copy_only=False)  # null becomes NaN
            if field.name in MAY_BE_UNKNOWN:
                known = column.is_valid().to_numpy(zero_copy_only=False)
                rows, values = rows[known], values[known]
        else:
            continue
        bad = ~(np.isfinite(values) & (values <= 0))
        if bad.any():
            raise BadLogps(field.name, [int(row) for row in dict.fromkeys(rows[bad])], float(values[bad][0]))
