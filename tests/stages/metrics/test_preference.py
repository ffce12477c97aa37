"""Metrics by hand, ties, and independence from order."""

import math
import random

import pytest

from stages.metrics.names import METRIC_NAMES, RANKING_NAMES
from stages.metrics.pairwise import PairScores, win
from stages.metrics.preference import preference_metrics
from stages.metrics.records import records_frame
from stages.metrics.values import PAIR_VALUES, pair_values
from tests.stages.metrics.frames import frame, record

SCORES = [
    PairScores(-10, -15, -12, -14),  # rewards 0.2, -0.1: margin 0.3
    PairScores(-10, -15, -10, -15),  # a tie
    PairScores(-20, -9, -19, -9),  # rewards -0.1, 0: margin -0.1
]


def test_metrics_by_hand():
    metrics = preference_metrics(frame(SCORES))
    assert metrics["reward_accuracy"] == pytest.approx((1 + 0.5 + 0) / 3)
    assert metrics["ties"] == 1
    assert metrics["ranking_accuracy"] == pytest.approx(2 / 3)
    assert metrics["ref_ranking_accuracy"] == pytest.approx(2 / 3)
    assert metrics["ranking_accuracy_gain"] == pytest.approx(0)
    # per token: -5 > -3.75 is false for each of the first two (2 and 4 tokens), -10 > -2.25 is false
    assert metrics["ranking_accuracy_normalized"] == 0
    assert metrics["reward_margin"] == pytest.approx((0.3 + 0 - 0.1) / 3)
    assert metrics["reward_margin_median"] == pytest.approx(0)
    assert metrics["chosen_reward"] == pytest.approx((0.2 + 0 - 0.1) / 3)
    assert metrics["rejected_reward"] == pytest.approx(-0.1 / 3)
    assert metrics["loss"] == pytest.approx((0.5 + 1.5 + 2.5) / 3)
    assert metrics["chosen_nll"] == pytest.approx((5 + 5 + 10) / 3)
    assert metrics["ref_rejected_nll"] == pytest.approx((3.5 + 3.75 + 2.25) / 3)


def test_what_the_margins_say_is_judged_as_a_probability():
    """s(0.3), s(0) and s(-0.1) are what the policy gives to the chosen responses."""
    metrics = preference_metrics(frame(SCORES))
    p = [1 / (1 + math.exp(-margin)) for margin in (0.3, 0.0, -0.1)]
    assert metrics["brier"] == pytest.approx(sum((1 - each) ** 2 for each in p) / 3)
    assert metrics["log_loss"] == pytest.approx(-sum(math.log(each) for each in p) / 3)


def test_margins_of_ten_thousand_are_finite():
    pairs = frame([PairScores(-1e5, -1, -1, -1e5), PairScores(-1, -1e5, -1e5, -1)], beta=1.0)
    metrics = preference_metrics(pairs)
    assert all(map(math.isfinite, metrics.values()))
    assert metrics["brier"] == pytest.approx(0.5)


def test_drift_by_hand():
    """2 tokens of chosen, 4 of rejected; log-ratios a token: 1 and -1/4, 0 and 0, -1/2 and 0."""
    metrics = preference_metrics(frame(SCORES))
    assert metrics["drift"] == pytest.approx((1 + 0.25 + 0.5) / 6)
    assert metrics["drift_chosen"] == pytest.approx((1 - 0.5) / 3)
    assert metrics["drift_rejected"] == pytest.approx(-0.25 / 3)
    assert preference_metrics(frame(SCORES, beta=7.0))["drift"] == metrics["drift"]  # of the policy, whatever beta


def test_without_a_reference_there_are_rankings_and_likelihoods_only():
    metrics = preference_metrics(frame([PairScores(-10, -15), PairScores(-20, -9)]))
    assert set(metrics) == set(RANKING_NAMES)
    assert not [name for name in metrics if name.startswith(("ref_", "reward_", "drift", "brier"))]


def test_the_list_of_names_is_the_list_of_metrics():
    scores = [PairScores(-10, -15, -12, -14), PairScores(-11, -15, -12, -14), PairScores(-9, -15, -12, -14)]
    lengths = [(2, 4), (4, 2), (3, 3)]
    records = [record(i, *each) for i, each in enumerate(zip(scores, ["", "", ""], lengths, strict=True))]
    assert set(preference_metrics(records_frame(records, 0.1))) == set(METRIC_NAMES)


def test_order_does_not_matter_to_the_last_bit():
    rng = random.Random(0)
    records = [
        record(i, PairScores(*(rng.uniform(-90, -1) for _ in range(4))), prompt=f"p{i % 17}") for i in range(100)
    ]
    expected = preference_metrics(records_frame(records, 0.1))
    for _ in range(3):
        rng.shuffle(records)
        assert preference_metrics(records_frame(records, 0.1)) == expected


def test_a_metric_is_the_mean_of_its_values():
    pairs = frame(SCORES)
    metrics = preference_metrics(pairs)
    for name in PAIR_VALUES:
        assert metrics[name] == pytest.approx(pair_values(pairs, name).mean())


def test_an_untrained_policy_scores_one_half_by_ties():
    metrics = preference_metrics(frame([PairScores(-1, -2, -1, -2)] * 4))
    assert metrics["reward_accuracy"] == 0.5 and metrics["ties"] == 4


def test_what_is_not_a_number_has_not_won():
    assert pair_values(
        frame([PairScores(math.nan, -2, -1, -2), PairScores(-1, -3, -1, -2)]), "ranking_accuracy"
    ).tolist() == [0.0, 1.0]


@pytest.mark.parametrize(("difference", "expected"), [(0.1, 1.0), (0.0, 0.5), (-0.0, 0.5), (-0.1, 0.0)])
def test_ties_count_one_half(difference, expected):
    assert win(difference) == expected
