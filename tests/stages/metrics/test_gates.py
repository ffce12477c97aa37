"""Gates: the strict side, drops and rises, and what is not known."""

import numpy as np
import pytest

from stages.metrics.gates import Change, judge_bounds, judge_change, overall
from stages.metrics.paired import paired_difference

METRICS = {"reward_accuracy": 0.7, "ranking_accuracy": 0.6, "ranking_accuracy_high": 0.8, "ece": 0.1}
INTERVALS = {"reward_accuracy": (0.62, 0.78)}


def judged(minima=None, maxima=None, *, point=False):
    return judge_bounds(METRICS, minima or {}, maxima or {}, INTERVALS, point=point)


def test_limits_are_held_against_the_strict_side():
    low, high = judged({"reward_accuracy": 0.65}, {"ranking_accuracy": 0.7})
    assert (low.measured_on, low.value, low.verdict) == ("reward_accuracy_gate_low", 0.62, "failed")  # 0.7 would pass
    assert (high.measured_on, high.value, high.verdict) == ("ranking_accuracy_high", 0.8, "failed")
    (plain,) = judged(maxima={"ece": 0.1})
    assert plain.measured_on == "ece" and plain.passed


def test_or_against_the_metric_itself_where_that_is_asked_for():
    (gate,) = judged({"reward_accuracy": 0.65}, point=True)
    assert (gate.measured_on, gate.value, gate.verdict) == ("reward_accuracy", 0.7, "passed")


def test_a_limit_on_a_metric_that_does_not_exist_is_never_passed():
    with pytest.raises(KeyError):
        judged({"accuracy": 0.0})


def change(before, after, level=0.95, **more):
    n = len(before)
    found = paired_difference(np.array(before), np.array(after), [str(i) for i in range(n)], share=True)
    return Change("baseline", "run", found, level, **more)


def test_a_drop_fails_where_all_of_the_interval_is_above_the_limit():
    """1000 pairs, 40 lost, 10 gained: a drop of 0.03, standard error 0.0070, so 0.016 to 0.044."""
    found = change([1.0] * 40 + [0.0] * 10 + [1.0] * 950, [0.0] * 40 + [1.0] * 10 + [1.0] * 950)
    failed, open_, passed = (judge_change("reward_accuracy", "max_drop", limit, found) for limit in (0.01, 0.03, 0.05))
    assert (failed.verdict, open_.verdict, passed.verdict) == ("failed", "inconclusive", "passed")
    assert failed.point == pytest.approx(0.03)
    assert failed.low == pytest.approx(0.0162, abs=3e-4) and failed.high == pytest.approx(0.0438, abs=3e-4)
    assert not failed.passed and open_.passed and passed.passed


def test_a_rise_is_the_drop_of_the_other_direction():
    one = change([1.0] * 40 + [1.0] * 960, [0.0] * 40 + [1.0] * 960)
    other = change([0.0] * 40 + [1.0] * 960, [1.0] * 40 + [1.0] * 960)
    drop = judge_change("reward_accuracy", "max_drop", 0.01, one)
    rise = judge_change("reward_accuracy", "max_rise", 0.01, other)
    assert drop.verdict == rise.verdict == "failed" and drop.low == pytest.approx(rise.low)
    assert judge_change("reward_accuracy", "max_rise", 0.0, one).verdict == "passed"


def test_more_looks_and_seed_noise_ask_for_more():
    before, after = [1.0] * 25 + [0.0] * 5 + [1.0] * 970, [0.0] * 25 + [1.0] * 5 + [1.0] * 970
    verdicts = [
        judge_change("reward_accuracy", "max_drop", 0.0, each).verdict
        for each in (change(before, after), change(before, after, 1 - 0.05 / 730), change(before, after, seed_sd=0.01))
    ]
    assert verdicts == ["failed", "inconclusive", "inconclusive"]


def test_nothing_to_compare_with_is_inconclusive():
    gate = judge_change("reward_accuracy", "max_drop", 0.0, Change("baseline", "passed", None, 0.95))
    assert gate.verdict == "inconclusive" and gate.value is None and gate.passed


def test_one_failure_decides_and_then_what_is_not_known():
    gates = judged({"reward_accuracy": 0.5}), judged({"reward_accuracy": 0.9})
    unknown = judge_change("reward_accuracy", "max_drop", 0.0, Change("anchor", "a", None, 0.95))
    assert overall([]) == overall(gates[0]) == "passed"
    assert overall([*gates[0], unknown]) == "inconclusive"
    assert overall([*gates[0], *gates[1], unknown]) == "failed"
