"""What the store lacks, whose it is to score, and the units in which it is committed."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import NamedTuple

import numpy as np
import polars as pl
import pyarrow as pa

from data.schema import Response, TokenPair, unique_responses
from data.store.parts import PAIR_SCHEMA, RESPONSE_SCHEMA
from data.store.reference_store import Damaged, ReferenceStore, TokenLogps
from data.tokens.token_pairs import TokenPairs


@dataclass(frozen=True)
class Shard:
    """A worker's share of the prompts: those whose key is `index` modulo `count`, whatever the store holds."""

    index: int = 0
    count: int = 1

    def of(self, pairs: TokenPairs) -> TokenPairs:
        """Those that this worker scores."""
        if self.count == 1:
            return pairs
        number = pairs.column("prompt_key").str.slice(0, _DIGITS).str.to_integer(base=16)
        return pairs.take((number % self.count == self.index).arg_true())

    def __str__(self) -> str:
        return f"{self.index}/{self.count}"


ALL = Shard()
_DIGITS = 15  # of a key, as many as an integer of 64 bits holds
_LOOKED_AT = ("pair_key", "chosen_key", "rejected_key", "ref_chosen_logps", "ref_rejected_logps")


class Outstanding(NamedTuple):
    """What a worker finds to do."""

    n_pairs: int
    """Its pairs, stored or not."""
    missing: TokenPairs
    """Those without a row, once each, in the order of units."""
    unknown: pl.DataFrame
    """The responses of these that have never been scored, once each: response_key, n_tokens, n_scored."""
    known: dict[str, TokenLogps]
    """Token log-probs of the others, by response key."""
    stored: pl.DataFrame
    """The rows of the store: pair_key and what scored it; with missing pairs, keys of responses and sums too."""


def outstanding(pairs: TokenPairs, store: ReferenceStore, shard: Shard, *, damaged: Damaged) -> Outstanding:
    """Compare what is wanted with what is stored."""
    pairs = shard.of(pairs)
    wanted = pl.DataFrame({"pair_key": pairs.keys}).with_row_index("place").unique("pair_key", keep="first")
    stored = store.rows(["pair_key"], damaged=damaged)  # all that most jobs ever look at: keys cost memory
    places = wanted.join(stored, on="pair_key", how="anti")["place"].to_numpy()
    missing = in_unit_order(pairs.take(places))
    known: dict[str, TokenLogps] = {}
    unknown = missing.responses().unique("response_key", keep="first", maintain_order=True)
    if len(missing):
        stored = store.rows(_LOOKED_AT, damaged=damaged)
        sides = pl.concat([stored["chosen_key"], stored["rejected_key"]]).unique()
        seen = unknown["response_key"].is_in(sides.implode())
        known = store.token_logps(unknown["response_key"].filter(seen).to_list(), damaged=damaged)
        unknown = unknown.filter(~pl.col("response_key").is_in(list(known)))
    return Outstanding(wanted.height, missing, unknown, known, stored)


def in_unit_order(pairs: TokenPairs) -> TokenPairs:
    """The pairs as they are committed: those of one prompt behind each other."""
    return pairs.take(
        pairs.select("prompt_key", "pair_key")
        .with_row_index("place")
        .sort("prompt_key", "pair_key")["place"]
        .to_numpy()
    )


def unknown_responses(pairs: Iterable[TokenPair], known: Mapping[str, TokenLogps]) -> list[Response]:
    """The responses of these pairs that were never scored, once each."""
    return [response for response in unique_responses(pairs) if response.key not in known]


def cut_units(missing: Iterable[TokenPair], unit_pairs: int) -> Iterator[list[TokenPair]]:
    """Units of about `unit_pairs` pairs, cut at prompt boundaries: no response belongs to two of them."""
    unit: list[TokenPair] = []
    for _, group in groupby(missing, key=lambda pair: pair.prompt_key):
        unit.extend(group)
        if len(unit) >= unit_pairs:
            yield unit
            unit = []
    if unit:
        yield unit


def pair_table(unit: Sequence[TokenPair], logps: Mapping[str, TokenLogps]) -> pa.Table:
    """The rows of a unit."""
    rows = []
    for pair in unit:
        chosen, rejected = (prefix_sums(logps[side.key]) for side in (pair.chosen, pair.rejected))
        shared = min(len(chosen), len(rejected)) - 1
        rows.append(
            {
                "pair_key": pair.key,
                "prompt_key": pair.prompt_key,
                "chosen_key": pair.chosen.key,
                "rejected_key": pair.rejected.key,
                "n_prompt": len(pair.chosen.prompt_ids),
                "n_chosen": pair.chosen.n_scored,
                "n_rejected": pair.rejected.n_scored,
                "ref_chosen_logps": chosen[-1],
                "ref_rejected_logps": rejected[-1],
                "ref_chosen_shared_logps": chosen[shared],
                "ref_rejected_shared_logps": rejected[shared],
            }
        )
    return pa.Table.from_pylist(rows, schema=PAIR_SCHEMA)


def response_table(responses: Sequence[Response], logps: Mapping[str, TokenLogps]) -> pa.Table:
    """The tokens of responses that were scored."""
    columns = [[response.key for response in responses], [logps[response.key] for response in responses]]
    return pa.table(columns, schema=RESPONSE_SCHEMA)


def prefix_sums(token_logps: TokenLogps) -> TokenLogps:
    """Sums over the first 1, 2, ..., L scored tokens: (L,) float32; the last is what `Scorer.logps` gives."""
    return np.cumsum(token_logps, dtype=np.float64).astype(np.float32)
