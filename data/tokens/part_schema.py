"""The columns of a part: what a file of token pairs holds of each."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from data.schema import Response, TokenPair
from data.tokens.sketches import SKETCH_BYTES

DIGEST = pa.binary(16)
TEXTS = ("prompt_text", "chosen_text", "rejected_text")
SKETCHES = ("chosen_sketch", "rejected_sketch")
_IDS, _MASK = pa.list_(pa.int32()), pa.list_(pa.uint8())
PART_SCHEMA = pa.schema(
    [
        ("line", pa.int32()),
        ("candidate", pa.int32()),
        ("ordinal", pa.int32()),
        ("pair_key", pa.string()),
        ("prompt_key", pa.string()),
        ("chosen_key", pa.string()),
        ("rejected_key", pa.string()),
        ("prompt_ids", _IDS),
        ("chosen_ids", _IDS),
        ("chosen_mask", _MASK),
        ("rejected_ids", _IDS),
        ("rejected_mask", _MASK),
        ("n_prompt", pa.int32()),
        ("chosen_tokens", pa.int32()),
        ("rejected_tokens", pa.int32()),
        ("n_chosen", pa.int32()),
        ("n_rejected", pa.int32()),
        ("truncated", pa.int32()),
        ("margin", pa.float64()),
        ("pair_weight", pa.float64()),
        ("turns", pa.int32()),
        ("group", pa.uint64()),
        *((name, DIGEST) for name in TEXTS),
        *((name, pa.binary(SKETCH_BYTES)) for name in SKETCHES),
    ]
)
"""A pair of a part. `line` and `ordinal` count from the part's first line and first pair; of several pairs of a row
`candidate` says which it is (from 1, else 0). A mask is empty where every token is scored; n_chosen and n_rejected are
the numbers of scored tokens, `turns` is that of the user's turns in the prompt. The split is cut by `group`; texts and
sketches are for comparing days (changes.py)."""


def token_columns(pairs: Sequence[TokenPair]) -> dict[str, list[Any]]:
    """The columns of PART_SCHEMA that a token pair tells by itself."""
    return {
        "pair_key": [pair.key for pair in pairs],
        "prompt_key": [pair.prompt_key for pair in pairs],
        "chosen_key": [pair.chosen.key for pair in pairs],
        "rejected_key": [pair.rejected.key for pair in pairs],
        "prompt_ids": [pair.chosen.prompt_ids for pair in pairs],
        "chosen_ids": [pair.chosen.ids for pair in pairs],
        "chosen_mask": [_mask(pair.chosen) for pair in pairs],
        "rejected_ids": [pair.rejected.ids for pair in pairs],
        "rejected_mask": [_mask(pair.rejected) for pair in pairs],
        "n_prompt": [len(pair.chosen.prompt_ids) for pair in pairs],
        "chosen_tokens": [len(pair.chosen.ids) for pair in pairs],
        "rejected_tokens": [len(pair.rejected.ids) for pair in pairs],
        "n_chosen": [pair.chosen.n_scored for pair in pairs],
        "n_rejected": [pair.rejected.n_scored for pair in pairs],
        "truncated": [pair.truncated for pair in pairs],
        "margin": [pair.margin for pair in pairs],
        "pair_weight": [pair.weight for pair in pairs],
    }


def _mask(response: Response) -> Any:
    """The mask for the file: nothing where all is scored."""
    return [] if response.n_scored == len(response.mask) else response.mask.view(np.uint8)
