"""Several policies on the same pairs: which of them are told apart, and which ranks each may have.

Two policies are told apart by the larger of two p-values, so that neither test's weakness decides: the exact McNemar
test knows nothing of pairs that share a prompt, and Student's test of clusters is not exact where few pairs differ.
All pairs of policies together err in at most 5 % of cases (Holm 1979).
"""

from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from stages.metrics.paired import PairedDifference, paired_difference

ERROR_RATE = 0.05
"""Of all tests of a leaderboard together."""


class Contest(NamedTuple):
    """Two policies on the same pairs."""

    first: str
    second: str
    found: PairedDifference
    """First less second."""
    p: float
    holm_p: float
    """After the correction for all contests."""

    @property
    def better(self) -> str | None:
        """The one that is better; None: they are not told apart."""
        if self.holm_p > ERROR_RATE:
            return None
        return self.first if self.found.difference > 0 else self.second


def contests(values: Mapping[str, npt.NDArray[np.float64]], prompts: Sequence[str]) -> list[Contest]:
    """Every two policies, in the order given; `values` by policy: 1, 0 or one half for each of the same N pairs."""
    pairs = list(combinations(values, 2))
    found = [paired_difference(values[second], values[first], prompts, share=True) for first, second in pairs]
    p_values = [max(each.mcnemar_p(), each.clustered_p()) for each in found]
    together = zip(pairs, found, p_values, holm(p_values), strict=True)
    return [Contest(*names, difference, p, corrected) for names, difference, p, corrected in together]


def rank_range(name: str, held: Sequence[Contest], n: int) -> tuple[int, int]:
    """The best and the worst rank of a policy among `n`: below all that are better, above all that are worse."""
    decided = [each for each in held if name in (each.first, each.second) and each.better is not None]
    worse = sum(each.better == name for each in decided)
    return 1 + len(decided) - worse, n - worse


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's step-down correction: the least error rate of all tests together at which each would be significant."""
    p = np.asarray(p_values, dtype=np.float64)
    order = np.argsort(p, kind="stable")
    corrected = np.empty(len(p))
    corrected[order] = np.minimum(1.0, np.maximum.accumulate(p[order] * np.arange(len(p), 0, -1)))
    return [float(value) for value in corrected]
