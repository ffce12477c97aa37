import numpy as np
import pytest

from stages.metrics.paired import paired_difference
from stages.metrics.ranks import contests, holm, rank_range


def test_holms_correction_is_that_of_statsmodels():
    from statsmodels.stats.multitest import multipletests

    rng = np.random.default_rng(0)
    for _ in range(15):
        p_values = rng.uniform(0, 0.2, rng.integers(1, 12)).round(2)  # with ties, and some 0
        _, expected, *_ = multipletests(p_values, 0.05, method="holm")
        assert holm(p_values.tolist()) == pytest.approx(expected, abs=1e-12)


def test_the_clustered_p_value_is_that_of_a_t_test_of_prompts_where_each_has_one_pair():
    """Of a mean, not a share: G / (G - 1) makes the standard error that of scipy's test on one sample."""
    from scipy.stats import ttest_1samp

    rng = np.random.default_rng(0)
    before, after = rng.normal(size=40), rng.normal(0.3, size=40)
    found = paired_difference(before, after, [str(i) for i in range(40)], share=False)
    assert found.clustered_p() == pytest.approx(ttest_1samp(after - before, 0.0).pvalue, rel=1e-9)


def test_policies_are_told_apart_where_both_tests_do_after_the_correction():
    prompts = [str(i) for i in range(100)]
    wins = {
        "good": np.ones(100),
        "fair": np.r_[np.ones(70), np.zeros(30)],
        "same": np.r_[np.zeros(1), np.ones(69), np.zeros(30)],
    }
    found = {(each.first, each.second): each for each in contests(wins, prompts)}
    assert list(found) == [("good", "fair"), ("good", "same"), ("fair", "same")]
    assert found["good", "fair"].better == "good" == found["good", "same"].better
    assert found["fair", "same"].better is None
    assert found["fair", "same"].p == 1.0  # McNemar: one pair changed sides
    assert found["good", "fair"].found.difference == pytest.approx(0.3)
    ranks = {name: rank_range(name, list(found.values()), 3) for name in wins}
    assert ranks == {"good": (1, 1), "fair": (2, 3), "same": (2, 3)}


def test_pairs_that_share_a_prompt_are_not_taken_for_so_many_proofs():
    """Twenty pairs of two prompts: McNemar would be sure, and it is one prompt that was won."""
    first, second = np.ones(20), np.r_[np.zeros(10), np.ones(10)]
    (alone,) = contests({"a": first, "b": second}, [str(i) for i in range(20)])
    (shared,) = contests({"a": first, "b": second}, ["x"] * 10 + ["y"] * 10)
    assert alone.better == "a" and shared.better is None
    assert shared.found.mcnemar_p() == pytest.approx(2 / 2**10)


def test_two_policies_in_the_other_order_are_the_same_contest():
    rng = np.random.default_rng(1)
    a, b = (rng.integers(0, 2, 60).astype(float) for _ in range(2))
    prompts = [str(i // 2) for i in range(60)]
    (forth,), (back,) = contests({"a": a, "b": b}, prompts), contests({"b": b, "a": a}, prompts)
    assert (forth.p, forth.better) == (back.p, back.better)
    assert forth.found.difference == pytest.approx(-back.found.difference)
