"""`pipeline inspect`: single pairs token by token, and rejected rows, found by key, length or reason."""

from itertools import islice
from typing import Any

import polars as pl

from data.errors import ConfigError
from data.pairs.splits import Split
from data.rows.bad_rows import REASONS
from data.schema import TokenPair
from data.tokens.marked_text import marked_tokens
from data.tokens.token_pairs import TokenPairs
from data.tokens.tokenization import load_tokenizer
from pipeline.inputs import Inputs
from stages.job import JobReport
from stages.model_files import tokenizer_folder


def run_inspect(
    inputs: Inputs, key: str | None = None, reason: str | None = None, longer_than: int | None = None, limit: int = 3
) -> JobReport:
    """The first pairs that `key` (the start of one) and `longer_than` leave over, or the rows rejected for `reason`."""
    if reason is not None and reason not in REASONS:
        raise ConfigError(f"--reason {reason}: known are {', '.join(REASONS)}.")
    bound = inputs.bind()
    prepared = inputs.prepared(bound.folder)
    report = JobReport("inspect", pairs=prepared.coverage.used)
    if reason is not None:
        found = [vars(rejection) for rejection in prepared.rejections if rejection.reason == reason]
        report.details = {"found": len(found), "rejected": found[:limit], "shown": []}
        return report
    tokenizer = load_tokenizer(tokenizer_folder(bound.folder or inputs.workspace.pairs.tokenizer))
    matching = {split: _matching(pairs, key or "", longer_than or 0) for split, pairs in prepared.splits.items()}
    all_of_them = ((split, pair) for split, pairs in matching.items() for pair in pairs)
    shown = [_shown(split, pair, tokenizer) for split, pair in islice(all_of_them, limit)]
    report.details = {"found": sum(map(len, matching.values())), "rejected": [], "shown": shown}
    return report


def _matching(pairs: TokenPairs, key: str, longer_than: int) -> TokenPairs:
    """Those whose key begins so, and whose longer side has more tokens."""
    longest = pl.col("n_prompt") + pl.max_horizontal("chosen_tokens", "rejected_tokens")
    wanted = pairs.select((pl.col("pair_key").str.starts_with(key) & (longest > longer_than)).alias("wanted"))["wanted"]
    return pairs.take(wanted.arg_true())


def _shown(split: Split, pair: TokenPair, tokenizer: Any) -> dict[str, Any]:
    prompt, chosen = marked_tokens(pair.chosen, tokenizer)
    return {
        "location": pair.location,
        "split": split,
        "key": pair.key,
        "n_prompt": len(pair.chosen.prompt_ids),
        "n_chosen": pair.chosen.n_scored,
        "n_rejected": pair.rejected.n_scored,
        "truncated": pair.truncated,
        "prompt": prompt,
        "chosen": chosen,
        "rejected": marked_tokens(pair.rejected, tokenizer)[1],
    }
