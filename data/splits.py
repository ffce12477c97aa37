"""The held-out split, cut by a salted hash of the first user turn.

A question stands on one side only, a grown data set keeps its old split, and a new tokenizer or a larger
`eval_fraction` moves no pair out of the held-out part.
"""

import hashlib
from typing import Literal

Split = Literal["train", "dev", "eval"]

_SALT = b"preference-split\x00"


def normalised(text: str) -> str:
    """The text as splits compare it: without regard to white space."""
    return " ".join(text.split())


def split_of(first_user_turn: str, eval_fraction: float, dev_fraction: float) -> Split:
    """The split of a pair whose prompt opens with `first_user_turn` (compared without regard to white space)."""
    digest = hashlib.sha256(_SALT + normalised(first_user_turn).encode()).digest()
    position = int.from_bytes(digest[:8], "big") / 2**64
    if position < eval_fraction:
        return "eval"
    # dev is cut from the other end, so that changing one fraction never moves the other's pairs
    return "dev" if position >= 1.0 - dev_fraction else "train"
