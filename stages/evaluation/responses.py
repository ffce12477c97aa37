"""What can be said of a response without reading it: its length, whether it ended, repeats itself, is empty."""

import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import polars as pl

from data.tokens.encoding import Ids
from stages.metrics.intervals import wilson

GRAM = 4  # tokens of what may be repeated
SHARES = ("ended", "repetition", "empty")


@dataclass(frozen=True)
class Speech:
    """How tokens are read."""

    tokenizer: Any
    """The one that made the pairs."""
    end_ids: Sequence[int]
    """Tokens that end a turn, as data.tokens.tokenization has them."""

    def text(self, ids: Ids, *, special: bool) -> str:
        """The tokens as text, with or without the special ones."""
        text: str = self.tokenizer.decode(ids, skip_special_tokens=not special, clean_up_tokenization_spaces=False)
        return text


def generation_metrics(frame: pl.DataFrame, side: str) -> dict[str, float]:
    """Means over prompts of one side of the frame: generation_length, _ended, _repetition, _empty.

    Shares have Wilson's interval (that of the repetition is wider than need be: no prompt's share is as far from the
    mean as a yes or no).
    """
    n = frame.height
    metrics = {"generation_length": float(frame[f"{side}_tokens"].sum()) / n}
    for name in SHARES:
        total = float(frame[f"{side}_{name}"].sum())
        low, high = wilson(total, n)
        metrics |= {f"generation_{name}": total / n, f"generation_{name}_low": low, f"generation_{name}_high": high}
    return metrics


def repetition(ids: Sequence[int]) -> float:
    """Share of the runs of four tokens that stood in the response before (arXiv 1908.04319); 0 below four tokens."""
    runs = [tuple(ids[i : i + GRAM]) for i in range(len(ids) - GRAM + 1)]
    return 1 - len(set(runs)) / len(runs) if runs else 0.0


def response_columns(side: str, answers: Sequence[Ids] | None, n: int, speech: Speech) -> list[pl.Series]:
    """Of `n` responses of one model, null where there are none: text, tokens (the end token counts), ended, ..."""
    rows = [(None,) * 5] * n if answers is None else [_row(ids, speech) for ids in answers]
    names = {"": pl.String, "_tokens": pl.Int32, "_ended": pl.Boolean, "_repetition": pl.Float64, "_empty": pl.Boolean}
    columns = zip(names.items(), zip(*rows, strict=True), strict=True)
    return [pl.Series(f"{side}{name}", column, dtype) for (name, dtype), column in columns]


def _row(ids: Ids, speech: Speech) -> tuple[str, int, bool, float, bool]:
    ended = ids[-1] in speech.end_ids
    said = ids[:-1] if ended else ids
    text = speech.text(said, special=False)
    visible = any(unicodedata.category(character)[0] not in "CZ" for character in text)
    return text, len(ids), ended, repetition(said), not visible
