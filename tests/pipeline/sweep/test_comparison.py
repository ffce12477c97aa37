"""The choice and the noise of seeds, from figures that were written down here."""

import math
from typing import Any

import pytest

from pipeline.sweep.comparison import RunResult, Score, comparison
from stages.training.config import TrainConfig

N = 200


def run(beta: float, seed: int, dev: float | None, held_out: float = 0.5, drift: float | None = 0.1) -> RunResult:
    """A run that is done, or (without figures) failed."""
    train, name = TrainConfig(beta=beta, seed=seed), f"{beta}-{seed}"
    if dev is None:
        return RunResult(train, [f"train.seed={seed}"], name, "failed", "it failed")
    scores = (Score(value, 0.0, 1.0, drift) for value in (dev, held_out))
    return RunResult(train, [f"train.seed={seed}"], name, "done", None, *scores)


def compare(*runs: RunResult) -> dict[str, Any]:
    return comparison(runs, 100, N)


def test_the_choice_is_made_on_dev_though_another_is_better_on_held_out_pairs():
    document = compare(run(0.1, 0, dev=0.6, held_out=0.9), run(0.2, 0, dev=0.7, held_out=0.5))
    assert document["choice"] == {"setting": 1, "run": "0.2-0", "assignments": ["train.seed=0"]}


def test_settings_are_compared_by_the_mean_over_seeds_and_the_best_seed_is_taken():
    """Means on dev: 0.7 and 0.72; the best single run belongs to the first."""
    document = compare(run(0.1, 0, 0.9), run(0.1, 1, 0.5), run(0.2, 0, 0.7), run(0.2, 1, 0.74))
    assert document["choice"]["run"] == "0.2-1"
    assert [setting["dev"]["value"] for setting in document["settings"]] == pytest.approx([0.7, 0.72])


def test_of_equal_settings_the_one_that_drifted_less_is_taken_then_the_first():
    close, far, unknown = ({"drift": drift} for drift in (0.1, 0.2, None))
    assert compare(run(0.1, 0, 0.7, **far), run(0.2, 0, 0.7, **close))["choice"]["run"] == "0.2-0"
    assert compare(run(0.1, 0, 0.7, **unknown), run(0.2, 0, 0.7, **far))["choice"]["run"] == "0.2-0"
    assert compare(run(0.1, 0, 0.7, **close), run(0.2, 0, 0.7, **close))["choice"]["run"] == "0.1-0"
    assert compare(run(0.1, 0, 0.7, **far), run(0.1, 1, 0.7, **close))["choice"]["run"] == "0.1-1"


def test_means_that_differ_by_rounding_are_equal():
    """Of ten pairs 0, 1, 2 and 0, 0, 3: a tenth either way, as floats not the same."""
    first = [run(0.1, seed, dev, drift=0.2) for seed, dev in enumerate((0.0, 0.1, 0.2))]
    second = [run(0.2, seed, dev, drift=0.1) for seed, dev in enumerate((0.0, 0.0, 0.3))]
    assert compare(*first, *second)["choice"]["setting"] == 1


def test_a_setting_that_failed_with_a_seed_is_not_chosen():
    document = compare(run(0.1, 0, 0.9), run(0.1, 1, None), run(0.2, 0, 0.6), run(0.2, 1, 0.6))
    assert document["choice"]["run"] == "0.2-0"
    assert [document["settings"][0][state] for state in ("done", "failed", "pending")] == [1, 1, 0]
    assert compare(run(0.1, 0, None))["choice"] is None


def test_nothing_is_chosen_while_runs_are_to_come():
    pending = RunResult(TrainConfig(beta=0.2), [], "later", "pending")
    document = compare(run(0.1, 0, 0.9), pending)
    assert document["choice"] is None and document["settings"][1]["held_out"] is None
    assert [each["status"] for each in document["runs"]] == ["done", "pending"]


def test_the_interval_of_several_seeds_is_that_of_their_mean():
    """Seeds at 0.7 and 0.9 of 200 pairs: Wilson's bounds are the shares that are 1.96 standard errors from 0.8."""
    held_out = compare(run(0.1, 0, 0.5, 0.7), run(0.1, 1, 0.5, 0.9))["settings"][0]["held_out"]
    assert held_out["value"] == pytest.approx(0.8)
    for bound in (held_out["low"], held_out["high"]):
        assert abs(0.8 - bound) == pytest.approx(1.959963984540054 * math.sqrt(bound * (1 - bound) / N))


def test_the_noise_of_seeds_is_pooled_within_settings():
    """Deviations 0.1, 0.1 and 0.1, 0.1, 0.2: squares 0.02 + 0.06 over 1 + 2 degrees of freedom."""
    first = [run(0.1, seed, 0.5, held_out) for seed, held_out in enumerate((0.6, 0.8))]
    second = [run(0.2, seed, 0.5, held_out) for seed, held_out in enumerate((0.5, 0.5, 0.8))]
    assert compare(*first, *second)["seed_sd"] == pytest.approx(math.sqrt(0.08 / 3))


def test_with_one_seed_a_setting_there_is_no_noise_of_seeds():
    assert compare(run(0.1, 0, 0.5, 0.6), run(0.2, 0, 0.5, 0.8))["seed_sd"] is None
    assert compare(run(0.1, 0, 0.5, 0.6), run(0.1, 1, None))["seed_sd"] is None
