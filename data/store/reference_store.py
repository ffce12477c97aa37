"""The reference store: a set of rows, each the log-probs of one pair under one reference.

    <store>/<reference_id>/reference.json          what the id is made of, readable, and a name
    <store>/<reference_id>/parts/<sha256>.parquet  rows of pairs: what training and evaluation read
    <store>/<reference_id>/tokens/<sha256>.parquet log-probs of the tokens of responses: read for new pairs of old ones
    <store>/<reference_id>/costs/<time>-<hash>.json what each scoring job took
    <store>/<reference_id>/quarantine/             parts that were not what their name says

There is no manifest, no lock and no order: a pair is there or it is not, and completeness is a set difference.
Parts appear whole or not at all, are checked against their name before a row is believed, and are never changed.
"""

import hashlib
import json
import logging
import os
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import polars as pl
import pyarrow as pa
from pydantic import Field

from data.errors import StoreError
from data.parquet import as_frame
from data.settings import Settings
from data.store.parts import PAIR_SCHEMA, RESPONSE_SCHEMA, DamagedPart, Part, open_part, pack_part
from data.store.storage import Storage

logger = logging.getLogger(__name__)

Damaged = Literal["refuse", "skip", "quarantine"]
PartFolder = Literal["parts", "tokens"]
TokenLogps = npt.NDArray[np.float32]

SCHEMAS: dict[PartFolder, pa.Schema] = {"parts": PAIR_SCHEMA, "tokens": RESPONSE_SCHEMA}


class StoreConfig(Settings):
    """Section `store`: where reference log-probs are kept."""

    url: str | None = None
    """Folder or fsspec URL (s3://bucket/folder) of the store; none: `store` in the work folder. Many may share one."""
    unit_pairs: int = Field(default=256, ge=1)
    """Pairs committed at a time: what an interruption can lose."""
    max_new_pairs: int | None = Field(default=None, ge=0)
    """Most pairs that one job may add; none: no limit. Stops a night that would score everything again."""


class ReferenceStore:
    """The rows of one reference."""

    def __init__(self, storage: Storage, reference_id: str) -> None:
        self.storage = storage
        self.reference_id = reference_id

    def __str__(self) -> str:
        return f"{self.storage}/{self.reference_id}"

    def part_names(self) -> list[str]:
        """Names of the parts with rows of pairs, sorted."""
        return self._names("parts")

    def rows(
        self,
        columns: Sequence[str] = tuple(PAIR_SCHEMA.names),
        *,
        damaged: Damaged = "refuse",
        only: Collection[str] | None = None,
    ) -> pl.DataFrame:
        """One row for each pair key (of two, that of the smallest part name), of parts that were checked.

        The column `stack` says what scored a row, as JSON. `only` takes no other parts than these.

        Raises:
            StoreError: a part is damaged or another reference's, and `damaged` is "refuse".
        """
        parts = [part for _, part in self._parts("parts", columns, damaged, only)]
        return _frame(parts, columns).unique("pair_key", keep="first", maintain_order=True)

    def token_logps(self, response_keys: Collection[str], *, damaged: Damaged) -> dict[str, TokenLogps]:
        """The stored log-probs of the scored tokens of these responses, as far as they are known: (L,) float32."""
        wanted = pa.array(sorted(response_keys), pa.string())
        found: dict[str, TokenLogps] = {}
        for _, part in self._parts("tokens", RESPONSE_SCHEMA.names, damaged) if len(wanted) else ():
            table = part.table.filter(pa.compute.is_in(part.table["response_key"], wanted))
            keys, logps = table["response_key"].to_pylist(), table["token_logps"].combine_chunks()
            for place, key in enumerate(keys):
                found.setdefault(key, logps[place].values.to_numpy())
        return found

    def commit(self, pairs: pa.Table, stack: Mapping[str, str], responses: pa.Table | None = None) -> str:
        """Add the rows of a unit, whole and durable, and the tokens of its `responses`; returns the name of its part.

        The tokens come first: where the pairs are, they are. The same rows and stack give the same parts.

        Raises:
            BadLogps: a value is not a finite, non-positive log-prob; nothing was written.
            EnvironmentProblem: it cannot be written.
        """
        packed = [("parts", *pack_part(pairs, PAIR_SCHEMA, self.reference_id, stack))]
        if responses is not None and len(responses):
            packed.insert(0, ("tokens", *pack_part(responses, RESPONSE_SCHEMA, self.reference_id, stack)))
        for folder, name, content in packed:
            self.storage.write(f"{self.reference_id}/{folder}/{name}", content)
        return packed[-1][1]

    def checked_parts(self, folder: PartFolder) -> Iterator[tuple[str, Part | StoreError]]:
        """Every part of a folder by name, or what is wrong with it; one at a time."""
        for name in self._names(folder):
            place = f"{self.reference_id}/{folder}/{name}"
            schema = SCHEMAS[folder]
            try:
                content = self.storage.read(place)
                yield name, open_part(name, f"{self.storage}/{place}", content, self.reference_id, schema, schema.names)
            except FileNotFoundError:
                continue
            except StoreError as error:
                yield name, error

    def replace(self, folder: PartFolder, names: Collection[str], merged: pa.Table, stack: Mapping[str, str]) -> None:
        """Put one part in the place of several; it is there before the first of them goes."""
        new, content = pack_part(merged, SCHEMAS[folder], self.reference_id, stack)
        self.storage.write(f"{self.reference_id}/{folder}/{new}", content)
        for name in names:
            if name != new:
                self.storage.delete(f"{self.reference_id}/{folder}/{name}")

    def sweep(self) -> None:
        """Remove what killed writers left unfinished."""
        for folder in ("parts", "tokens", "costs"):
            for name in self.storage.sweep(f"{self.reference_id}/{folder}"):
                logger.debug("swept %s", name)

    def add_cost(self, began: datetime, document: Mapping[str, Any]) -> None:
        """Keep what a scoring job took; names sort by time."""
        content = json.dumps({**document, "began": began.isoformat()}, sort_keys=True).encode()
        name = f"{began:%Y%m%dT%H%M%S.%fZ}-{hashlib.sha256(content).hexdigest()[:16]}.json"
        self.storage.write(f"{self.reference_id}/costs/{name}", content)

    def costs(self, last: int | None = None) -> list[dict[str, Any]]:
        """What the scoring jobs took, oldest first; with `last` only so many of the newest."""
        names = [name for name in self.storage.names(f"{self.reference_id}/costs") if name.endswith(".json")]
        found = []
        for name in names[-last:] if last else names:
            try:
                found.append(dict(json.loads(self.storage.read(f"{self.reference_id}/costs/{name}"))))
            except (ValueError, TypeError, FileNotFoundError):
                logger.warning("%s/costs/%s cannot be read and is passed over", self, name)
        return found

    def _names(self, folder: PartFolder) -> list[str]:
        return [name for name in self.storage.names(f"{self.reference_id}/{folder}") if name.endswith(".parquet")]

    def _parts(
        self,
        folder: PartFolder,
        columns: Sequence[str],
        damaged: Damaged,
        only: Collection[str] | None = None,
    ) -> Iterator[tuple[str, Part]]:
        """The sound parts of a folder by name, smallest first.

        A part that is gone when its turn comes was set aside, or merged into another that is listed then.
        """

        def read(name: str) -> Part | None:
            place = f"{self.reference_id}/{folder}/{name}"
            try:
                content = self.storage.read(place)
                return open_part(name, f"{self.storage}/{place}", content, self.reference_id, SCHEMAS[folder], columns)
            except FileNotFoundError:
                return None
            except DamagedPart as error:
                if damaged == "refuse":
                    raise
                if damaged == "quarantine":
                    self.storage.move(place, f"{self.reference_id}/quarantine/{name}")
                logger.warning("%s", error)
                return None

        def names() -> list[str]:
            return [name for name in self._names(folder) if only is None or name in only]

        return iter(sorted(_read_all(names, read).items()))


def _read_all(names: Callable[[], list[str]], read: Callable[[str], Part | None]) -> dict[str, Part]:
    """What `read` gives for all `names`, looking again as long as one of them was gone."""
    seen: dict[str, Part | None] = {}
    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:  # hashing and reading let other threads run
        while new := [name for name in names() if name not in seen]:
            seen |= zip(new, pool.map(read, new), strict=True)
            if all(seen[name] is not None for name in new):
                break
    return {name: part for name, part in seen.items() if part is not None}


def _frame(parts: Sequence[Part], columns: Sequence[str]) -> pl.DataFrame:
    """The rows of all parts one after the other, and what scored each."""
    tables = [PAIR_SCHEMA.empty_table().select(columns), *(part.table for part in parts)]
    stacks = pl.Series([json.dumps(part.stack, sort_keys=True) for part in parts], dtype=pl.String)
    which = np.repeat(np.arange(len(parts)), [len(part.table) for part in parts])
    return as_frame(pa.concat_tables(tables)).with_columns(stack=stacks.gather(which))


def missing_keys(wanted: Sequence[str], rows: pl.DataFrame) -> list[str]:
    """The wanted pair keys that have no row: a set difference."""
    frame = pl.DataFrame({"pair_key": wanted}, schema={"pair_key": pl.String}).unique(maintain_order=True)
    return frame.join(rows, on="pair_key", how="anti")["pair_key"].to_list()
