"""Metrics by hand, ties, and independence from order."""

import math
import random

import pytest

from stages.metrics.gates import judge
from stages.metrics.intervals import clustered_bootstrap, wilson
from stages.metrics.pairwise import PairScores, win
from stages.metrics.preference import METRIC_NAMES, preference_metrics
from stages.metrics.records import PairRecord


def record(row: int, scores: PairScores, prompt: str = "", lengths: tuple[int, int] = (2, 4)) -> PairRecord:
    return PairRecord(row, f"key{row}", prompt or f"prompt{row}", scores, *lengths, loss=0.5 + row)


RECORDS = [
    record(0, PairScores(-10, -15, -12, -14)),  # rewards 0.2, -0.1: margin 0.3
    record(1, PairScores(-10, -15, -10, -15)),  # a tie
    record(2, PairScores(-20, -9, -19, -9)),  # rewards -0.1, 0: margin -0.1
]


def test_metrics_by_hand():
    metrics = preference_metrics(RECORDS, beta=0.1)
    assert metrics["reward_accuracy"] == pytest.approx((1 + 0.5 + 0) / 3)
    assert metrics["ties"] == 1
    assert metrics["ranking_accuracy"] == pytest.approx(2 / 3)
    assert metrics["ref_ranking_accuracy"] == pytest.approx(2 / 3)
    # per token: -5 > -3.75 is false for each of the first two (2 and 4 tokens), -10 > -2.25 is false
    assert metrics["ranking_accuracy_normalized"] == 0
    assert metrics["reward_margin"] == pytest.approx((0.3 + 0 - 0.1) / 3)
    assert metrics["reward_margin_median"] == pytest.approx(0)
    assert metrics["chosen_reward"] == pytest.approx((0.2 + 0 - 0.1) / 3)
    assert metrics["rejected_reward"] == pytest.approx(-0.1 / 3)
    assert metrics["loss"] == pytest.approx((0.5 + 1.5 + 2.5) / 3)


def test_drift_by_hand():
    """2 tokens of chosen, 4 of rejected; log-ratios a token: 1 and -1/4, 0 and 0, -1/2 and 0."""
    metrics = preference_metrics(RECORDS, beta=0.1)
    assert metrics["drift"] == pytest.approx((1 + 0.25 + 0.5) / 6)
    assert metrics["drift_chosen"] == pytest.approx((1 - 0.5) / 3)
    assert metrics["drift_rejected"] == pytest.approx(-0.25 / 3)
    assert preference_metrics(RECORDS, beta=7.0)["drift"] == metrics["drift"]  # of the policy, whatever beta


def test_without_a_reference_there_is_no_drift():
    assert not [name for name in preference_metrics(RECORDS, beta=0.1, rewards=False) if name.startswith("drift")]


def test_the_list_of_names_is_the_list_of_metrics():
    assert set(preference_metrics(RECORDS, beta=0.1)) == set(METRIC_NAMES)


def test_order_does_not_matter_to_the_last_bit():
    rng = random.Random(0)
    records = [
        record(i, PairScores(*(rng.uniform(-90, -1) for _ in range(4))), prompt=f"p{i % 17}") for i in range(100)
    ]
    expected = preference_metrics(records, beta=0.1)
    for _ in range(3):
        rng.shuffle(records)
        assert preference_metrics(records, beta=0.1) == expected


def test_an_untrained_policy_scores_one_half_by_ties():
    metrics = preference_metrics([record(i, PairScores(-1, -2, -1, -2)) for i in range(4)], beta=0.1)
    assert metrics["reward_accuracy"] == 0.5 and metrics["ties"] == 4


@pytest.mark.parametrize(("difference", "expected"), [(0.1, 1.0), (0.0, 0.5), (-0.0, 0.5), (-0.1, 0.0)])
def test_ties_count_one_half(difference, expected):
    assert win(difference) == expected


def test_wilson_against_the_published_formula():
    """8 of 10 (Wilson 1927): centre (0.8 + 0.19207) / 1.38415 = 0.71674, half-width 0.22661 -> 0.49016 to 0.94332."""
    low, high = wilson(8, 10)
    assert (low, high) == pytest.approx((0.49016, 0.94332), abs=2e-5)
    assert wilson(0, 5)[0] == 0 and wilson(5, 5)[1] == 1


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


def test_gates_are_judged_on_the_strict_side():
    metrics = preference_metrics(RECORDS, beta=0.1)
    low, high = judge(metrics, {"reward_accuracy": 0.4}, {"ranking_accuracy": 0.7})
    assert low.measured_on == "reward_accuracy_gate_low" and not low.passed  # 0.5 itself would have passed
    assert high.measured_on == "ranking_accuracy_high" and not high.passed
    (plain,) = judge(metrics, {"reward_margin": 0.06}, {})
    assert plain.measured_on == "reward_margin" and plain.passed


def test_a_gate_on_a_metric_that_does_not_exist_is_never_passed():
    with pytest.raises(KeyError):
        judge({"loss": 0.1}, {"accuracy": 0.0}, {})
