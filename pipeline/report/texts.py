"""The most wrong pairs with their texts: only where `eval.show_pairs` asks for them, since data may be private."""

from functools import partial
from pathlib import Path
from typing import Any

import polars as pl

from data.tokens.marked_text import marked_pair
from data.tokens.token_pairs import TokenPairs
from pipeline.report.material import WrongPair


def most_wrong(pairs: pl.DataFrame, tokens: TokenPairs, tokenizer: Path, n: int) -> list[WrongPair]:
    """The n pairs whose margin is the lowest, below 0; where there is no reference, of the log-probs' difference.

    `tokens` are the held-out pairs, `tokenizer` is the folder of what made them. Pairs that the data no longer have are
    left out.
    """
    has_margin = pairs["margin"].null_count() < pairs.height
    margin = pl.col("margin") if has_margin else pl.col("policy_chosen_logps") - pl.col("policy_rejected_logps")
    found = pairs.select("pair_key", margin.alias("margin")).filter(pl.col("margin") < 0).unique("pair_key")
    found = found.sort("margin", "pair_key").head(n)
    if found.is_empty():
        return []
    places = pl.DataFrame({"pair_key": tokens.keys}).with_row_index("place").unique("pair_key", keep="first")
    found = found.join(places, on="pair_key", how="inner", maintain_order="left")
    decode = partial(marked_pair, tokenizer=_tokenizer(tokenizer))
    wrong = []
    for key, value, place in found.iter_rows():
        texts = decode(tokens[place])
        wrong.append(WrongPair(texts["location"], key, value, texts["prompt"], texts["chosen"], texts["rejected"]))
    return wrong


def _tokenizer(folder: Path) -> Any:
    from data.tokens.tokenization import load_tokenizer

    return load_tokenizer(folder)
