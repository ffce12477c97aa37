"""What became of every pair of the data, what a person should know of it, and whether it can be trained on."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import polars as pl

from data.pairs.cut import Cut
from data.pairs.splits import EVAL, TRAIN
from data.schema import Rejection


@dataclass
class Coverage:
    """What became of every pair: read = used + rejected."""

    rows: int = 0
    """Rows of the sources."""
    forms: dict[str, str] = field(default_factory=dict)
    """How each source was read."""
    read: int = 0
    """Pairs in them: as many as its rule makes of a row of rated answers, otherwise one a row."""
    used: int = 0
    rejected: dict[str, int] = field(default_factory=dict)
    multi_turn: int = 0
    """Pairs whose prompt has turns of the assistant's."""
    tokens: int = 0
    """Tokens of the pairs in use, a pair's prompt once."""
    truncated: int = 0
    """Pairs that truncation shortened."""
    truncated_tokens: int = 0
    seams_split: int = 0
    """Responses tokenised apart from their prompt."""
    splits: dict[str, int] = field(default_factory=dict)
    visits: dict[str, int] = field(default_factory=dict)
    """Where sources have weights: the training pairs that an epoch visits of each."""
    overlap: int = 0
    """Held-out pairs whose first user turn (or group) stands among the training pairs."""
    duplicates: int = 0
    """Pairs that stand in their split already."""
    contradictions: int = 0
    """Pairs that also stand there the other way round."""
    chosen_longer: int = 0
    """Pairs whose chosen response has more tokens than the rejected one."""
    several_messages: int = 0
    """Pairs with a response of several messages, of which only the assistant's are scored."""

    def document(self) -> dict[str, Any]:
        """As it stands in metrics.json and `--json`."""
        return asdict(self)


def account(coverage: Coverage, cut: Cut, rejections: Sequence[Rejection]) -> None:
    """Fill in what can be counted once every pair is there; a pair of several visits counts once."""
    tokens = [pl.col(name) for name in ("n_prompt", "chosen_tokens", "rejected_tokens")]
    every = cut.every.select(
        *(key_number(name) for name in ("pair_key", "chosen_key", "rejected_key")),
        "group",
        "truncated",
        pl.sum_horizontal(tokens).cast(pl.Int64).alias("tokens"),
        (pl.col("n_chosen") > pl.col("n_rejected")).alias("chosen_longer"),
        ((pl.col("n_chosen") < tokens[1]) | (pl.col("n_rejected") < tokens[2])).alias("several"),
    ).with_columns(split=pl.Series(cut.assigned))
    coverage.splits = {split: len(pairs) for split, pairs in cut.splits.items()}
    coverage.used = every.height
    coverage.rejected = dict(sorted(Counter(rejection.reason for rejection in rejections).items()))
    coverage.tokens = int(every["tokens"].sum())
    shortened = every["truncated"].filter(every["truncated"] > 0)
    coverage.truncated, coverage.truncated_tokens = len(shortened), int(shortened.sum())
    coverage.several_messages = int(every["several"].sum())
    coverage.chosen_longer = int(every["chosen_longer"].sum())
    coverage.duplicates = every.height - every.select("split", "pair_key").unique().height
    ways = every.select("chosen_key", "rejected_key").unique()
    both = ways.join(ways, left_on=["chosen_key", "rejected_key"], right_on=["rejected_key", "chosen_key"], how="semi")
    coverage.contradictions = both.height // 2
    trained, held_out = (every.filter(split=split).select("group") for split in (TRAIN, EVAL))
    coverage.overlap = held_out.join(trained.unique(), on="group", how="semi").height


def key_number(name: str) -> pl.Expr:
    """A column of hexadecimal keys as 60 bits of each: of a million, two agree with a chance of 1 in 2 million."""
    return pl.col(name).str.slice(0, 15).str.to_integer(base=16)
