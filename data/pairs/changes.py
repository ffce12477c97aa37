"""What became of the pairs between two snapshots, row by row, from keys and digests alone.

A snapshot is one row for each pair that was scored, with what tells it from others: keys of its tokens, digests of its
texts, and sketches of its responses (sketches.py). It is a convenience: without one there is nothing to compare with.
"""

import json
import logging
from collections.abc import Sequence
from functools import reduce
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

from data.durable import write_bytes
from data.errors import one_line
from data.pairs.rewordings import count_reworded
from data.parquet import as_frame, parquet_bytes
from data.tokens.sketches import SKETCH_BYTES

logger = logging.getLogger(__name__)

SNAPSHOT_SCHEMA = pa.schema(
    [
        ("pair_key", pa.string()),
        ("chosen_key", pa.string()),
        ("rejected_key", pa.string()),
        ("prompt_text", pa.binary(16)),
        ("chosen_text", pa.binary(16)),
        ("rejected_text", pa.binary(16)),
        ("chosen_sketch", pa.binary(SKETCH_BYTES)),
        ("rejected_sketch", pa.binary(SKETCH_BYTES)),
        ("n_chosen_tokens", pa.int32()),
        ("n_rejected_tokens", pa.int32()),
    ]
)
"""Keys: identity.py's. Texts: digests of messages in normal form. Tokens: those the model reads, prompt included."""

_ABOUT = b"about"
_PAIR = ("pair_key",)
_KEYS, _EXCHANGED_KEYS = ("chosen_key", "rejected_key"), ("rejected_key", "chosen_key")
_TEXTS = ("prompt_text", "chosen_text", "rejected_text")
_EXCHANGED_TEXTS = ("prompt_text", "rejected_text", "chosen_text")
_ODD = pl.lit(0x9E3779B97F4A7C15, pl.UInt64)


class Changes(NamedTuple):
    """Rows by what became of them. A pair that stands twice is two rows, and each row is in one count only."""

    before: int
    """Rows of the earlier snapshot: unchanged, flipped, reworded, retokenised or removed."""
    after: int
    """Rows of the later one: unchanged, flipped, reworded, retokenised or added."""
    unchanged: int
    """The same tokens on both sides."""
    added: int
    removed: int
    flipped: int
    """Chosen and rejected are exchanged: their tokens, or (where the tokens are others) their texts."""
    reworded: int
    """The same prompt, and responses whose texts are near (rewordings.py)."""
    retokenised: int
    """The same three texts in other tokens."""
    not_compared: int
    """Rows, counted as added or removed, whose prompt has too many others to look for rewordings."""
    to_score: int
    """Responses of the later snapshot that are none of the earlier one's, once each."""
    tokens_to_score: int
    """What the model reads for them, each with its prompt."""

    @property
    def any(self) -> bool:
        """Whether any row is not as it was."""
        return self.before != self.unchanged or self.after != self.unchanged

    def document(self) -> dict[str, int]:
        """The counts by name."""
        return self._asdict()


def changes(before: pl.DataFrame, after: pl.DataFrame) -> Changes:
    """Compare two snapshots as multisets of rows, whatever their order.

    Each step leaves the next one what it has not matched: the same pair; exchanged tokens (flipped); the same texts;
    exchanged texts (flipped too); near texts. Exchanged texts wait for the same ones: two pairs that contradict each
    other, in new tokens, were not flipped. Where rows compete, an order of keys and texts decides.
    """
    every = _hashed(before)
    old, new = _unmatched(every, _hashed(after), _PAIR, _PAIR)
    to_score = _unknown_responses(new, every)
    rows = [len(before), len(old)]
    for mine, theirs in ((_KEYS, _EXCHANGED_KEYS), (_TEXTS, _TEXTS), (_TEXTS, _EXCHANGED_TEXTS)):
        old, new = _unmatched(old, new, mine, theirs)
        rows.append(len(old))
    unchanged, flipped, retokenised, flipped_texts = (a - b for a, b in pairwise(rows))
    reworded, not_compared = count_reworded(old, new)
    return Changes(
        before=len(before),
        after=len(after),
        unchanged=unchanged,
        added=len(new) - reworded,
        removed=len(old) - reworded,
        flipped=flipped + flipped_texts,
        reworded=reworded,
        retokenised=retokenised,
        not_compared=not_compared,
        to_score=len(to_score),
        tokens_to_score=int(to_score["tokens"].sum()),
    )


def _hashed(snapshot: pl.DataFrame) -> pl.DataFrame:
    """The rows with 64-bit hashes for keys and texts: among two million, some two coincide with probability 1e-7."""
    return snapshot.select(pl.col(*_PAIR, *_KEYS, *_TEXTS).hash(), pl.col("^.*_(sketch|tokens)$"))


def _joint(columns: Sequence[str]) -> pl.Expr:
    """Several hashes as one (polars wraps around)."""
    return reduce(lambda joint, name: joint * _ODD + pl.col(name), columns[1:], pl.col(columns[0]))


def _unmatched(
    removed: pl.DataFrame, added: pl.DataFrame, mine: Sequence[str], theirs: Sequence[str]
) -> tuple[pl.DataFrame, pl.DataFrame]:
    """The rows left of both when rows with `mine` of the one equal to `theirs` of the other take each other."""
    removed, added = removed.with_columns(group=_joint(mine)), added.with_columns(group=_joint(theirs))
    old, new = removed.group_by("group").len("old"), added.group_by("group").len("new")
    groups = old.join(new, on="group", how="full", coalesce=True).with_columns(pl.col("old", "new").fill_null(0))
    groups = groups.filter(pl.col("old") != pl.col("new")).with_columns(taken=pl.min_horizontal("old", "new"))
    fewer, more = (groups.filter(pl.col(side) == pl.col("taken")) for side in ("new", "old"))
    return _rest(removed, fewer), _rest(added, more)


def _rest(frame: pl.DataFrame, groups: pl.DataFrame) -> pl.DataFrame:
    """The rows of these groups without the first `taken` of each: first by key and texts, not by place."""
    rows = frame.join(groups.select("group", "taken"), on="group")
    shared = rows.filter(pl.col("taken") > 0).sort(*_PAIR, *_TEXTS)
    shared = shared.filter(pl.int_range(pl.len()).over("group") >= pl.col("taken"))
    return pl.concat([rows.filter(pl.col("taken") == 0), shared]).drop("group", "taken")


def _unknown_responses(added: pl.DataFrame, before: pl.DataFrame) -> pl.DataFrame:
    """Responses of `added` that are none of those of `before`, once each: key and tokens."""
    sides = [added.select(key=f"{side}_key", tokens=f"n_{side}_tokens") for side in ("chosen", "rejected")]
    responses = pl.concat(sides).group_by("key").agg(pl.col("tokens").max())
    for side in ("chosen", "rejected"):
        known = before.select(f"{side}_key").join(responses, left_on=f"{side}_key", right_on="key", how="semi")
        responses = responses.join(known, left_on="key", right_on=f"{side}_key", how="anti")
    return responses


def write_snapshot(path: Path, snapshot: pl.DataFrame, about: dict[str, Any]) -> None:
    """Keep a snapshot and what it was made of; `about` must be JSON."""
    table = snapshot.select(SNAPSHOT_SCHEMA.names).to_arrow().cast(SNAPSHOT_SCHEMA)
    text = json.dumps(about, sort_keys=True, ensure_ascii=False, allow_nan=False)
    write_bytes(path, parquet_bytes(table.replace_schema_metadata({_ABOUT: text.encode()})))


def snapshot_about(path: Path) -> dict[str, Any] | None:
    """What the snapshot at this path was made of, without reading its rows; None where there is none."""
    try:
        return dict(json.loads((pq.read_schema(path).metadata or {})[_ABOUT]))
    except (OSError, ValueError, KeyError, TypeError, pa.ArrowException):
        return None


def read_snapshot(path: Path) -> tuple[pl.DataFrame, dict[str, Any]] | None:
    """The snapshot and what it was made of; None where there is none, or none that this version can read."""
    try:
        table = pq.ParquetFile(path).read()
        table.validate(full=True)  # polars would believe strings that are none
        about = json.loads((table.schema.metadata or {}).get(_ABOUT, b"null"))
    except FileNotFoundError:
        return None
    except (OSError, ValueError, pa.ArrowException) as error:
        logger.warning("%s cannot be read, so there is nothing to compare with: %s", path, one_line(error))
        return None
    if about is None or not table.schema.remove_metadata().equals(SNAPSHOT_SCHEMA):
        return None
    frame = as_frame(table.replace_schema_metadata(None))
    pa.default_memory_pool().release_unused()  # Parquet's buffers, half as much again as the rows
    return frame, about
