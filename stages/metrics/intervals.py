"""Intervals of shares: Wilson to read, a bootstrap clustered by prompt to gate on."""

import math
from collections.abc import Sequence

import numpy as np

Z95 = 1.959963984540054  # the 97.5 % point of the normal distribution
RESAMPLES = 2_000
SEED = 20_250_101


def wilson(successes: float, n: int) -> tuple[float, float]:
    """Wilson's 95 % interval of a share (Wilson 1927); ties may count one half, so `successes` need not be whole."""
    share, z2n = successes / n, Z95**2 / n
    centre = (share + z2n / 2) / (1 + z2n)
    half = Z95 * math.sqrt(share * (1 - share) / n + z2n / (4 * n)) / (1 + z2n)
    return max(0.0, centre - half), min(1.0, centre + half)


def clustered_bootstrap(values: Sequence[float], clusters: Sequence[str]) -> tuple[float, float]:
    """95 % percentile interval of the mean, resampling clusters (prompts): pairs of one prompt are not independent.

    The order of the values is of no consequence: clusters are taken by name, and the generator is seeded.
    """
    names, index = np.unique(np.asarray(clusters), return_inverse=True)
    sums = np.bincount(index, weights=np.asarray(values, dtype=np.float64))
    counts = np.bincount(index).astype(np.float64)
    generator = np.random.Generator(np.random.PCG64(SEED))
    means = np.empty(RESAMPLES)
    for i in range(RESAMPLES):
        drawn = generator.integers(0, len(names), len(names))
        means[i] = sums[drawn].sum() / counts[drawn].sum()
    low, high = np.quantile(means, (0.025, 0.975))
    return float(low), float(high)
