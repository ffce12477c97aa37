"""Paired differences against scipy, statsmodels, brute force, and simulation."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stages.metrics.paired import paired_bootstrap, paired_difference, seed_variance

BEFORE = np.array([1.0, 0.0, 1.0, 0.5, 1.0, 1.0])
AFTER = np.array([1.0, 1.0, 0.0, 0.5, 0.0, 0.0])
PROMPTS = ["a", "a", "b", "c", "d", "e"]


def test_by_hand():
    found = paired_difference(BEFORE, AFTER, PROMPTS, share=False)
    assert (found.n, found.n_prompts, found.gained, found.lost) == (6, 5, 1, 3)
    assert (found.before, found.after) == pytest.approx((4.5 / 6, 2.5 / 6))
    assert found.difference == pytest.approx(-1 / 3)
    # differences 0 1 | -1 | 0 | -1 | -1 less their mean: sums of clusters 5/3, -2/3, 1/3, -2/3, -2/3
    squares = (25 + 4 + 1 + 4 + 4) / 9
    assert found.standard_error == pytest.approx(math.sqrt(squares * 5 / 4) / 6)


def test_a_share_counts_one_pair_gained_and_one_lost_by_halves():
    """Agresti and Min's four half pairs: (n + 2) pairs, and 1 more in the sum of squares."""
    plain, share = (paired_difference(BEFORE, AFTER, PROMPTS, share=share) for share in (False, True))
    assert share.standard_error == pytest.approx(math.sqrt(36 * plain.standard_error**2 + 1) / 8)
    assert share.difference == plain.difference


def test_no_change_is_no_proof_of_none():
    same = np.ones(20)
    found = paired_difference(same, same, [str(i) for i in range(20)], share=True)
    low, high = found.interval()
    assert low < -0.05 and high > 0.05 and found.mcnemar_p() == 1.0


def test_the_standard_error_is_that_of_a_regression_with_clusters():
    """statsmodels' cluster-robust covariance of a mean (an intercept alone), with the same small-sample factor."""
    import statsmodels.api as sm

    rng = np.random.default_rng(0)
    groups = rng.integers(0, 40, 200)
    before, after = rng.normal(size=(2, 200)) + rng.normal(size=40)[groups]
    found = paired_difference(before, after, [str(g) for g in groups], share=False)
    fit = sm.OLS(after - before, np.ones(200)).fit(
        cov_type="cluster", cov_kwds={"groups": groups, "use_correction": False}, use_t=True
    )
    n_groups = len(set(groups))
    assert found.standard_error == pytest.approx(fit.bse[0] * math.sqrt(n_groups / (n_groups - 1)))
    assert found.n_prompts == n_groups


def test_of_prompts_with_one_pair_each_it_is_the_paired_t_test():
    from scipy import stats

    rng = np.random.default_rng(1)
    before, after = rng.normal(size=(2, 50))
    found = paired_difference(before, after, [str(i) for i in range(50)], share=False)
    for level in (0.9, 0.95, 0.999):
        expected = stats.ttest_rel(after, before).confidence_interval(level)
        assert found.interval(level) == pytest.approx((expected.low, expected.high))


@settings(max_examples=30, deadline=None)
@given(st.lists(st.tuples(st.sampled_from([0.0, 0.5, 1.0]), st.sampled_from([0.0, 0.5, 1.0])), min_size=2, max_size=60))
def test_mcnemar_is_that_of_statsmodels(pairs):
    from statsmodels.stats.contingency_tables import mcnemar

    before, after = np.array(pairs).T
    found = paired_difference(before, after, [str(i) for i in range(len(pairs))], share=True)
    table = [[0, found.lost], [found.gained, 0]]
    expected = mcnemar(table, exact=True).pvalue if found.lost + found.gained else 1.0
    assert found.mcnemar_p() == pytest.approx(expected)
    assert found.gained == sum(b > a for a, b in pairs) and found.lost == sum(b < a for a, b in pairs)


def test_both_sides_swapped_is_the_difference_the_other_way():
    one, other = (
        paired_difference(BEFORE, AFTER, PROMPTS, share=True),
        paired_difference(AFTER, BEFORE, PROMPTS, share=True),
    )
    assert one.difference == -other.difference and one.standard_error == pytest.approx(other.standard_error)
    low, high = one.interval()
    assert other.interval() == pytest.approx((-high, -low)) and one.mcnemar_p() == other.mcnemar_p()


def test_the_order_of_pairs_changes_no_bit():
    rng = np.random.default_rng(2)
    before, after = rng.normal(size=(2, 300))
    prompts = [f"p{i % 70}" for i in range(300)]
    order = rng.permutation(300)
    moved = [prompts[i] for i in order]
    assert paired_difference(before, after, prompts, share=False) == paired_difference(
        before[order], after[order], moved, share=False
    )
    assert paired_bootstrap(before, after, prompts) == paired_bootstrap(before[order], after[order], moved)


def test_seed_noise_widens_the_interval_by_both_runs():
    found = paired_difference(BEFORE, AFTER, PROMPTS, share=False)
    noise = [{}, {"seed_sd": 0.1}, {"seed_sd": 0.1, "n_before": 4}]
    one, two, several = ((high - low) / 2 for low, high in (found.interval(**each) for each in noise))
    variance = found.standard_error**2
    assert two / one == pytest.approx(math.sqrt((variance + 2 * 0.01) / variance))
    assert several / one == pytest.approx(math.sqrt((variance + 1.25 * 0.01) / variance))


def test_one_prompt_gives_no_interval():
    found = paired_difference(BEFORE, AFTER, ["a"] * 6, share=True)
    assert found.interval() == (-1.0, 1.0) and found.n_prompts == 1  # all that a share can do
    assert paired_difference(BEFORE, AFTER, ["a"] * 6, share=False).interval() == (-math.inf, math.inf)


def test_what_is_detectable_is_detected_in_80_of_100_cases():
    rng = np.random.default_rng(3)
    n, prompts = 200, [str(i) for i in range(200)]
    probe = paired_difference(*rng.normal(size=(2, n)), prompts, share=False)
    true = probe.detectable()
    before, after = rng.normal(size=(2, 1000, n))
    seen = [
        paired_difference(b, a + true, prompts, share=False).interval()[0] > 0
        for b, a in zip(before, after, strict=True)
    ]
    assert np.mean(seen) == pytest.approx(0.8, abs=0.06)  # the probe's own error, and 4 times 0.4/sqrt(1000)


@pytest.mark.parametrize("per_prompt", [1, 4])
def test_intervals_cover_the_true_difference_in_95_of_100_cases(per_prompt):
    """Shares of pairs whose prompts have a common fate; 99.9 % of such simulations fall into the band."""
    rng = np.random.default_rng(4)
    n, times = 240, 800
    prompts = [f"p{i // per_prompt}" for i in range(n)]
    covered = {"student": 0, "bootstrap": 0}
    for i in range(times):
        fate = np.repeat(rng.normal(size=n // per_prompt), per_prompt)
        before = (fate + 0.5 * rng.normal(size=n) > -0.6).astype(float)
        after = (fate + 0.5 * rng.normal(size=n) > -0.4).astype(float)
        true = _share(0.4) - _share(0.6)  # of a standard deviation of sqrt(1.25)
        found = paired_difference(before, after, prompts, share=True)
        low, high = found.interval()
        covered["student"] += low <= true <= high
        if i < 200:
            low, high = paired_bootstrap(before, after, prompts)
            covered["bootstrap"] += low <= true <= high
    assert covered["student"] / times == pytest.approx(0.95, abs=3.3 * math.sqrt(0.95 * 0.05 / times))
    assert covered["bootstrap"] / 200 == pytest.approx(0.95, abs=0.06)


def test_the_noise_of_seeds_beyond_single_pairs_is_found():
    """Runs whose pairs flip by themselves have none; runs that move as wholes have what they move by."""
    rng = np.random.default_rng(7)
    n, prompts = 400, np.arange(400)
    for moved in (0.0, 0.05):
        found = []
        for _ in range(300):
            own = rng.normal(size=n)
            runs = [own + rng.normal(0, moved) + 0.3 * rng.normal(size=n) for _ in range(3)]
            found += seed_variance(runs, prompts, share=False)
        assert np.mean(found) == pytest.approx(moved**2, abs=2.5e-4)


def _share(threshold: float) -> float:
    from scipy.stats import norm

    return float(norm.cdf(threshold / math.sqrt(1.25)))
