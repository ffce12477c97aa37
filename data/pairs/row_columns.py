"""Columns of the rows that pairs were made of, read again from their sources: no part of a pair keeps them."""

import difflib
import json
import math
from collections import defaultdict
from collections.abc import Iterator, Sequence
from typing import Any

import polars as pl

from data.errors import ConfigError, DataError
from data.pairs.preparation import PreparedPairs
from data.sources.source import Source, parse_line, read_lines
from data.tokens.token_pairs import TokenPairs

_SHOWN = 40  # columns that a message names, and characters of each
_LARGEST = 2**63

_Lines = dict[tuple[str, int], list[int]]  # the places of the pairs of a line, by its file and number


def row_columns(
    pairs: TokenPairs, prepared: PreparedPairs, sources: Sequence[Source], columns: Sequence[str]
) -> list[pl.Series]:
    """These columns with a value for each pair, null where its row has none; `sources` are those of the configuration.

    A column of numbers is one of numbers (what is not a number is null); any other is one of texts, which JSON is, too.

    Raises:
        ConfigError: no row has such a column.
        DataError: a source cannot be read, or is not as it was.
    """
    if not columns:
        return []
    found: list[dict[str, Any]] = [{} for _ in range(len(pairs))]
    seen: set[str] = set()
    for source, lines in _lines_of(pairs, prepared):
        for content, places in _contents(sources[source], lines):
            seen |= content.keys()
            own = {name: content[name] for name in columns if name in content}
            for place in places:
                found[place] = own
    if absent := [name for name in columns if name not in seen]:
        raise ConfigError(_no_such_column(absent[0], seen))
    return [_series(name, [row.get(name) for row in found]) for name in dict.fromkeys(columns)]


def _lines_of(pairs: TokenPairs, prepared: PreparedPairs) -> Iterator[tuple[int, _Lines]]:
    """The lines that have to be read, by the place of their source in the configuration."""
    lines: defaultdict[int, _Lines] = defaultdict(lambda: defaultdict(list))
    for place, (part, number) in enumerate(pairs.places().select("part", "number").iter_rows()):
        in_use = prepared.parts[part]
        lines[in_use.source][in_use.place.file, number].append(place)
    yield from sorted(lines.items())


def _contents(source: Source, lines: _Lines) -> Iterator[tuple[dict[str, Any], list[int]]]:
    """What stands in these lines of the source, each with the places of its pairs."""
    missing = dict(lines)
    for line in read_lines(source):
        places = missing.pop((line.file, line.number), None)
        if places is not None:
            content = parse_line(line).content
            yield content if isinstance(content, dict) else {}, places
        if not missing:
            return
    file, number = next(iter(missing))
    raise DataError(
        f"{file}:{number} is not there any more: {source.name} has changed since its pairs were prepared. Run the same "
        "command again."
    )


def _series(name: str, values: Sequence[Any]) -> pl.Series:
    values = [None if isinstance(value, float) and math.isnan(value) else value for value in values]
    kinds = {type(value) for value in values if value is not None}
    fits = all(abs(value) < _LARGEST for value in values if type(value) is int)
    if kinds and kinds <= {int, float} and fits:
        return pl.Series(name, values, pl.Float64 if float in kinds else pl.Int64, strict=False)
    return pl.Series(name, [None if value is None else _text(value) for value in values], pl.String)


def _text(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value, sort_keys=True, ensure_ascii=False)
    return text.encode(errors="replace").decode()  # it may hold half a character


def _no_such_column(name: str, seen: set[str]) -> str:
    columns = sorted(_text(column)[:_SHOWN] for column in seen)
    close = difflib.get_close_matches(name, columns, n=1)
    hint = f"; did you mean {close[0]}?" if close else "."
    more = f" and {len(columns) - _SHOWN} more" if len(columns) > _SHOWN else ""
    return (
        f"eval.slices names the column {_text(name)}, and no row of the held-out pairs has it{hint} Their columns are: "
        f"{', '.join(columns[:_SHOWN])}{more}. Correct the name, or take it out."
    )
