"""The stack check: a machine or a version that the store has not seen has to score as those did that it has.

Neither belongs to a reference's identity, because either may change a log-prob only by rounding; this is where a
library or a device that changes it by more is found, before its values stand beside the others.
"""

import json
import logging
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import polars as pl

from data.schema import Response, TokenPair
from stages.agreement import agreement, in_words, require_agreement, spread
from stages.scoring.config import same_stack

if TYPE_CHECKING:
    from stages.scoring.scorer import Scorer

SAMPLE = 64  # stored pairs

logger = logging.getLogger(__name__)


def check_drift(
    scorer: "Scorer", pairs: Sequence[TokenPair], stored_rows: pl.DataFrame, dtype: str, *, accept: bool
) -> dict[str, Any]:
    """Score some stored pairs again if nothing in the store was scored on this stack; returns what a report says.

    Raises:
        StoreError: they are further apart than rounding explains, and that is not accepted.
    """
    seen = [_without_reuse(json.loads(stack)) for stack in stored_rows["stack"].unique().sort()]
    if not seen or any(same_stack(stack, scorer.stack()) for stack in seen):
        return {}
    unique = {pair.key: pair for pair in pairs}
    stored = stored_sums([unique[key] for key in sorted(unique)], stored_rows, SAMPLE)
    if not stored:
        logger.warning("this machine or its versions are new to the store, and none of its pairs is here to compare")
        return {}
    figures = compare(scorer, stored)
    finding = (
        f"This machine ({_described(scorer.stack())}) scores {figures['responses']:.0f} stored responses otherwise "
        f"than the one that stored them ({_described(seen[0])})"
    )
    advice = (
        "Nothing was scored. Score on the old machine and versions, or run the same command with --accept-drift to let "
        "the new values stand beside the old ones."
    )
    require_agreement(figures, dtype, finding, advice, accept=accept)
    logger.info("a stack new to the store, against what is stored: %s", in_words(figures))
    return {"drift": figures}


def stored_sums(pairs: Sequence[TokenPair], rows: pl.DataFrame, most_pairs: int) -> list[tuple[Response, float]]:
    """Responses and their stored sums, of at most so many of the pairs that have a row."""
    keys = pl.Series([pair.key for pair in pairs], dtype=pl.String)
    found = rows.filter(pl.col("pair_key").is_in(keys.implode())).select(
        "pair_key", "ref_chosen_logps", "ref_rejected_logps"
    )
    sums = {key: (chosen, rejected) for key, chosen, rejected in found.iter_rows()}
    unique: dict[str, tuple[Response, float]] = {}
    for pair in spread([pair for pair in pairs if pair.key in sums], most_pairs):
        for side, stored in zip((pair.chosen, pair.rejected), sums[pair.key], strict=True):
            unique[side.key] = (side, stored)
    return list(unique.values())


def compare(scorer: "Scorer", stored: Sequence[tuple[Response, float]]) -> dict[str, float]:
    """Figures of how far this scorer is from what is stored."""
    import torch

    by_key = {response.key: value for response, value in stored}
    before, now, counts = [], [], []
    with torch.inference_mode():
        for batch in scorer.plan([[response] for response, _ in stored]):
            now += scorer.logps(batch.responses).tolist()
            before += [by_key[response.key] for response in batch.responses]
            counts += [response.n_scored for response in batch.responses]
    return agreement(before, now, counts)


def _without_reuse(stack: dict[str, str]) -> dict[str, str]:
    """What the rest of a part was scored by."""
    return {name: value for name, value in stack.items() if name != "reused"}


def _described(stack: dict[str, str]) -> str:
    return ", ".join(f"{name} {value}" for name, value in sorted(stack.items())) or "unknown"
