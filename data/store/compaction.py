"""Merges the small parts that many small jobs leave, without changing a value."""

import json
from collections.abc import Iterator
from typing import NamedTuple

import polars as pl
import pyarrow as pa

from data.errors import StoreError
from data.parquet import as_frame
from data.store.parts import Part
from data.store.reference_store import SCHEMAS, PartFolder, ReferenceStore

PART_ROWS = 65_536  # of a merged part; parts of half of it stay as they are

_ORDER = {"parts": ["prompt_key", "pair_key"], "tokens": ["response_key"]}


class Merge(NamedTuple):
    """Parts of one stack that become one."""

    folder: PartFolder
    names: list[str]
    table: pa.Table
    stack: dict[str, str]


def find_merges(store: ReferenceStore) -> Iterator[Merge]:
    """What there is to merge.

    Raises:
        StoreError: a part is damaged; `precompute-ref` repairs it first.
    """
    for folder in SCHEMAS:
        groups: dict[str, list[tuple[str, Part]]] = {}
        for name, part in _without_conflicts(folder, list(_sound(store, folder))):
            if len(part.table) < PART_ROWS // 2:
                groups.setdefault(json.dumps(part.stack, sort_keys=True), []).append((name, part))
        for stack, parts in groups.items():
            yield from _merges_of(folder, parts, json.loads(stack))


def _sound(store: ReferenceStore, folder: PartFolder) -> Iterator[tuple[str, Part]]:
    for name, outcome in store.checked_parts(folder):
        if isinstance(outcome, StoreError):
            raise outcome
        yield name, outcome


def _without_conflicts(folder: PartFolder, parts: list[tuple[str, Part]]) -> list[tuple[str, Part]]:
    """The parts none of whose rows stands in another one with other values: names decide between these."""
    key = SCHEMAS[folder].names[0]
    frames = [as_frame(part.table).with_columns(part=pl.lit(name)) for name, part in parts]
    if not frames:
        return []
    rows = pl.concat(frames)
    values = SCHEMAS[folder].names
    conflicts = rows.select(values).unique().filter(pl.col(key).is_duplicated())[key]
    contested = set(rows.filter(pl.col(key).is_in(conflicts.implode()))["part"])
    return [(name, part) for name, part in parts if name not in contested]


def _merges_of(folder: PartFolder, parts: list[tuple[str, Part]], stack: dict[str, str]) -> Iterator[Merge]:
    """Parts in the order of their names, as many at a time as fill one."""
    batch: list[tuple[str, Part]] = []
    for number, (name, part) in enumerate(parts, 1):
        batch.append((name, part))
        if number == len(parts) or sum(len(each.table) for _, each in batch) >= PART_ROWS:
            if len(batch) > 1:
                table = as_frame(pa.concat_tables([each.table for _, each in batch]))
                merged = table.unique(SCHEMAS[folder].names[0]).sort(_ORDER[folder]).to_arrow()
                yield Merge(folder, [each for each, _ in batch], merged.cast(SCHEMAS[folder]), stack)
            batch = []
