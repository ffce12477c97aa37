"""Two evaluations of the same pairs: how far apart they are, how sure that is, and how small a difference would show.

Pairs of one prompt move together, so every error is clustered by prompt. A second source of noise is invisible to any
test on one pair of runs: another training seed gives another policy. Its standard deviation is an argument.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
import numpy.typing as npt

from stages.metrics.intervals import Clusters, clustered_bootstrap, clustered_variance, mean, student

LEVEL = 0.95
POWER = 0.8


@dataclass(frozen=True)
class PairedDifference:
    """The mean of a metric after, less that before, over the same pairs."""

    n: int
    n_prompts: int
    before: float
    after: float
    standard_error: float
    """Of the difference, clustered by prompt, in the metric's unit; infinite where there is one prompt only."""
    gained: int
    """Pairs with a larger value after."""
    lost: int
    """Pairs with a smaller one."""
    most: float = math.inf
    """The largest difference that there can be: of shares 1."""

    @property
    def difference(self) -> float:
        """After less before."""
        return self.after - self.before

    def interval(self, level: float = LEVEL, seed_sd: float = 0.0, n_before: int = 1) -> tuple[float, float]:
        """Student's interval of the difference, two-sided; `seed_sd`: noise of one run; before: `n_before` runs."""
        half = self._quantile((1 + level) / 2) * self._error(seed_sd, n_before)
        return max(-self.most, self.difference - half), min(self.most, self.difference + half)

    def detectable(self, level: float = LEVEL, seed_sd: float = 0.0, n_before: int = 1) -> float:
        """The smallest true difference that an interval of this level tells from 0 in 80 % of all cases."""
        return (self._quantile((1 + level) / 2) + self._quantile(POWER)) * self._error(seed_sd, n_before)

    def mcnemar_p(self) -> float:
        """Exact, two-sided: pairs that changed sides are as likely to go either way (McNemar 1947; a sign test)."""
        from scipy.stats import binomtest

        changed = self.gained + self.lost
        return float(binomtest(self.gained, changed).pvalue) if changed else 1.0

    def clustered_p(self) -> float:
        """Two-sided, of Student's test that the difference is 0; 1 where there is one prompt only."""
        from scipy.special import stdtr

        if not math.isfinite(self.standard_error):
            return 1.0
        if self.standard_error == 0:
            return float(self.difference == 0)
        return 2 * float(stdtr(max(1, self.n_prompts - 1), -abs(self.difference) / self.standard_error))

    def _error(self, seed_sd: float, n_before: int) -> float:
        return math.sqrt(self.standard_error**2 + seed_sd**2 * (1 + 1 / n_before))

    def _quantile(self, p: float) -> float:
        return student(max(1, self.n_prompts - 1), p)


def paired_difference(
    before: npt.NDArray[np.float64], after: npt.NDArray[np.float64], prompts: Clusters, *, share: bool
) -> PairedDifference:
    """The difference of two evaluations, value by value of the same pairs, (N,) each.

    The standard error is that of a mean of clusters. That of a share counts two pairs more than there are, one of them
    gained, one lost, each half (Agresti and Min 2005): where no pair has changed sides, not even a small number of
    pairs is proof that none would.
    """
    differences = after - before
    n, (variance, groups) = len(differences), clustered_variance(differences, prompts)
    if share:
        variance = (variance * n**2 + 1) / (n + 2) ** 2
    return PairedDifference(
        n=n,
        n_prompts=groups,
        before=mean(before),
        after=mean(after),
        standard_error=math.sqrt(variance),
        gained=int(np.count_nonzero(differences > 0)),
        lost=int(np.count_nonzero(differences < 0)),
        most=1.0 if share else math.inf,
    )


def seed_variance(runs: Sequence[npt.NDArray[np.float64]], prompts: Clusters, *, share: bool) -> list[float]:
    """Of each two runs that differ in the seed alone, an unbiased estimate of a run's variance beyond its pairs'.

    `runs` are values of the same pairs, (N,) each. The square of a difference is expected to be its standard error's
    square plus twice that variance; an estimate may be below 0, their mean is to be taken (and no less than 0 then).
    """
    found = [paired_difference(one, other, prompts, share=share) for one, other in combinations(runs, 2)]
    return [(each.difference**2 - each.standard_error**2) / 2 for each in found]


def paired_bootstrap(
    before: npt.NDArray[np.float64], after: npt.NDArray[np.float64], prompts: Clusters
) -> tuple[float, float]:
    """95 % percentile interval of the difference, resampling prompts with all their pairs, each with both its
    values.
    """
    return clustered_bootstrap(after - before, prompts)
