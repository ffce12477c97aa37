"""Pairs in strata: values cut into some of about the same size, and what is told of each."""

import numpy as np
import numpy.typing as npt

from stages.metrics.intervals import wilson

FEWEST = 10
"""Pairs that a stratum has on average, at least: fewer pairs make fewer strata."""


def strata(values: npt.NDArray[np.float64], most: int) -> npt.NDArray[np.int64]:
    """The stratum of each value (N,), counted from 0 upwards: at most so many, none empty, equal values in the same.

    They are cut at quantiles, the lower edge inside, whatever the order of the values.
    """
    n = len(values)
    wanted = max(1, min(most, n // FEWEST))
    ordered = np.sort(values)
    cuts = np.unique([ordered[n * i // wanted] for i in range(1, wanted)])
    return np.searchsorted(cuts[cuts > ordered[0]], values, side="right") if n else np.zeros(0, np.int64)


def named_share(name: str, share: float, n: float) -> dict[str, float]:
    """A share of n pairs and its 95 % interval (Wilson), as metrics are named."""
    low, high = wilson(share * n, n)
    return {name: share, f"{name}_low": low, f"{name}_high": high}
