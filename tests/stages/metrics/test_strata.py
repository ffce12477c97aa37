"""Strata are of values: complete, ordered, never empty, and the same for the same values in any order."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stages.metrics.strata import FEWEST, strata

VALUES = st.lists(st.integers(-9, 9) | st.floats(allow_nan=False), max_size=120)


def test_quartiles_of_distinct_values_by_hand():
    assert strata(np.arange(40.0), 4).tolist() == [0] * 10 + [1] * 10 + [2] * 10 + [3] * 10
    assert strata(np.arange(43.0), 4).tolist() == [0] * 10 + [1] * 11 + [2] * 11 + [3] * 11


@pytest.mark.parametrize(("n", "found"), [(0, 0), (1, 1), (19, 1), (20, 2), (39, 3), (40, 4), (400, 4)])
def test_few_values_make_fewer_strata(n, found):
    assert len(set(strata(np.arange(float(n)), 4).tolist())) == found


def test_equal_values_stand_together():
    assert strata(np.array([0.0] * 70 + [1, 2] * 15), 4).tolist() == [0] * 70 + [1] * 30
    assert strata(np.array([0.0] * 45 + [5] * 45), 4).tolist() == [0] * 45 + [1] * 45
    assert set(strata(np.full(90, 3.0), 4).tolist()) == {0}


@given(VALUES, st.integers(1, 6))
def test_they_are_intervals_and_none_is_empty(values, most):
    found = strata(np.array(values, dtype=np.float64), most)
    assert len(found) == len(values)
    assert sorted(set(found.tolist())) == list(range(len(set(found.tolist()))))
    assert len(set(found.tolist())) <= max(1, min(most, len(values) // FEWEST))
    of = {}
    for value, stratum in zip(values, found.tolist(), strict=True):
        of.setdefault(stratum, []).append(value)
    assert all(max(of[i]) < min(of[i + 1]) for i in range(len(of) - 1))


@given(VALUES, st.randoms())
def test_order_is_of_no_consequence(values, rng):
    before = dict(zip(values, strata(np.array(values, dtype=np.float64), 4).tolist(), strict=True))
    rng.shuffle(values)
    assert dict(zip(values, strata(np.array(values, dtype=np.float64), 4).tolist(), strict=True)) == before
