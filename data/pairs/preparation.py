"""Source rows to token pairs: read, judge, tokenise, split, and account for every row."""

import logging
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass
from itertools import chain, islice
from pathlib import Path
from typing import Any, NamedTuple

from data.config import DataConfig
from data.pairs.coverage import Coverage, account
from data.pairs.cut import cut_splits
from data.pairs.pair_parts import OpenPart, cut_parts, open_part
from data.pairs.part_maker import PartMaker, WantedPart, wanted_parts
from data.pairs.reading import reading_of
from data.pairs.splits import Split
from data.rows.forms import SAMPLE
from data.schema import Rejection
from data.sources.source import parse_line, read_lines
from data.tokens.token_pairs import PairPart, Place, TokenPairs

logger = logging.getLogger(__name__)

PREPARATION_VERSION = 7  # raised by hand when the same sources would give other pairs


class PartInUse(NamedTuple):
    """A file of pairs, where its rows stand, and which source (by its place in the configuration) they are of."""

    path: Path
    place: Place
    source: int
    n_pairs: int


@dataclass
class PreparedPairs:
    """The pairs of each split, the rows that were refused, and the account of all rows."""

    splits: dict[Split, TokenPairs]
    """What an epoch visits: a training pair of a source with a weight stands here as often."""
    all: TokenPairs
    """Every pair, once for each row it was read from."""
    rejections: list[Rejection]
    coverage: Coverage
    parts: list[PartInUse]
    example: dict[str, str] | None = None
    """A pair as the model reads it, for people."""


def prepare(
    config: DataConfig, maker: PartMaker, made_by: Mapping[str, Any], advance: Callable[[int], None]
) -> PreparedPairs:
    """Read, judge, tokenise and split all rows; `advance(n)` is told of every n rows read.

    `made_by` is what besides the sources and their settings makes tokens of text.

    Raises:
        DataError: a source cannot be read, or a chat template does not come to an end.
    """
    coverage = Coverage()
    sources: list[int] = []
    rejections: list[Rejection] = []
    parts: list[PartInUse] = []
    opened: list[PairPart] = []
    with closing(maker.made(_wanted(config, made_by, coverage, sources))) as made:  # other processes end with it
        for wanted, path in made:
            first = wanted.raw.lines[0]
            place = Place(first.file, first.number, coverage.read)
            part = open_part(path, place)
            advance(part.rows)
            _count(coverage, part)
            rejections += part.rejections
            parts.append(PartInUse(path, place, sources[len(parts)], len(part.pairs)))
            opened.append(part.pairs)
    cut = cut_splits(config, opened, [part.source for part in parts])
    coverage.visits = cut.visits
    account(coverage, cut, rejections)
    return PreparedPairs(cut.visited, cut.every, rejections, coverage, parts)


def _wanted(
    config: DataConfig, made_by: Mapping[str, Any], coverage: Coverage, sources: list[int]
) -> Iterator[WantedPart]:
    """The parts of all sources; `sources` is told which source each is of."""
    for number, (source, _) in enumerate(config.sources):
        lines = read_lines(source)
        first = list(islice(lines, SAMPLE))
        rows = [parse_line(line) for line in first if line.text or line.problem]
        reading = reading_of(source, rows, config.group_by)
        logger.info("%s is read as: %s (%s)", source.name, reading.form.name, reading.form.columns)
        coverage.forms[source.name] = reading.form.name
        for wanted in wanted_parts(cut_parts(chain(first, lines)), reading, made_by):
            sources.append(number)
            yield wanted


def _count(coverage: Coverage, part: OpenPart) -> None:
    coverage.rows += part.rows
    coverage.read += part.read
    coverage.multi_turn += part.multi_turn
    coverage.seams_split += part.seams_split
