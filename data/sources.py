"""Reads preference rows from files and from the Hub, each with the place it stands in.

Lines of JSON are parsed one by one: a torn or mistyped line is one bad row with its line number, and no reader
coerces a column's types behind the user's back.
"""

import gzip
import hashlib
import json
import re
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Literal

import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import Field, model_validator

from data.errors import DataError, one_line
from data.identity import file_digest
from data.rankings import Rule
from data.schema import SourceRow
from data.settings import Settings

JSON_LINES = (".jsonl", ".jsonl.gz")
JSON = (".json", ".json.gz")
PARQUET = (".parquet",)
ARROW = (".arrow",)  # the cache of the library `datasets`
FILES = JSON_LINES + JSON + PARQUET + ARROW
Column = Literal["prompt", "chosen", "rejected", "answers", "system"]
_HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")


class Source(Settings):
    """Where preference rows come from. A bare string stands for `{path: ...}`."""

    path: str
    """A file (.jsonl, .json, either with .gz, .parquet or .arrow) or the id of a data set on the Hub."""
    split: str | None = None
    """Split of a Hub data set; none: `train`. Files have no splits."""
    columns: dict[Column, str] = Field(default_factory=dict)
    """Which column is the prompt, which is chosen: `{prompt: query, chosen: better}`; the others keep their names."""
    pairs: Rule | None = None
    """Which pairs to make of rated answers: `best-worst` (the default), `adjacent` or `all`."""

    @model_validator(mode="before")
    @classmethod
    def _from_string(cls, value: Any) -> Any:
        return {"path": value} if isinstance(value, str) else value

    @model_validator(mode="after")
    def _split_only_on_hub(self) -> "Source":
        if self.split is not None and self.is_file:
            raise ValueError(f"split: {self.split} has no effect on the file {self.path}; remove it")
        return self

    @property
    def is_file(self) -> bool:
        """Whether the path is a file's (by its ending, or because it exists) rather than a Hub id."""
        return self.path.endswith(FILES) or Path(self.path).exists()

    @property
    def name(self) -> str:
        """How the source is called in messages."""
        return self.path if self.split is None else f"{self.path}[{self.split}]"


def read_rows(source: Source) -> Iterator[SourceRow]:
    """Rows of one source in order; a line that cannot be read is a row with a `problem`.

    Raises:
        DataError: the source is absent, of an unknown kind, or damaged as a whole.
    """
    if not source.is_file:
        yield from _read_hub(source)
        return
    path = _existing_file(source)
    try:
        if source.path.endswith(JSON_LINES):
            yield from _read_json_lines(path)
        elif source.path.endswith(JSON):
            yield from _read_json(path)
        elif source.path.endswith(PARQUET):
            yield from _read_batches(path, pq.ParquetFile(path).iter_batches())
        elif source.path.endswith(ARROW):
            with pa.ipc.open_stream(path) as batches:
                yield from _read_batches(path, batches)
        else:
            raise DataError(
                f"Cannot tell the format of {path} by its name. Known endings: "
                f"{', '.join(FILES)}. Rename or convert the file."
            )
    except (OSError, EOFError, ValueError, zlib.error, RecursionError) as error:
        raise DataError(
            f"The preference data {path} cannot be read: {error}. The file is damaged or not of the kind that its "
            "ending says; write it again."
        ) from error


def source_digest(source: Source) -> str:
    """Identity of a source's content: of the file's bytes, or of the Hub data set's fingerprint."""
    if source.is_file:
        return file_digest(_existing_file(source))
    fingerprint = _load_hub(source)._fingerprint
    return hashlib.sha256(str(fingerprint).encode()).hexdigest()


def _existing_file(source: Source) -> Path:
    path = Path(source.path)
    if path.is_dir():
        raise DataError(f"The preference data {path} are a folder. Name the files in it under `data.train`, as a list.")
    if not path.is_file():
        raise DataError(f"The preference data {path} do not exist. Correct `data.train` or `data.eval`, or create it.")
    return path


def _read_json_lines(path: Path) -> Iterator[SourceRow]:
    opener = gzip.open if path.suffix == ".gz" else open
    with opener(path, "rb") as file:
        for number, raw in enumerate(file, start=1):
            location = f"{path}:{number}"
            line = raw.strip().removeprefix(b"\xef\xbb\xbf")
            if not line:
                continue
            try:
                yield SourceRow(number, location, json.loads(line))
            except (ValueError, RecursionError) as error:
                yield SourceRow(number, location, None, problem=f"not a line of JSON ({error})")


def _read_json(path: Path) -> Iterator[SourceRow]:
    opener = gzip.open if path.suffix == ".gz" else open
    with opener(path, "rb") as file:
        document = json.loads(file.read())
    if not isinstance(document, list):
        raise DataError(
            f"{path} holds one JSON {type(document).__name__}, not a list of rows. Write a list of objects, or one "
            "object a line under the ending .jsonl."
        )
    for number, content in enumerate(document, start=1):
        yield SourceRow(number, f"{path}:{number}", content)


def _read_batches(path: Path, batches: Iterable[pa.RecordBatch]) -> Iterator[SourceRow]:
    number = 0
    for batch in batches:
        for content in batch.to_pylist():
            number += 1
            yield SourceRow(number, f"{path}:{number}", content)


def _read_hub(source: Source) -> Iterator[SourceRow]:
    for number, content in enumerate(_load_hub(source), start=1):
        yield SourceRow(number, f"{source.name}:{number}", content)


def _load_hub(source: Source) -> Any:
    if not _HUB_ID.fullmatch(source.path):
        raise DataError(
            f"{source.path} is neither a file with a known ending ({', '.join(FILES)}) nor a "
            "Hub id such as owner/name. Correct `data.train` or `data.eval`."
        )
    import datasets  # a second of import, for Hub ids only

    try:
        return datasets.load_dataset(source.path, split=source.split or "train")
    except Exception as error:
        raise DataError(
            f"The data set {source.name} cannot be loaded from the Hub: {one_line(error)} Check the id, "
            "the split and the network, or name a local file."
        ) from error
