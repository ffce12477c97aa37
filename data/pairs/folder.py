"""The folder of prepared pairs: made once, loaded as long as what it was made from is the same.

parts/            token pairs in memory-mapped Arrow files, each named by what it was made of and by its bytes
rejects.parquet   every row that is not used: where it stands and why
tokenizer/        the tokenizer, so that pairs and policy need no model folder
pairs.json        what they were made from, which parts they are, the coverage, the digest of each other file
"""

import hashlib
import json
import logging
import shutil
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import astuple, dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from data.config import DataConfig
from data.durable import sweep_temporaries, write_bytes, write_folder, write_json
from data.identity import file_digest
from data.locks import only_process
from data.pairs.coverage import Coverage
from data.pairs.cut import cut_splits
from data.pairs.pair_parts import is_whole
from data.pairs.preparation import PartInUse, PreparedPairs
from data.parquet import parquet_bytes
from data.schema import Rejection
from data.tokens.token_pairs import PairPart, Place

logger = logging.getLogger(__name__)

Digest = Callable[[Path], str]

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
    def parts(self) -> Path:
        """Folder of the files of pairs."""
        return self.path / "parts"

    @property
    def rejects(self) -> Path:
        """Every row that is not used."""
        return self.path / "rejects.parquet"

    def origin(self) -> dict[str, Any] | None:
        """What the pairs were made from, or None where there are none."""
        document = self._document()
        return None if document is None else dict(document["origin"])

    def load(self, origin: dict[str, Any], config: DataConfig, digest: Digest = file_digest) -> PreparedPairs | None:
        """The pairs that were made from `origin`, or None where these are not (whole) here."""
        document = self._document()
        if document is None or document["origin"] != origin:
            return None
        parts = [PartInUse(self.parts / name, Place(*place), *rest) for name, place, *rest in document["parts"]]
        try:
            for part in parts:
                if part.path.parent != self.parts or not is_whole(part.path, digest):
                    raise _OtherBytesError(part.path)
            content = {name: self._read(name, digest) for name, digest in document["files"].items()}
        except _OtherBytesError as error:
            logger.warning("%s is not as it was written; the pairs are made again", error)
            return None
        rejections = [Rejection(**row) for row in pq.read_table(BytesIO(content["rejects.parquet"])).to_pylist()]
        opened = [PairPart(part.path, part.place, part.n_pairs) for part in parts]
        cut = cut_splits(config, opened, [part.source for part in parts])
        coverage = Coverage(**document["coverage"])
        return PreparedPairs(cut.visited, cut.every, rejections, coverage, parts, document.get("example"))

    def _document(self) -> dict[str, Any] | None:
        try:
            document = dict(json.loads((self.path / "pairs.json").read_bytes()))
        except (FileNotFoundError, ValueError, TypeError):
            return None
        return document if {"origin", "coverage", "parts", "files"} <= document.keys() else None

    def _read(self, name: str, digest: str) -> bytes:
        """The bytes of a file, compared with its digest; what is parsed is these, not the file read again."""
        path = self.path / name
        inside = path.resolve().is_relative_to(self.path.resolve())
        content = path.read_bytes() if inside and path.is_file() else b""
        if hashlib.sha256(content).hexdigest() != digest:
            raise _OtherBytesError(path)
        return content

    def write(self, prepared: PreparedPairs, origin: dict[str, Any], tokenizer: Any) -> None:
        """Write what goes with the parts; `pairs.json` comes last and vouches for all. Parts not in use are removed."""
        rejects = pa.Table.from_pylist([vars(rejection) for rejection in prepared.rejections], schema=REJECT_SCHEMA)
        write_bytes(self.rejects, parquet_bytes(rejects))
        write_folder(self.tokenizer, lambda folder: tokenizer.save_pretrained(folder))
        saved = sorted(path for path in self.tokenizer.rglob("*") if path.is_file())
        files = [self.rejects.name, *(str(path.relative_to(self.path)) for path in saved)]
        write_json(
            self.path / "pairs.json",
            {
                "origin": origin,
                "coverage": prepared.coverage.document(),
                "example": prepared.example,
                "parts": [[part.path.name, list(astuple(part.place)), *part[2:]] for part in prepared.parts],
                "files": {name: file_digest(self.path / name) for name in files},
            },
        )
        in_use = {part.path.name for part in prepared.parts}
        for path in self.parts.glob("*.arrow"):
            if path.name not in in_use:
                path.unlink(missing_ok=True)
        sweep_temporaries(self.parts)

    def only_writer(self) -> AbstractContextManager[None]:
        """Hold the folder while making pairs, once another process has made its own."""
        return only_process(
            self.path / "lock", busy=lambda: logger.info("another process is preparing the pairs; waiting for it")
        )

    def copy_tokenizer(self, folder: Path) -> None:
        """Put the tokenizer's files into a model folder."""
        shutil.copytree(self.tokenizer, folder, dirs_exist_ok=True)
