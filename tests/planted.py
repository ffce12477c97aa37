"""Snapshots with planted edits of every kind, and what must be counted: a seed and the numbers say it all.

The words of a text are drawn as often as words are (the r-th most frequent one with probability 1/r), and are its
tokens; "another tokenizer" gives them other ids. Rows share their prompt with two others.
"""

import hashlib
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np
import polars as pl
import pyarrow as pa

from data.identity import TokenIds, pair_key, response_key
from data.pairs.changes import SNAPSHOT_SCHEMA
from data.parquet import as_frame
from data.tokens.sketches import sketch

VOCABULARY = 50_000
END = 2
ROWS_OF_A_PROMPT = 3
CHUNK = 10_000


class Row(NamedTuple):
    """A pair: the words of its texts, and whether another tokenizer made its tokens of them."""

    prompt: TokenIds
    chosen: TokenIds
    rejected: TokenIds
    other_tokens: bool = False

    def flipped(self) -> "Row":
        return self._replace(chosen=self.rejected, rejected=self.chosen)

    def retokenised(self) -> "Row":
        return self._replace(other_tokens=True)

    def cells(self) -> list[Any]:
        """What a snapshot holds of it, in the order of its columns."""
        prompt, *sides = (VOCABULARY + 2 - ids if self.other_tokens else ids for ids in self[:3])
        keys = [response_key(prompt, ids, np.ones(len(ids), np.bool_)) for ids in sides]
        texts = [hashlib.blake2b(ids.tobytes(), digest_size=16).digest() for ids in self[:3]]
        return [pair_key(*keys), *keys, *texts, *map(sketch, sides), *(len(prompt) + len(ids) for ids in sides)]


# What stands before and after, as edits of a row, and what is counted.
KINDS: dict[str, tuple[list[str], list[str], dict[str, int]]] = {
    "unchanged": (["same"], ["same"], {"unchanged": 1}),
    "removed": (["same"], [], {"removed": 1}),
    "added": ([], ["same"], {"added": 1}),
    "one side replaced": (["same"], ["replaced"], {"removed": 1, "added": 1}),
    "flipped": (["same"], ["flipped"], {"flipped": 1}),
    "flipped and re-tokenised": (["same"], ["flipped retokenised"], {"flipped": 1}),
    "re-tokenised": (["same"], ["retokenised"], {"retokenised": 1}),
    "reworded": (["same"], ["reworded"], {"reworded": 1}),
    "reworded on both sides": (["same"], ["reworded twice"], {"reworded": 1}),
    "twice": (["same"] * 2, ["same"] * 2, {"unchanged": 2}),
    "one of two removed": (["same"] * 2, ["same"], {"unchanged": 1, "removed": 1}),
    "another added": (["same"], ["same"] * 2, {"unchanged": 1, "added": 1}),
}
COUNTED = ("unchanged", "added", "removed", "flipped", "reworded", "retokenised")


def planted(rows: int, edits: Mapping[str, int], seed: int = 0) -> tuple[pl.DataFrame, pl.DataFrame, dict[str, int]]:
    """Snapshots of about `rows` rows, in any order, with so many edits of each of KINDS, and what they must give."""
    rng = np.random.default_rng(seed)
    kinds = ["unchanged"] * rows
    for place, kind in zip(rng.permutation(rows), (k for k, n in edits.items() for _ in range(n)), strict=False):
        kinds[place] = kind
    expected = Counter(dict.fromkeys((*COUNTED, "before", "after", "not_compared", "to_score", "tokens_to_score"), 0))
    tables: tuple[list[pa.Table], list[pa.Table]] = ([], [])
    source = _rows(rng, rows)
    for start in range(0, rows, CHUNK):
        cells: tuple[list[Any], list[Any]] = ([], [])
        for kind in kinds[start : start + CHUNK]:
            row, (before, after, counted) = next(source), KINDS[kind]
            made = {edit: _edited(row, edit, rng).cells() for edit in dict.fromkeys((*before, *after))}
            sides = [[made[edit] for edit in edits] for edits in (before, after)]
            cells[0].extend(sides[0])
            cells[1].extend(sides[1])
            expected.update(counted | _to_score(*sides))
        for found, some in zip(tables, cells, strict=True):
            found.append(_table(some))
            expected["before" if found is tables[0] else "after"] += len(some)
    frames = [as_frame(pa.concat_tables(found)).sample(fraction=1, shuffle=True, seed=seed) for found in tables]
    return frames[0], frames[1], dict(expected)


def frame(*rows: Row) -> pl.DataFrame:
    """The snapshot of these rows."""
    return as_frame(_table([row.cells() for row in rows]))


def words(rng: np.random.Generator, n: int) -> TokenIds:
    """So many words of a text, and its end."""
    drawn = np.exp(rng.random(n) * np.log(VOCABULARY - END)).astype(np.int32) + END
    return np.append(drawn, np.int32(END))


def reworded(ids: TokenIds, rng: np.random.Generator) -> TokenIds:
    """One or two words are others."""
    places = rng.choice(len(ids) - 1, rng.integers(1, 3), replace=False)
    changed = ids.copy()
    changed[places] = (ids[places] + rng.integers(1, 1000, len(places))) % VOCABULARY
    return changed


def _rows(rng: np.random.Generator, n: int) -> Iterator[Row]:
    lengths = np.clip(rng.lognormal(np.log(90), 0.5, (n, 2)), 40, 400).astype(int)
    prompt = words(rng, 20)
    for row, (chosen, rejected) in enumerate(lengths):
        if row % ROWS_OF_A_PROMPT == 0:
            prompt = words(rng, 20)
        yield Row(prompt, words(rng, chosen), words(rng, rejected))


def _edited(row: Row, edit: str, rng: np.random.Generator) -> Row:
    if edit == "same":
        return row
    if edit == "replaced":
        return row._replace(rejected=words(rng, len(row.rejected)))
    if edit.startswith("reworded"):
        row = row._replace(rejected=reworded(row.rejected, rng))
        return row._replace(chosen=reworded(row.chosen, rng)) if edit == "reworded twice" else row
    row = row.flipped() if "flipped" in edit else row
    return row.retokenised() if "retokenised" in edit else row


def _to_score(before: list[list[Any]], after: list[list[Any]]) -> dict[str, int]:
    known, new = ({row[k]: row[k + 7] for row in rows for k in (1, 2)} for rows in (before, after))
    unknown = [tokens for key, tokens in new.items() if key not in known]
    return {"to_score": len(unknown), "tokens_to_score": sum(unknown)}


def _table(rows: list[list[Any]]) -> pa.Table:
    columns = [list(column) for column in zip(*rows, strict=True)] if rows else [[] for _ in SNAPSHOT_SCHEMA]
    return pa.table(columns, schema=SNAPSHOT_SCHEMA)
