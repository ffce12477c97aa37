"""Whether margins mean what they say: the policy prefers the chosen response with probability s(margin).

Under the Bradley-Terry model (DPO, arXiv 2305.18290, equation 1) s(margin) is how sure the implicit reward is that the
chosen response is the better one. All outcomes are "chosen", so that a curve over s(margin) would be flat; a pair is
looked at from the side that the policy prefers: how sure it is of that side, and whether that side was chosen (Guo et
al. 2017, arXiv 1706.04599). The Brier score and the log loss are means over pairs, in values.py.
"""

import math
from typing import Any

import numpy as np

from stages.metrics.values import Floats

EDGES = tuple(i / 20 for i in range(10, 21))
"""Of the bins of confidence; a bin has its lower edge, the last one both."""


def expected_calibration_error(margins: Floats) -> float:
    """The mean distance of confidence and accuracy in the bins of `reliability`, weighted by their pairs (1706.04599).

    Margins (N,) of one pair or more; 0 for a policy that is the reference, which is unsure of everything.
    """
    errors = (row["n"] * abs(row["accuracy"] - row["confidence"]) for row in reliability(margins))
    return math.fsum(errors) / len(margins)


def reliability(margins: Floats) -> list[dict[str, Any]]:
    """The reliability curve of margins (N,): bins of confidence s(|margin|), those without pairs left out.

    `accuracy` is the share of a bin's pairs whose margin is above 0; ties, all in the first bin, count one half.
    """
    confidence, right = 1 / (1 + np.exp(-np.abs(margins))), (np.sign(margins) + 1) / 2
    bins = np.searchsorted(EDGES[1:-1], confidence, side="right")
    curve = []
    for i in np.unique(bins).tolist():
        inside = bins == i
        n = int(inside.sum())
        curve.append(
            {
                "low": EDGES[i],
                "high": EDGES[i + 1],
                "n": n,
                "confidence": math.fsum(confidence[inside]) / n,
                "accuracy": math.fsum(right[inside]) / n,
            }
        )
    return curve
