"""Reads CSV and TSV as lines of JSON: no row of other cells than the header names goes by in silence."""

import csv
from collections.abc import Iterator
from gzip import GzipFile
from io import BufferedReader, TextIOWrapper

from data.errors import DataError
from data.sources.lines import Line, line_of

_LONGEST_CELL = 1 << 26  # characters; behind a quote that is never closed the rest of the file is one cell


def read_cells(name: str, file: BufferedReader | GzipFile, delimiter: str) -> Iterator[Line]:
    """Rows under a header, every cell a text; `name` is what the file is called in locations and messages.

    The number of a row is that of its first line: a cell may hold several, so numbers need not be consecutive.

    Raises:
        DataError: the first line does not name the columns.
    """
    csv.field_size_limit(_LONGEST_CELL)
    with TextIOWrapper(file, "utf-8-sig", "surrogateescape", newline="") as text:
        records = csv.reader(text, delimiter=delimiter, strict=True)
        header = _header(name, records)
        while True:
            number = records.line_num + 1
            try:
                yield _row(name, number, header, next(records))
            except StopIteration:
                return
            except csv.Error as error:
                yield Line(name, number, b"", f"lines {number} to {records.line_num} are no row of cells ({error})")


def _header(name: str, records: Iterator[list[str]]) -> list[str]:
    try:
        header = next((cells for cells in records if cells), [])
    except csv.Error as error:
        raise DataError(f"The header of {name} cannot be read: {error}. Write the file again.") from error
    if not _is_utf8(header) or any("\0" in column for column in header):
        raise DataError(f"The header of {name} is not UTF-8. Write the file again in that encoding.")
    twice = sorted({column for column in header if column and header.count(column) > 1})
    if twice:
        raise DataError(f"The header of {name} names a column twice: {', '.join(twice)}. Rename or remove one of them.")
    if len(header) == 1:
        raise DataError(
            f"The header of {name} is one column, {header[0][:80]!r}. Cells stand apart by commas in a .csv and by "
            "tabs in a .tsv; write the file again so, with its columns named in the first line."
        )
    return header


def _row(name: str, number: int, header: list[str], cells: list[str]) -> Line:
    if not any(cell.strip() for cell in cells) and len(cells) < 2:
        return Line(name, number, b"")
    if len(cells) != len(header):
        return Line(name, number, b"", f"{len(cells)} cells where the header has {len(header)}")
    if not _is_utf8(cells):
        return Line(name, number, b"", "not UTF-8, in which the file has to be written")
    return line_of(name, number, dict(zip(header, cells, strict=True)))


def _is_utf8(cells: list[str]) -> bool:
    """Whether no byte of them had to be smuggled past the decoder."""
    try:
        "".join(cells).encode()
    except UnicodeEncodeError:
        return False
    return True
