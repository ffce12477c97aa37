"""The reference store: a set of rows, each the log-probs of one pair under one reference.

    <store>/<reference_id>/reference.json          what the id is made of, readable
    <store>/<reference_id>/parts/<sha256>.parquet  immutable; the name is the sha256 of the file's bytes
    <store>/<reference_id>/quarantine/             parts that were not what their name says

There is no manifest, no lock and no order: a pair is there or it is not, and completeness is a set difference.
Parts appear whole or not at all, are checked against their name before a row is believed, and are never changed.
"""

import hashlib
import json
import logging
from collections.abc import Mapping, Sequence
from io import BytesIO
from pathlib import Path
from typing import Any, Literal

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import Field, field_validator

from data.durable import fsync_folder, write_bytes, write_json, writing_to
from data.errors import PipelineError, StoreError
from data.identity import document_key
from data.parquet import parquet_bytes
from data.settings import Settings

logger = logging.getLogger(__name__)

SCHEMA_VERSION = 1
_PART_KEYS = {"reference_id", "schema_version"}  # of a part's metadata; the others are the stack that scored it
ROW_SCHEMA = pa.schema(
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
    ]
)


class StoreConfig(Settings):
    """Section `store`: where reference log-probs are kept."""

    url: str | None = None
    """Folder of the store; none: `store` in the work folder. Many work folders may share one."""
    unit_pairs: int = Field(default=256, ge=1)
    """Pairs committed at a time: what an interruption can lose."""

    @field_validator("url")
    @classmethod
    def _local(cls, url: str | None) -> str | None:
        if url is not None and "://" in url:
            raise ValueError(f"only folders can hold a store in this version, not {url}")
        return url


class DamagedPart(StoreError):
    """A part that is not what its name or its place says; scoring its pairs again repairs it."""


class ReferenceStore:
    """The rows of one reference."""

    def __init__(self, root: Path, reference_id: str) -> None:
        self.root = root
        self.reference_id = reference_id
        self.folder = root / reference_id
        self.parts_folder = self.folder / "parts"

    def describe(self, identity: Mapping[str, Any]) -> None:
        """Write reference.json: the full preimage of the id."""
        if document_key(identity) != self.reference_id:
            raise ValueError("the identity is not the preimage of this store's reference_id")
        path = self.folder / "reference.json"
        if not path.exists():
            write_json(path, {"reference_id": self.reference_id, "identity": dict(identity)})

    def rows(self, *, damaged: Literal["refuse", "skip", "quarantine"] = "refuse") -> pl.DataFrame:
        """All rows, one for each pair key (of two, that of the smallest part name), every part checked first.

        The column `stack` says what scored a row, as JSON.

        Raises:
            StoreError: a part is damaged or another reference's, and `damaged` is "refuse".
        """
        frames = []
        for path in sorted(self.parts_folder.glob("*.parquet")):
            try:
                frames.append(self._read_part(path))
            except FileNotFoundError:  # another worker has set it aside
                continue
            except DamagedPart as error:
                if damaged == "refuse":
                    raise
                if damaged == "quarantine":
                    self._quarantine(path)
                logger.warning("%s", error)
        frame = pl.concat(frames) if frames else _frame(ROW_SCHEMA.empty_table(), {})
        return frame.unique("pair_key", keep="first", maintain_order=True)

    def commit(self, rows: pa.Table, stack: Mapping[str, str]) -> Path:
        """Add one part, whole and durable; the same rows and stack give the same part.

        Raises:
            PipelineError: a value is not a finite, non-positive log-prob. EnvironmentProblem: it cannot be written.
        """
        metadata = {"reference_id": self.reference_id, "schema_version": str(SCHEMA_VERSION), **stack}
        rows = rows.cast(ROW_SCHEMA)
        _check_logps(rows)
        content = parquet_bytes(rows.replace_schema_metadata(metadata))
        path = self.parts_folder / f"{hashlib.sha256(content).hexdigest()}.parquet"
        write_bytes(path, content)
        return path

    def _read_part(self, path: Path) -> pl.DataFrame:
        content = path.read_bytes()
        if hashlib.sha256(content).hexdigest() != path.stem:
            raise DamagedPart(
                f"The part {path} is damaged: its bytes are not those that its name vouches for, so none of its rows "
                "can be believed. Run `pipeline precompute-ref`, which sets it aside and scores its pairs again."
            )
        try:
            table = pq.read_table(BytesIO(content))
        except pa.ArrowException as error:
            raise DamagedPart(
                f"The part {path} is no Parquet file ({error}). Run `pipeline precompute-ref`, which sets it aside."
            ) from error
        metadata = {key.decode(): value.decode() for key, value in (table.schema.metadata or {}).items()}
        if metadata.get("reference_id") != self.reference_id:
            raise DamagedPart(
                f"The part {path} holds log-probs of another reference ({metadata.get('reference_id', 'none named')}), "
                f"copied into the folder of {self.reference_id}. Run `pipeline precompute-ref`, which sets it aside."
            )
        version = int(metadata.get("schema_version", "0"))
        if version > SCHEMA_VERSION:
            raise StoreError(
                f"The part {path} has schema version {version}; this version reads up to {SCHEMA_VERSION}. It was made "
                "by a newer version of this program: upgrade, or use another store.url."
            )
        return _frame(table, {key: value for key, value in metadata.items() if key not in _PART_KEYS})

    def _quarantine(self, path: Path) -> None:
        quarantine = self.folder / "quarantine"
        with writing_to(quarantine):
            path.replace(quarantine / path.name)
            fsync_folder(quarantine)


def _frame(table: pa.Table, stack: Mapping[str, str]) -> pl.DataFrame:
    frame = pl.from_arrow(table.select(ROW_SCHEMA.names).replace_schema_metadata(None))
    assert isinstance(frame, pl.DataFrame)
    return frame.with_columns(stack=pl.lit(json.dumps(stack, sort_keys=True)))


def _check_logps(rows: pa.Table) -> None:
    """No NaN, infinity or positive log-prob is ever committed."""
    for name in ("ref_chosen_logps", "ref_rejected_logps"):
        values = rows[name].to_numpy()
        bad = np.flatnonzero(~(np.isfinite(values) & (values <= 0)))
        if len(bad):
            keys = ", ".join(rows["pair_key"][int(i)].as_py()[:12] for i in bad[:10])
            raise PipelineError(
                f"The reference gave {len(bad)} log-probs that are not finite or above 0 ({name}, first "
                f"{values[bad[0]]}; pairs {keys}), so nothing of this unit was stored. The weights or the dtype are "
                "at fault: try reference.dtype: float32, and check that the model generates text."
            )


def other_references(store: ReferenceStore) -> dict[str, dict[str, Any]]:
    """Identities of the other references in the store, by id."""
    found = {}
    for path in sorted(store.root.glob("*/reference.json")):
        try:
            document = json.loads(path.read_bytes())
            found[str(document["reference_id"])] = dict(document["identity"])
        except (ValueError, KeyError, TypeError, OSError):
            logger.warning("%s cannot be read and is passed over", path)
    found.pop(store.reference_id, None)
    return found


def missing_keys(wanted: Sequence[str], rows: pl.DataFrame) -> list[str]:
    """The wanted pair keys that have no row: a set difference."""
    frame = pl.DataFrame({"pair_key": wanted}, schema={"pair_key": pl.String}).unique(maintain_order=True)
    return frame.join(rows, on="pair_key", how="anti")["pair_key"].to_list()
