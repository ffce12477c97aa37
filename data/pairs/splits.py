"""The held-out split, cut by a salted hash of the first user turn.

A question stands on one side only, a grown data set keeps its old split, and a new tokenizer or a larger
`eval_fraction` moves no pair out of the held-out part.
"""

import hashlib
from typing import Literal, get_args

import numpy as np
import numpy.typing as npt

Split = Literal["train", "dev", "eval"]
SPLITS: tuple[Split, ...] = get_args(Split)
TRAIN, DEV, EVAL = range(3)

_SALT = b"preference-split\x00"


def normalised(text: str) -> str:
    """The text as splits compare it: without regard to white space."""
    return " ".join(text.split())


def group_number(group: str) -> int:
    """64 bits that stand for a first user turn, or for whatever else is held out as a whole."""
    return int.from_bytes(hashlib.sha256(_SALT + normalised(group).encode()).digest()[:8], "big")


def split_of(groups: npt.NDArray[np.uint64], eval_fraction: float, dev_fraction: float) -> npt.NDArray[np.int8]:
    """The split of each group number (N,), as an index of SPLITS: (N,)."""
    position = groups.astype(np.float64) / 2**64
    # dev is cut from the other end, so that changing one fraction never moves the other's pairs
    rest = np.where(position >= 1.0 - dev_fraction, DEV, TRAIN)
    return np.where(position < eval_fraction, EVAL, rest).astype(np.int8)
