"""Values cut into strata of about the same size, at values and not between equal ones."""

import numpy as np
import numpy.typing as npt

FEWEST = 10
"""Pairs that a stratum has on average, at least: fewer pairs make fewer strata."""


def strata(values: npt.NDArray[np.float64], most: int) -> npt.NDArray[np.int64]:
    """The stratum of each value (N,), counted from 0 upwards: at most so many, none empty, the same value in one.

    They are cut at quantiles, the lower edge inside, whatever the order of the values.
    """
    n = len(values)
    wanted = max(1, min(most, n // FEWEST))
    ordered = np.sort(values)
    cuts = np.unique([ordered[n * i // wanted] for i in range(1, wanted)])
    return np.searchsorted(cuts[cuts > ordered[0]], values, side="right") if n else np.zeros(0, np.int64)
