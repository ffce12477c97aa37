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


def group_digest(group: str) -> bytes:
    """16 bytes that stand for a first user turn, or for whatever else is held out as a whole."""
    return hashlib.sha256(_SALT + normalised(group).encode()).digest()[:16]


def split_of(groups: npt.NDArray[np.uint8], eval_fraction: float, dev_fraction: float) -> npt.NDArray[np.int8]:
    """The split of each group digest (N, 16), as an index of SPLITS: (N,)."""
    # The first eight bytes as a number in [0, 1).
    position = np.ascontiguousarray(groups[:, :8]).view(">u8")[:, 0].astype(np.float64) / 2**64
    # dev is cut from the other end, so that changing one fraction never moves the other's pairs
    rest = np.where(position >= 1.0 - dev_fraction, DEV, TRAIN)
    return np.where(position < eval_fraction, EVAL, rest).astype(np.int8)
