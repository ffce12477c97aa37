"""Where preference rows come from: files, folders and the Hub, each a stream of lines of JSON with their places."""

import hashlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Literal

from pydantic import ConfigDict, Field, model_validator

from data.errors import DataError
from data.identity import file_digest
from data.rows.rankings import Rule
from data.schema import SourceRow
from data.settings import Settings, or_text
from data.sources.files import ENDINGS, read_file, reads
from data.sources.folders import files_of
from data.sources.hub import hub_digest, is_hub_id, read_hub
from data.sources.lines import Line, parse_line

__all__ = ["Column", "Line", "Source", "parse_line", "read_lines", "read_rows", "source_digest"]

Column = Literal["prompt", "chosen", "rejected", "answers", "system", "margin", "pair_weight"]


class Source(Settings):
    """Where preference rows come from. A bare string stands for `{path: ...}`."""

    model_config = ConfigDict(json_schema_extra=or_text)

    path: str
    """A file (.jsonl, .json, .csv or .tsv, each also with .gz or .zst; .parquet or .arrow), a folder of such files, or
    the id of a data set on the Hub: `owner/name`, or `owner/name@revision`."""
    split: str | None = None
    """Split of a Hub data set (none: `train`), or the files of a folder whose path has this word. A file has none."""
    columns: dict[Column, str] = Field(default_factory=dict)
    """Which column is the prompt, which is chosen: `{prompt: query, chosen: better}`; the others keep their names. Of
    the numbers of a pair, `margin` and `pair_weight`, only those that are named here are read."""
    pairs: Rule | None = None
    """Which pairs to make of rated answers: `best-worst` (the default), `adjacent` or `all`."""
    weight: float = Field(default=1.0, gt=0)
    """Visits an epoch of each training pair of this source; 0.5: every other pair, chosen by its key."""

    @model_validator(mode="before")
    @classmethod
    def _from_string(cls, value: Any) -> Any:
        return {"path": value} if isinstance(value, str) else value

    @model_validator(mode="after")
    def _no_split_of_a_file(self) -> "Source":
        if self.split is not None and self.is_local and not Path(self.path).is_dir():
            raise ValueError(f"split: {self.split} has no effect on the file {self.path}; remove it")
        return self

    @property
    def is_local(self) -> bool:
        """Whether the path is a file's or folder's (by its ending, or because it exists) rather than a Hub id."""
        return reads(self.path) or Path(self.path).exists()

    @property
    def name(self) -> str:
        """How the source is called in messages."""
        return self.path if self.split is None else f"{self.path}[{self.split}]"


def read_lines(source: Source) -> Iterator[Line]:
    """Rows of one source in order, not parsed; a blank line is a line too, with the text b"".

    Raises:
        DataError: the source is absent, of an unknown kind, or damaged as a whole.
    """
    if _is_on_hub(source):
        yield from read_hub(source.name, source.path, source.split or "train")
        return
    for name, path in _files(source):
        yield from read_file(name, path)


def read_rows(source: Source) -> Iterator[SourceRow]:
    """Rows of one source in order, without blank lines; one that cannot be read has a `problem`.

    Raises:
        DataError: the source is absent, of an unknown kind, or damaged as a whole.
    """
    return (parse_line(line) for line in read_lines(source) if line.text or line.problem)


def source_digest(source: Source, digest: Callable[[Path], str] = file_digest) -> str:
    """Identity of a source's content: of a file's bytes, a folder's files, or a Hub data set's fingerprint.

    Raises:
        DataError: the source is absent.
    """
    if _is_on_hub(source):
        return hub_digest(source.name, source.path, source.split or "train")
    if not Path(source.path).is_dir():
        return digest(next(path for _, path in _files(source)))
    files = "".join(
        f"{file.as_posix()}\0{digest(Path(source.path) / file)}\n" for file in files_of(source.path, source.split)
    )
    return hashlib.sha256(files.encode(errors="surrogateescape")).hexdigest()


def _is_on_hub(source: Source) -> bool:
    if source.is_local:
        return False
    if not is_hub_id(source.path):
        raise DataError(
            f"{source.path} is neither a folder nor a file with a known ending ({ENDINGS}) nor a Hub id such as "
            "owner/name. Correct `data.train` or `data.eval`."
        )
    return True


def _files(source: Source) -> list[tuple[str, Path]]:
    """The files of a source, each with what a location begins with."""
    path = Path(source.path)
    if path.is_dir():
        folder = source.path.rstrip("/")
        return [(f"{folder}/{file.as_posix()}", path / file) for file in files_of(source.path, source.split)]
    if not path.is_file():
        raise DataError(f"The preference data {path} do not exist. Correct `data.train` or `data.eval`, or create it.")
    return [(source.path, path)]
