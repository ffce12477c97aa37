"""Whether margins mean what they say: the policy prefers the chosen response with probability s(margin).

Under the Bradley-Terry model (DPO, arXiv 2305.18290, equation 1) s(margin) is how sure the implicit reward is that the
chosen response is the better one. All outcomes are "chosen", so that a curve over s(margin) would be flat; the pair is
looked at from the side that the policy prefers: how sure it is of that side, and whether that side was chosen.
"""

import math
from typing import Any

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float64]

EDGES = tuple(i / 20 for i in range(10, 21))
"""Of the bins of confidence; a bin has its lower edge, the last one both."""


def calibration_metrics(margins: FloatArray) -> dict[str, float]:
    """Brier score (Brier 1950), log loss in nats and expected calibration error (arXiv 1706.04599) of margins (N,).

    Nothing for no pairs. A policy that is the reference has 0.25, ln 2 and 0.
    """
    if not len(margins):
        return {}
    n = len(margins)
    other = _sigmoid(-margins)  # the probability that the rejected response gets
    errors = (row["n"] * abs(row["accuracy"] - row["confidence"]) for row in reliability(margins))
    return {
        "brier": math.fsum(other**2) / n,
        "log_loss": math.fsum(np.logaddexp(0.0, -margins)) / n,
        "ece": math.fsum(errors) / n,
    }


def reliability(margins: FloatArray) -> list[dict[str, Any]]:
    """The reliability curve of margins (N,): bins of confidence s(|margin|), those without pairs left out.

    `accuracy` is the share of a bin's pairs whose margin is above 0; ties, all in the first bin, count one half.
    """
    confidence, right = _sigmoid(np.abs(margins)), (np.sign(margins) + 1) / 2
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


def _sigmoid(values: FloatArray) -> FloatArray:
    """1 / (1 + exp(-x)), without overflow and accurate in both tails."""
    found: FloatArray = np.exp(-np.logaddexp(0.0, -values))
    return found
