"""Log-probs that another program has made, as rows of a reference of their own.

A row of the file is text or messages as everywhere, or token ids (`prompt_ids`, `chosen_ids`, `rejected_ids`: what TRL
keeps), with `ref_chosen_logps` and `ref_rejected_logps`: sums over the response's tokens, in nats.
"""

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa

from data.errors import DataError
from data.pairs.reading import reading_of
from data.rows.bad_rows import BadRow
from data.rows.forms import SAMPLE
from data.schema import PreferencePair, Rejection, Response, SourceRow, TokenPair
from data.sources.source import Source
from data.store.parts import PAIR_SCHEMA
from data.tokens.tokenization import PairTokenizer

SUMS = ("ref_chosen_logps", "ref_rejected_logps")
_IDS = ("prompt_ids", "chosen_ids", "rejected_ids")


class ImportedPair(NamedTuple):
    """A pair and what is claimed of it."""

    pair: TokenPair
    chosen: float
    rejected: float


def read_imported(
    source: Source, rows: Iterable[SourceRow], tokenizer: PairTokenizer, max_length: int
) -> Iterator[ImportedPair | Rejection]:
    """The rows in tokens; of those given as ids, no more than `max_length` are taken, as TRL does.

    Raises:
        DataError: the texts are of no known form, or of one whose rows are not pairs.
    """
    sums: dict[str, tuple[float, float]] = {}
    texts: list[SourceRow] = []
    for row in rows:
        try:
            sums[row.location] = _sums(row)
            if isinstance(row.content, dict) and all(name in row.content for name in _IDS):
                yield ImportedPair(_from_ids(row, row.content, max_length), *sums[row.location])
            else:
                texts.append(row)
        except BadRow as bad:
            yield bad.rejection(row.number, row.location)
    pairs: list[PreferencePair] = []
    for read in _canonical(source, texts):
        if isinstance(read, Rejection):
            yield read
        else:
            pairs.append(read)
    for pair, outcome in tokenizer.tokenize(pairs):
        yield outcome if isinstance(outcome, Rejection) else ImportedPair(outcome, *sums[pair.location])


def _canonical(source: Source, rows: Sequence[SourceRow]) -> Iterator[PreferencePair | Rejection]:
    """The texts, read in the form that they have."""
    reading = reading_of(source, rows[:SAMPLE], None)
    if reading.form.rated:
        raise DataError(
            f"The rows of {source.name} are of the form `{reading.form.name}`: a row gives several pairs, and sums of "
            "two responses belong to one. Write a row for each pair, with prompt, chosen and rejected."
        )
    return (outcome for row in rows for _, outcome in reading.pairs(row))


def imported_table(imported: Sequence[ImportedPair]) -> pa.Table:
    """Rows of the store; of the longer side the sum over the shared length is not known."""
    columns: dict[str, list[Any]] = {name: [] for name in PAIR_SCHEMA.names}
    for pair, chosen, rejected in imported:
        lengths = pair.chosen.n_scored, pair.rejected.n_scored
        known = [value if n == min(lengths) else None for value, n in zip((chosen, rejected), lengths, strict=True)]
        keys = pair.key, pair.prompt_key, pair.chosen.key, pair.rejected.key
        row = (*keys, len(pair.chosen.prompt_ids), *lengths, chosen, rejected, *known)
        for name, value in zip(PAIR_SCHEMA.names, row, strict=True):
            columns[name].append(value)
    return pa.table(columns, schema=PAIR_SCHEMA)


def _sums(row: SourceRow) -> tuple[float, float]:
    content: Mapping[str, Any] = row.content if isinstance(row.content, dict) else {}
    values = [content.get(name) for name in SUMS]
    if missing := [name for name, value in zip(SUMS, values, strict=True) if value is None]:
        raise BadRow("missing_field", f"no {' and no '.join(missing)}")
    if not all(isinstance(value, int | float) and math.isfinite(value) and value <= 0 for value in values):
        raise BadRow("wrong_type", f"{values} are no sums of log-probs: finite, not above 0")
    return float(values[0]), float(values[1])  # type: ignore[arg-type]


def _from_ids(row: SourceRow, content: Mapping[str, Any], max_length: int) -> TokenPair:
    try:
        prompt, chosen, rejected = (np.array(content[name], np.int32) for name in _IDS)
    except (TypeError, ValueError, OverflowError) as error:
        raise BadRow("wrong_type", f"token ids that are none ({error})") from error
    room = max_length - len(prompt)
    if room <= 0:
        raise BadRow("prompt_too_long", f"the prompt alone has {len(prompt)} tokens; max_length is {max_length}")
    if not len(prompt) or not len(chosen) or not len(rejected):
        raise BadRow("empty_completion", "a prompt or response without a token")
    sides = [Response(prompt, ids[:room], np.ones(len(ids[:room]), np.bool_)) for ids in (chosen, rejected)]
    return TokenPair(row.number, row.location, sides[0], sides[1])
