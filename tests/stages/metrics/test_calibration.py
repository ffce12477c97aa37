"""Calibration by hand, against plain Python, and from either side of a pair."""

import math
import warnings

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stages.metrics.calibration import EDGES, expected_calibration_error, reliability
from stages.metrics.values import pair_values

MARGINS = st.lists(st.floats(-40, 40) | st.sampled_from([0.0, -0.0, 1e4, -1e4, 1e-300]), min_size=1, max_size=60)


def logit(p):
    return math.log(p / (1 - p))


def calibration_metrics(margins):
    means = {name: pair_values(pl.DataFrame({"margin": margins}), name).mean() for name in ("brier", "log_loss")}
    return means | {"ece": expected_calibration_error(margins)}


def brute(margins):
    """The three by their definitions, a pair at a time."""
    p = [1 / (1 + math.exp(-m)) if m > -700 else 0.0 for m in margins]
    bins = {}
    for m, each in zip(margins, p, strict=True):
        sure = max(each, 1 - each)
        place = sum(sure >= edge for edge in EDGES[1:-1])
        bins.setdefault(place, []).append((sure, 0.5 if m == 0 else float(m > 0)))
    ece = sum(abs(sum(s for s, _ in rows) - sum(r for _, r in rows)) for rows in bins.values()) / len(p)
    log_loss = sum(-m if m < -700 else math.log1p(math.exp(-m)) for m in margins) / len(p)
    return {"brier": sum((1 - each) ** 2 for each in p) / len(p), "log_loss": log_loss, "ece": ece}


def test_by_hand():
    """Sure of chosen by 0.9 and by 0.6, of rejected by 0.8: (0.1^2 + 0.4^2 + 0.8^2) / 3, and so on."""
    metrics = calibration_metrics(np.array([logit(0.9), logit(0.6), logit(0.2)]))
    assert metrics["brier"] == pytest.approx(0.81 / 3)
    assert metrics["log_loss"] == pytest.approx(-math.log(0.9 * 0.6 * 0.2) / 3)
    assert metrics["ece"] == pytest.approx((0.1 + 0.4 + 0.8) / 3)


def test_the_curve_by_hand():
    margins = np.array([logit(0.62), -logit(0.64), logit(0.64), 0.0, logit(0.97)])
    low, middle, high = reliability(margins)
    assert low == {"low": 0.5, "high": 0.55, "n": 1, "confidence": 0.5, "accuracy": 0.5}
    assert (middle["low"], middle["high"], middle["n"]) == (0.6, 0.65, 3)
    assert (middle["confidence"], middle["accuracy"]) == (pytest.approx(1.9 / 3), pytest.approx(2 / 3))
    assert (high["low"], high["high"], high["n"], high["accuracy"]) == (0.95, 1.0, 1, 1.0)


@pytest.mark.parametrize("margin", [math.log(3), -math.log(3)])
def test_a_bin_has_its_lower_edge(margin):
    (row,) = reliability(np.array([margin]))
    assert row["confidence"] == row["low"] == 0.75


def test_an_untrained_policy_is_calibrated_and_knows_nothing():
    assert calibration_metrics(np.zeros(7)) == {"brier": 0.25, "log_loss": pytest.approx(math.log(2)), "ece": 0.0}


def test_no_pairs_have_no_curve():
    assert reliability(np.array([])) == []


def test_margins_beyond_any_probability_are_numbers_and_raise_no_warning():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        metrics = calibration_metrics(np.array([1e4, -1e4]))
    assert metrics == {"brier": 0.5, "log_loss": 5000.0, "ece": 0.5}


def test_margins_that_say_the_truth_have_no_error_in_the_end():
    """Outcomes drawn with the probabilities that margins name: what is left is the noise of 40,000 pairs."""
    rng = np.random.default_rng(0)
    size = np.abs(rng.normal(0, 2, 40_000))
    right = rng.random(40_000) < 1 / (1 + np.exp(-size))
    honest = np.where(right, size, -size)
    assert calibration_metrics(honest)["ece"] < 0.01
    assert calibration_metrics(3 * honest)["ece"] > 0.1  # too sure of itself
    # the honest margins are the best that a monotonous change of them can do (a proper score, Brier 1950)
    for factor in (0.5, 0.8, 1.25, 2):
        for name in ("brier", "log_loss"):
            assert calibration_metrics(honest)[name] < calibration_metrics(factor * honest)[name]


@given(MARGINS)
def test_against_plain_python(margins):
    assert calibration_metrics(np.array(margins)) == pytest.approx(brute(margins), rel=1e-9, abs=1e-12)


@given(MARGINS)
def test_every_pair_exchanged_mirrors_the_curve(margins):
    there, back = reliability(np.array(margins)), reliability(-np.array(margins))
    assert [row | {"accuracy": pytest.approx(1 - row["accuracy"])} for row in there] == back
    assert sum(row["n"] for row in there) == len(margins)
    assert all(row["low"] <= row["confidence"] <= row["high"] for row in there)


@given(MARGINS, st.randoms())
def test_order_changes_no_bit_and_pairs_that_stand_twice_change_nothing(margins, rng):
    error, curve = expected_calibration_error(np.array(margins)), reliability(np.array(margins))
    assert expected_calibration_error(np.array(margins * 2)) == pytest.approx(error)
    rng.shuffle(margins)
    assert expected_calibration_error(np.array(margins)) == error and reliability(np.array(margins)) == curve
