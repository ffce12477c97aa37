"""Reads files of every kind as lines of JSON, told by their endings, a part at a time.

No reader coerces a column's types behind the user's back: only what JSON has no way to write becomes text.
"""

import gzip
import io
import json
import zlib
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from data.errors import DataError
from data.sources.cells import read_cells
from data.sources.lines import Line, line_of

_PACKED = ("", ".gz", ".zst")
_BUFFER = 1 << 20  # bytes of a column read at a time, rather than all of a row group
_BATCH = 256  # rows held as Python objects at a time
_SPACE = (" ", "\t", "\n", "\r")  # JSON's
_BOM = b"\xef\xbb\xbf"
_ARROW_FILE = b"ARROW1"  # what Arrow's file format opens with; its stream format has no such mark


def reads(name: str) -> bool:
    """Whether the name has an ending that is known."""
    return name.lower().endswith(_FILES)


def read_file(name: str, path: Path) -> Iterator[Line]:
    """The rows of a file in order; `name` is what it is called in locations and messages.

    Raises:
        DataError: the file is of an unknown kind, or damaged as a whole.
    """
    if not reads(path.name):
        raise DataError(
            f"Cannot tell the format of {name} by its name. Known endings: {ENDINGS}. Rename or convert the file."
        )
    kind = path.name.lower().removesuffix(".gz").removesuffix(".zst").rpartition(".")[2]
    try:
        yield from _READERS[f".{kind}"](name, path)
    except (OSError, EOFError, ValueError, zlib.error, RecursionError, pa.ArrowNotImplementedError) as error:
        raise DataError(
            f"The preference data {name} cannot be read: {error}. The file is damaged or not of the kind that its "
            "ending says; write it again."
        ) from error


def _open(path: Path) -> io.BufferedReader | gzip.GzipFile:
    if path.name.lower().endswith(".gz"):
        return gzip.open(path, "rb")
    if path.name.lower().endswith(".zst"):
        return io.BufferedReader(pa.input_stream(path, compression="zstd"))
    return path.open("rb")


def _json_lines(name: str, path: Path) -> Iterator[Line]:
    with _open(path) as file:
        for number, raw in enumerate(file, start=1):
            yield Line(name, number, raw.strip().removeprefix(_BOM))


def _json_list(name: str, path: Path) -> Iterator[Line]:
    with _open(path) as file:
        raw = file.read()
    text = raw.decode(json.detect_encoding(raw))
    del raw
    at = _behind_space(text, 0)
    if text[at : at + 1] != "[":
        kind = type(json.loads(text)).__name__
        raise DataError(
            f"{name} holds one JSON {kind}, not a list of rows. Write a list of objects, or one "
            "object a line under the ending .jsonl."
        )
    for number, item in enumerate(_items(text, _behind_space(text, at + 1)), start=1):
        yield Line(name, number, item.replace("\n", " ").encode())


def _items(text: str, at: int) -> Iterator[str]:
    """The text of each item of a list whose first stands at `at`: what is in it is judged where it is parsed."""
    decode = json.JSONDecoder().raw_decode
    more = text[at : at + 1] != "]"
    while more:
        _, end = decode(text, at)
        yield text[at:end]
        at = _behind_space(text, end)
        more = text[at : at + 1] == ","
        at = _behind_space(text, at + 1) if more else at
    if text[at : at + 1] != "]":
        raise json.JSONDecodeError("Expecting ',' delimiter", text, at)
    if _behind_space(text, at + 1) < len(text):
        raise json.JSONDecodeError("Extra data", text, at + 1)


def _behind_space(text: str, at: int) -> int:
    while text[at : at + 1] in _SPACE:
        at += 1
    return at


def _cells(delimiter: str, name: str, path: Path) -> Iterator[Line]:
    with _open(path) as file:
        yield from read_cells(name, file, delimiter)


def _parquet(name: str, path: Path) -> Iterator[Line]:
    with pq.ParquetFile(path, buffer_size=_BUFFER, pre_buffer=False) as file:
        yield from _batches(name, file.iter_batches(batch_size=_BATCH))


def _arrow(name: str, path: Path) -> Iterator[Line]:
    with pa.memory_map(str(path)) as file:
        if file.read(len(_ARROW_FILE)) == _ARROW_FILE:
            reader = pa.ipc.open_file(file)
            yield from _batches(name, map(reader.get_batch, range(reader.num_record_batches)))
        else:
            file.seek(0)
            yield from _batches(name, pa.ipc.open_stream(file))


def _batches(name: str, batches: Iterable[pa.RecordBatch]) -> Iterator[Line]:
    number = 0
    for batch in batches:
        for start in range(0, len(batch), _BATCH):
            for content in batch.slice(start, _BATCH).to_pylist():
                number += 1
                yield line_of(name, number, content)


_READERS: dict[str, Callable[[str, Path], Iterator[Line]]] = {
    ".jsonl": _json_lines,
    ".json": _json_list,
    ".csv": partial(_cells, ","),
    ".tsv": partial(_cells, "\t"),
    ".parquet": _parquet,
    ".arrow": _arrow,
}
_FILES = (*(kind + pack for kind in (".jsonl", ".json", ".csv", ".tsv") for pack in _PACKED), ".parquet", ".arrow")
ENDINGS = ".jsonl, .json, .csv and .tsv (also with .gz or .zst), .parquet, .arrow"
"""What `reads` knows, for people."""
