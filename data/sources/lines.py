"""A row of a source as a line of JSON, and what it says: rows travel as lines and are parsed where they are used."""

import json
from typing import Any, NamedTuple

from data.schema import SourceRow

_SHOWN = 40  # characters of a key in a message


class Line(NamedTuple):
    """A row as JSON, as it stands in its file or as written from another format; b"" is an empty line."""

    file: str
    """What a location begins with: the path as the user gave it (folder/file for folders), or the Hub source's name."""
    number: int
    """Place in the file, from 1: the line of a text file (the first one of a row in several), the row of any other."""
    text: bytes
    problem: str = ""
    """Why there is no text: the row could not be written as JSON."""


def line_of(name: str, number: int, content: Any) -> Line:
    """A row that was read from another format, as a line of JSON."""
    return Line(name, number, _ENCODER.encode(content).encode())


def parse_line(line: Line) -> SourceRow:
    """The row of a line; one that cannot be read has a `problem`."""
    location = f"{line.file}:{line.number}"
    if line.problem:
        return SourceRow(line.number, location, None, problem=line.problem)
    try:
        return SourceRow(line.number, location, _DECODER.decode(line.text.decode()))
    except _KeyTwice as twice:
        return SourceRow(line.number, location, None, problem=str(twice))
    except (ValueError, RecursionError) as error:
        foreign = isinstance(error, UnicodeDecodeError) or b"\0" in line.text  # ASCII in UTF-16 is UTF-8 with NUL
        why = f"not UTF-8, in which the file has to be written: {error}" if foreign else str(error)
        return SourceRow(line.number, location, None, problem=f"not a line of JSON ({why})")


def _as_json(value: object) -> object:
    """What JSON cannot hold: dates and decimals as text; bytes too if they are text, else how many there are."""
    if not isinstance(value, bytes):
        return str(value)
    try:
        return value.decode()  # Hive and Impala write text without saying that it is
    except UnicodeDecodeError:
        return {"bytes": len(value)}


class _KeyTwice(Exception):
    """An object that names a key twice, of which Python would take the last without a word."""


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        keys = [key for key, _ in pairs]
        twice = next(key for key in keys if keys.count(key) > 1)
        raise _KeyTwice(f"the key {twice[:_SHOWN]!r} stands twice")
    return found


_ENCODER = json.JSONEncoder(default=_as_json)  # one each for all rows: making them costs as much as a row
_DECODER = json.JSONDecoder(object_pairs_hook=_object)
