"""The folder of prepared pairs: made once, loaded as long as what it was made from is the same.

train.parquet dev.parquet eval.parquet   token pairs, a file a split
rejects.parquet                          every row that is not used: where it stands and why
tokenizer/                               the tokenizer, so that pairs and policy need no model folder
pairs.json                               what they were made from, the coverage, the digest of each file
"""

import hashlib
import json
import logging
import shutil
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from io import BytesIO
from itertools import pairwise
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from data.durable import write_bytes, write_folder, write_json
from data.identity import file_digest
from data.locks import only_process
from data.parquet import parquet_bytes
from data.preparation import Coverage, PreparedPairs
from data.schema import Rejection, Response, TokenPair
from data.splits import Split

logger = logging.getLogger(__name__)

SPLITS: tuple[Split, ...] = get_args(Split)

_IDS, _MASK = pa.list_(pa.int32()), pa.list_(pa.bool_())
PAIR_SCHEMA = pa.schema(
    [
        ("row", pa.int64()),
        ("location", pa.string()),
        ("pair_key", pa.string()),
        ("prompt_ids", _IDS),
        ("chosen_ids", _IDS),
        ("chosen_mask", _MASK),
        ("rejected_ids", _IDS),
        ("rejected_mask", _MASK),
        ("truncated", pa.int64()),
    ]
)
REJECT_SCHEMA = pa.schema(
    [("row", pa.int64()), ("location", pa.string()), ("reason", pa.string()), ("detail", pa.string())]
)


class _OtherBytesError(Exception):
    """A file that is not the one that was written."""


@dataclass(frozen=True)
class PairsFolder:
    """Prepared pairs on disk."""

    path: Path

    @property
    def tokenizer(self) -> Path:
        """Folder of the tokenizer that made the pairs."""
        return self.path / "tokenizer"

    @property
    def rejects(self) -> Path:
        """Every row that is not used."""
        return self.path / "rejects.parquet"

    def origin(self) -> dict[str, Any] | None:
        """What the pairs were made from, or None where there are none."""
        document = self._document()
        return None if document is None else dict(document["origin"])

    def load(self, origin: dict[str, Any]) -> PreparedPairs | None:
        """The pairs that were made from `origin`, or None where these are not (whole) here."""
        document = self._document()
        if document is None or document["origin"] != origin:
            return None
        try:
            content = {name: self._read(name, digest) for name, digest in document["files"].items()}
        except _OtherBytesError as error:
            logger.warning("%s is not as it was written; the pairs are made again", error)
            return None
        rejections = [Rejection(**row) for row in _table(content["rejects.parquet"]).to_pylist()]
        splits = {split: _pairs(_table(content[f"{split}.parquet"])) for split in SPLITS}
        return PreparedPairs(splits, rejections, Coverage(**document["coverage"]), document.get("example"))

    def _document(self) -> dict[str, Any] | None:
        try:
            document = dict(json.loads((self.path / "pairs.json").read_bytes()))
        except (FileNotFoundError, ValueError, TypeError):
            return None
        return document if {"origin", "coverage", "files"} <= document.keys() else None

    def _read(self, name: str, digest: str) -> bytes:
        """The bytes of a file, compared with its digest; what is parsed is these, not the file read again."""
        path = self.path / name
        content = path.read_bytes() if path.is_file() else b""
        if hashlib.sha256(content).hexdigest() != digest:
            raise _OtherBytesError(path)
        return content

    def write(self, prepared: PreparedPairs, origin: dict[str, Any], tokenizer: Any) -> None:
        """Write everything; `pairs.json` comes last and vouches for the other files."""
        tables = {f"{split}.parquet": _pair_table(prepared.splits[split]) for split in SPLITS}
        tables["rejects.parquet"] = pa.Table.from_pylist(
            [vars(rejection) for rejection in prepared.rejections], schema=REJECT_SCHEMA
        )
        for name, table in tables.items():
            write_bytes(self.path / name, parquet_bytes(table))
        write_folder(self.tokenizer, lambda folder: tokenizer.save_pretrained(folder))
        saved = sorted(path for path in self.tokenizer.rglob("*") if path.is_file())
        files = [*tables, *(str(path.relative_to(self.path)) for path in saved)]
        write_json(
            self.path / "pairs.json",
            {
                "origin": origin,
                "coverage": prepared.coverage.document(),
                "example": prepared.example,
                "files": {name: file_digest(self.path / name) for name in files},
            },
        )

    def only_writer(self) -> AbstractContextManager[None]:
        """Hold the folder while making pairs, once another process has made its own."""
        return only_process(
            self.path / "lock", busy=lambda: logger.info("another process is preparing the pairs; waiting for it")
        )

    def copy_tokenizer(self, folder: Path) -> None:
        """Put the tokenizer's files into a model folder."""
        shutil.copytree(self.tokenizer, folder, dirs_exist_ok=True)


def _table(content: bytes) -> pa.Table:
    return pq.read_table(BytesIO(content))


def _pair_table(pairs: Sequence[TokenPair]) -> pa.Table:
    columns = {
        "row": [pair.row for pair in pairs],
        "location": [pair.location for pair in pairs],
        "pair_key": [pair.key for pair in pairs],
        "prompt_ids": [pair.chosen.prompt_ids for pair in pairs],
        "chosen_ids": [pair.chosen.ids for pair in pairs],
        "chosen_mask": [pair.chosen.mask for pair in pairs],
        "rejected_ids": [pair.rejected.ids for pair in pairs],
        "rejected_mask": [pair.rejected.mask for pair in pairs],
        "truncated": [pair.truncated for pair in pairs],
    }
    return pa.table(columns, schema=PAIR_SCHEMA)


def _pairs(table: pa.Table) -> list[TokenPair]:
    ids = {name: _arrays(table[name], np.int32) for name in ("prompt_ids", "chosen_ids", "rejected_ids")}
    masks = {name: _arrays(table[name], np.bool_) for name in ("chosen_mask", "rejected_mask")}
    columns = zip(
        table["row"].to_pylist(),
        table["location"].to_pylist(),
        ids["prompt_ids"],
        ids["chosen_ids"],
        masks["chosen_mask"],
        ids["rejected_ids"],
        masks["rejected_mask"],
        table["truncated"].to_pylist(),
        table["pair_key"].to_pylist(),
        strict=True,
    )
    pairs = []
    for row, location, prompt, chosen, chosen_mask, rejected, rejected_mask, cut, key in columns:
        sides = Response(prompt, chosen, chosen_mask), Response(prompt, rejected, rejected_mask)
        pair = TokenPair(row, location, *sides, cut)
        vars(pair)["key"] = key  # the file's digest has been checked: to hash each pair again would find nothing
        pairs.append(pair)
    return pairs


def _arrays(column: pa.ChunkedArray, dtype: type[np.generic]) -> list[Any]:
    """A list column as one array a row."""
    combined = column.combine_chunks()
    values = combined.values.to_numpy(zero_copy_only=False).astype(dtype)
    offsets = combined.offsets.to_numpy()
    return [values[start:stop] for start, stop in pairwise(offsets)]
