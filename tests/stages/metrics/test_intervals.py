"""Intervals: against statsmodels, by their definition, and by how often they cover."""

import math
import random

import numpy as np
import pytest

from stages.metrics.intervals import clustered_bootstrap, gate_interval, mean, wilson


def test_wilson_against_the_published_formula():
    """8 of 10 (Wilson 1927): centre (0.8 + 0.19207) / 1.38415 = 0.71674, half-width 0.22661 -> 0.49016 to 0.94332."""
    low, high = wilson(8, 10)
    assert (low, high) == pytest.approx((0.49016, 0.94332), abs=2e-5)
    assert wilson(0, 5)[0] == 0 and wilson(5, 5)[1] == 1


@pytest.mark.parametrize(("successes", "n"), [(0, 7), (3.5, 7), (37.5, 60), (981, 1000), (12, 12)])
def test_wilson_is_that_of_statsmodels(successes, n):
    from statsmodels.stats.proportion import proportion_confint

    assert wilson(successes, n) == pytest.approx(proportion_confint(successes, n, method="wilson"))


def test_wilson_bounds_solve_its_equation():
    """The bounds are the shares p whose own standard error puts the observation 1.96 of it away."""
    for bound in wilson(37.5, 60):
        assert abs(0.625 - bound) == pytest.approx(1.959963984540054 * math.sqrt(bound * (1 - bound) / 60))


def test_clustered_bootstrap_widens_where_pairs_share_a_prompt():
    rng = random.Random(1)
    by_prompt = [float(rng.random() < 0.6) for _ in range(50)]
    values = [value for value in by_prompt for _ in range(6)]
    clustered = clustered_bootstrap(values, [str(i // 6) for i in range(300)])
    independent = clustered_bootstrap(values, [str(i) for i in range(300)])
    ratio = (clustered[1] - clustered[0]) / (independent[1] - independent[0])
    assert ratio == pytest.approx(math.sqrt(6), rel=0.1)


def test_the_bootstrap_agrees_with_that_of_scipy():
    from scipy import stats

    values = np.random.default_rng(0).normal(size=120)
    expected = stats.bootstrap((values,), np.mean, n_resamples=4000, method="percentile", rng=1).confidence_interval
    found = clustered_bootstrap(values, [str(i) for i in range(120)])
    assert found == pytest.approx((expected.low, expected.high), abs=0.015)


def test_many_clusters_are_drawn_in_pieces_and_give_the_same(monkeypatch):
    values, prompts = np.random.default_rng(0).normal(size=300), [str(i // 2) for i in range(300)]
    whole = clustered_bootstrap(values, prompts)
    monkeypatch.setattr("stages.metrics.intervals._DRAWS_AT_A_TIME", 1000)
    assert clustered_bootstrap(values, prompts) == pytest.approx(whole, abs=0.02)


def test_a_gate_on_pairs_that_are_all_right_is_no_proof():
    """A bootstrap of ones is 1 to 1; Wilson's interval of 10 of 10 begins at 0.722."""
    wins, prompts = np.ones(10), [str(i) for i in range(10)]
    assert clustered_bootstrap(wins, prompts) == (1.0, 1.0)
    assert gate_interval(wins, prompts, share=True) == pytest.approx((0.7225, 1.0), abs=1e-4)
    assert gate_interval(wins * 3.0, prompts, share=False) == (3.0, 3.0)


@pytest.mark.parametrize("share", [0.5, 0.75, 0.96])
def test_intervals_of_a_share_cover_it_in_95_of_100_cases(share):
    """Wilson's on average (Brown, Cai and DasGupta 2001), and the gate's at least: 3.3 standard errors allowed."""
    rng = np.random.default_rng(5)
    n, times = 150, 400
    prompts = [str(i) for i in range(n)]
    read = gate = 0
    for _ in range(times):
        wins = (rng.random(n) < share).astype(float)
        low, high = wilson(wins.sum(), n)
        read += low <= share <= high
        low, high = gate_interval(wins, prompts, share=True)
        gate += low <= share <= high
    error = 3.3 * math.sqrt(0.95 * 0.05 / times)
    assert read / times == pytest.approx(0.95, abs=error)
    assert gate / times >= 0.95 - error


def test_the_gate_covers_where_pairs_share_a_prompt_and_wilson_does_not():
    rng = np.random.default_rng(6)
    times, read, gate = 300, 0, 0
    prompts = [str(i // 5) for i in range(300)]
    for _ in range(times):
        wins = np.repeat(rng.random(60) < 0.7, 5).astype(float)
        low, high = wilson(wins.sum(), 300)
        read += low <= 0.7 <= high
        low, high = gate_interval(wins, prompts, share=True)
        gate += low <= 0.7 <= high
    assert read / times < 0.75
    assert gate / times >= 0.95 - 3.3 * math.sqrt(0.95 * 0.05 / times)


@pytest.mark.parametrize(("prompts", "pairs"), [(5, 4), (10, 4)])
def test_the_gate_covers_the_mean_of_a_few_prompts_and_a_bootstrap_does_not(prompts, pairs):
    rng = np.random.default_rng(7)
    times, resampled, gate = 500, 0, 0
    names = [str(i // pairs) for i in range(prompts * pairs)]
    for _ in range(times):
        values = np.repeat(rng.normal(size=prompts), pairs) + rng.normal(size=prompts * pairs)
        low, high = clustered_bootstrap(values, names)
        resampled += low <= 0 <= high
        low, high = gate_interval(values, names, share=False)
        gate += low <= 0 <= high
    assert gate / times >= 0.95 - 3.3 * math.sqrt(0.95 * 0.05 / times) > resampled / times


def test_pairs_of_one_prompt_say_nothing_of_others():
    """A resample of one prompt is that prompt: no interval, which is not one of no width."""
    assert gate_interval(np.array([1.0, 2.0]), ["a", "a"], share=False) == (-math.inf, math.inf)
    assert gate_interval(np.array([1.0, 1.0]), ["a", "a"], share=True) == (0.0, 1.0)


def test_a_mean_is_rounded_once():
    assert mean(np.array([1e16, 1.0, -1e16])) == pytest.approx(1 / 3)
    assert math.isnan(mean(np.array([math.inf, -math.inf])))


def test_prompts_whose_pairs_are_all_right_are_as_many_proofs_as_prompts():
    """Five prompts of 20 pairs each: Wilson's interval of 5 of 5 begins at 0.566, of 100 of 100 at 0.963."""
    low, high = gate_interval(np.ones(100), [str(i // 20) for i in range(100)], share=True)
    assert low == pytest.approx(0.5655, abs=1e-4) and high == 1.0
