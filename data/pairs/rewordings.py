"""Rows of two snapshots that have the same prompt and nearly the same responses.

How near two rows are is the mean over both sides of the similarity of their sketches; a side whose text is the same
counts 1. Within a prompt the nearest rows are matched first, each row once.
"""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import polars as pl
import pyarrow as pa

from data.tokens.sketches import SKETCH_BYTES, SKETCH_VALUES, Sketches, similarity

NEAR = 0.75
"""Least mean similarity of a rewording: where one side stayed, the other has half of its tokens and bigrams in common.

Measured on 732 pairs of OpenAssistant answers in tokens of SmolLM2. Not near are 0.1, 0.7 and 1.5 % of the rows with
one, two and three words replaced on one side, and 3, 9 and 15 % with as many on either side (0.04, 0.15 and 0.9 % where
both have 40 tokens). Near are 6 % of the rows with another answer to the prompt on one side: 4 % are copies, nearly.
"""
MAX_COMPARISONS = 5_000_000
"""Most couples of rows that are compared: some seconds."""
_BATCH = 16_384  # couples; what they need stays in the cache

_ROW = ["pair_key", "prompt_text", "chosen_text", "rejected_text"]  # tells rows apart: sketches follow from the key
_SIDES, _PLACES = ("chosen", "rejected"), ("place", "place_new")
Ints = npt.NDArray[np.int64]


class _Side(NamedTuple):
    texts: npt.NDArray[np.uint64]
    """(N,)"""
    sketches: Sketches
    """(N, 16)"""

    def similarity(self, mine: Ints, theirs: Ints) -> npt.NDArray[np.float64]:
        """Of couples of rows, by their places: (C,)."""
        same = self.texts[mine] == self.texts[theirs]
        return np.where(same, 1.0, similarity(self.sketches[mine], self.sketches[theirs]))


def count_reworded(removed: pl.DataFrame, added: pl.DataFrame) -> tuple[int, int]:
    """How many of these rows are each other's rewordings, and how many rows of either frame were not looked at.

    The rows have hashes for keys and texts. Prompts are looked at by the number of their couples, the fewest first, as
    long as all couples of them together are at most MAX_COMPARISONS. The order of rows and of frames changes nothing.
    """
    columns = [*_ROW, "chosen_sketch", "rejected_sketch"]
    sides = [frame.select(*columns, new=pl.lit(new)) for frame, new in ((removed, False), (added, True))]
    prompts = _prompts_of_both(*sides)
    affordable = prompts["couples"].cum_sum() <= MAX_COMPARISONS
    not_compared = int(prompts.filter(~affordable)["rows"].sum())
    compared = prompts.filter(affordable).select("prompt_text")
    rows = pl.concat([side.join(compared, on="prompt_text", how="semi") for side in sides]).sort(_ROW)
    return (_greedy(_near_couples(rows), len(rows)) if len(rows) else 0), not_compared


def _prompts_of_both(removed: pl.DataFrame, added: pl.DataFrame) -> pl.DataFrame:
    """Prompts that have rows in both frames: how many in both together, and how many couples of one of each."""
    old, new = (frame.group_by("prompt_text").agg(n=pl.len().cast(pl.Int64)) for frame in (removed, added))
    both = old.join(new, on="prompt_text", suffix="_new")
    both = both.with_columns(rows=pl.col("n") + pl.col("n_new"), couples=pl.col("n") * pl.col("n_new"))
    return both.sort("couples", "prompt_text")


def _near_couples(rows: pl.DataFrame) -> tuple[Ints, Ints]:
    """Places in `rows` of an old and a new row that are near, the nearest first; ties by the place."""
    places = rows.select("prompt_text", "new").with_row_index("place")
    old, new = (places.filter(pl.col("new") == is_new).select("prompt_text", "place") for is_new in (False, True))
    couples = old.join(new, on="prompt_text", suffix="_new")
    chosen, rejected = (_Side(rows[f"{side}_text"].to_numpy(), _sketches(rows[f"{side}_sketch"])) for side in _SIDES)
    found = []
    for start in range(0, len(couples), _BATCH):
        mine, theirs = (couples[name][start : start + _BATCH].to_numpy().astype(np.int64) for name in _PLACES)
        first = chosen.similarity(mine, theirs)
        possible = first >= 2 * NEAR - 1  # even if the other side is the same
        mine, theirs, first = mine[possible], theirs[possible], first[possible]
        mean = (first + rejected.similarity(mine, theirs)) / 2
        near = mean >= NEAR
        found.append((mine[near], theirs[near], mean[near]))
    mine, theirs, mean = (np.concatenate(parts) for parts in zip(*found, strict=True))
    order = np.lexsort((np.maximum(mine, theirs), np.minimum(mine, theirs), -mean))
    return mine[order], theirs[order]


def _greedy(couples: tuple[Ints, Ints], n_rows: int) -> int:
    """How many couples are taken when each row is in at most one, the first ones first."""
    free, taken = bytearray(b"\x01") * n_rows, 0
    for mine, theirs in zip(*(places.tolist() for places in couples), strict=True):  # near ones only: few
        if free[mine] and free[theirs]:
            free[mine] = free[theirs] = 0
            taken += 1
    return taken


def _sketches(column: pl.Series) -> Sketches:
    content = column.to_arrow().cast(pa.binary(SKETCH_BYTES)).buffers()[1]
    return np.frombuffer(content, "<u4").reshape(-1, SKETCH_VALUES)
