"""What became of every pair of the data, what a person should know of it, and whether it can be trained on."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import polars as pl

from data.schema import Rejection
from data.splits import Split
from data.token_pairs import TokenPairs


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


def account(coverage: Coverage, splits: Mapping[Split, TokenPairs], rejections: Sequence[Rejection]) -> None:
    """Fill in what can be counted once every pair is there; a pair of several visits counts once."""
    every = pl.concat(
        pl.DataFrame(
            {
                "pair_key": pairs.keys,
                "chosen_key": pairs.column("chosen_key"),
                "rejected_key": pairs.column("rejected_key"),
                "n_chosen": pairs.column("n_chosen"),
                "n_rejected": pairs.column("n_rejected"),
                "truncated": pairs.column("truncated"),
                "tokens": pairs.lengths("prompt_ids") + pairs.lengths("chosen_ids") + pairs.lengths("rejected_ids"),
                "group": pairs.column("group"),
                "several": (pairs.lengths("chosen_mask") + pairs.lengths("rejected_mask")) > 0,
            }
        ).with_columns(split=pl.lit(split))
        for split, pairs in splits.items()
    )
    coverage.splits = {split: len(pairs) for split, pairs in splits.items()}
    coverage.used = every.height
    coverage.tokens = int(every["tokens"].sum())
    coverage.rejected = dict(sorted(Counter(rejection.reason for rejection in rejections).items()))
    cut = every["truncated"].filter(every["truncated"] > 0)
    coverage.truncated, coverage.truncated_tokens = len(cut), int(cut.sum())
    coverage.several_messages = int(every["several"].sum())
    coverage.duplicates = every.height - every.select("split", "pair_key").n_unique() if every.height else 0
    ways = every.select("chosen_key", "rejected_key").unique()
    coverage.contradictions = (
        ways.join(
            ways, left_on=["chosen_key", "rejected_key"], right_on=["rejected_key", "chosen_key"], how="semi"
        ).height
        // 2
    )
    coverage.chosen_longer = int((every["n_chosen"] > every["n_rejected"]).sum())
    trained = every.filter(pl.col("split") == "train")["group"].unique()
    held_out = every.filter(pl.col("split") == "eval")["group"]
    coverage.overlap = int(held_out.is_in(trained.implode()).sum())
