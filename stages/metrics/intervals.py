"""Intervals of one evaluation's means: Wilson to read, a bootstrap clustered by prompt to gate on."""

import math
from collections.abc import Sequence
from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt

Z95 = 1.959963984540054  # the 97.5 % point of the normal distribution
RESAMPLES = 2_000
SEED = 20_250_101
Clusters = Sequence[str] | npt.NDArray[Any]
_DRAWS_AT_A_TIME = 4_000_000  # of a bootstrap: 32 MB


def mean(values: npt.NDArray[np.float64]) -> float:
    """The mean, rounded once: no order of the values gives another."""
    if not np.isfinite(values).all():
        with np.errstate(invalid="ignore"):  # infinities of both signs
            return float(np.mean(values))
    return math.fsum(values) / len(values)


def wilson(successes: float, n: float) -> tuple[float, float]:
    """Wilson's 95 % interval of a share (Wilson 1927); ties may count one half, so `successes` need not be whole."""
    share, z2n = successes / n, Z95**2 / n
    centre = (share + z2n / 2) / (1 + z2n)
    half = Z95 * math.sqrt(share * (1 - share) / n + z2n / (4 * n)) / (1 + z2n)
    return max(0.0, centre - half), min(1.0, centre + half)


def clustered_bootstrap(values: Sequence[float] | npt.NDArray[np.float64], clusters: Clusters) -> tuple[float, float]:
    """95 % percentile interval of the mean, resampling clusters (prompts): pairs of one prompt are not independent.

    The order of the values is of no consequence: clusters are taken by name, and the generator is seeded.
    """
    sums, counts = by_cluster(values, clusters)
    generator = np.random.Generator(np.random.PCG64(SEED))
    means = np.empty(RESAMPLES)
    at_a_time = max(1, _DRAWS_AT_A_TIME // len(sums))
    for start in range(0, RESAMPLES, at_a_time):
        size = min(at_a_time, RESAMPLES - start)
        drawn = generator.integers(0, len(sums), (size, len(sums)))
        means[start : start + size] = sums[drawn].sum(axis=1) / counts[drawn].sum(axis=1)
    low, high = np.quantile(means, (0.025, 0.975))
    return float(low), float(high)


def by_cluster(
    values: Sequence[float] | npt.NDArray[np.float64], clusters: Clusters
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """(G,) sums of the values of each cluster, and (G,) numbers of values, in the order of the clusters' names."""
    array, names = np.asarray(values, dtype=np.float64), np.asarray(clusters)
    order = np.lexsort((array, names))  # sums of floats depend on their order
    _, index, counts = np.unique(names[order], return_inverse=True, return_counts=True)
    sums = np.bincount(index, weights=array[order])
    return sums.astype(np.float64), counts.astype(np.float64)


def clustered_variance(values: Sequence[float] | npt.NDArray[np.float64], clusters: Clusters) -> tuple[float, int]:
    """The variance of the mean, clustered (Liang and Zeger 1986, with G / (G - 1)), and G, the number of clusters.

    Infinite where there is one cluster.
    """
    array = np.asarray(values, dtype=np.float64)
    sums, counts = by_cluster(array, clusters)
    groups = len(sums)
    spread = float(np.square(sums - counts * mean(array)).sum()) / len(array) ** 2
    return (spread * groups / (groups - 1) if groups > 1 else math.inf), groups


@cache
def student(freedom: int, p: float) -> float:
    """The point below which Student's t lies with probability p."""
    from scipy.special import stdtrit

    return float(stdtrit(freedom, p))


def gate_interval(values: npt.NDArray[np.float64], clusters: Clusters, *, share: bool) -> tuple[float, float]:
    """What a gate holds a limit against: the clustered bootstrap's interval, never narrower than Student's or Wilson's.

    A resample cannot draw what it has not seen: a few clusters make intervals that are too narrow, which Student's of
    their means is not (of one cluster it has no ends), and ten pairs that are all right make one from 1 to 1, which
    Wilson's, of a share, is not.
    """
    low, high = clustered_bootstrap(values, clusters)
    variance, groups = clustered_variance(values, clusters)
    half = student(max(1, groups - 1), 0.975) * math.sqrt(variance)
    low, high = min(low, mean(values) - half), max(high, mean(values) + half)
    if not share:
        return low, high
    n = len(values) if variance else groups  # where no prompt differs from another, they are all that was seen
    wilson_low, wilson_high = wilson(mean(values) * n, n)
    return max(0.0, min(low, wilson_low)), min(1.0, max(high, wilson_high))
