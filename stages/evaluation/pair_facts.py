"""What is known of evaluated pairs beside their scores: what slices are cut by, and whether training has seen them."""

from collections.abc import Sequence

import numpy as np
import polars as pl

from data.config import DataConfig
from data.pairs.coverage import Coverage, key_number
from data.pairs.preparation import PreparedPairs
from data.pairs.row_columns import row_columns
from data.tokens.token_pairs import TokenPairs
from stages.metrics.slices import PREFIX


def pair_facts(pairs: TokenPairs, prepared: PreparedPairs, data: DataConfig, columns: Sequence[str]) -> pl.DataFrame:
    """pair_key, row, n_prompt, turns, source, score_gap and a `slice:NAME` for each of `columns`: a row for each pair.

    `pairs` are some of the prepared ones, and `data` is what these were prepared by. The score gap is the margin that a
    row gives to its pairs; null where the source names no column for it. `columns` are read again from the sources.

    Raises:
        ConfigError: no row of these pairs has such a column.
        DataError: a source cannot be read, or is not as it was.
    """
    assert [part.path for part in pairs.parts] == [part.path for part in prepared.parts]
    sources = [source for source, _ in data.sources]
    places = pairs.places()
    source_of = np.array([part.source for part in prepared.parts], np.int64)[places["part"].to_numpy()]
    rated = np.array(["margin" in source.columns for source in sources])[source_of]
    facts = pairs.select("pair_key", "n_prompt", "turns", "margin").select(
        "pair_key",
        places["row"],
        "n_prompt",
        "turns",
        pl.Series("source", [source.name for source in sources])[source_of],
        pl.when(pl.Series(rated)).then("margin").alias("score_gap"),
    )
    own = row_columns(pairs, prepared, sources, columns)
    return facts.with_columns(column.alias(f"{PREFIX}{column.name}") for column in own)


def leakage(train: TokenPairs, held_out: TokenPairs, coverage: Coverage) -> dict[str, int]:
    """Held-out pairs that training has, whose prompt it has (in other pairs, too), and whose first user turn it has."""
    keys = ("pair_key", "prompt_key")  # as numbers: those of a million pairs take 16 MB
    seen, own = (pairs.select(*map(key_number, keys)) for pairs in (train, held_out))
    shared = {key: own.join(seen, on=key, how="semi").height for key in keys}
    return {"pairs": shared["pair_key"], "prompts": shared["prompt_key"], "first_turns": coverage.overlap}
