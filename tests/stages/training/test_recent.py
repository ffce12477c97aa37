"""Means over the last steps."""

import pytest

from stages.training.recent import STEPS, Recent, mean_of


def test_the_mean_is_over_the_last_steps_only():
    recent = Recent()
    for step in range(STEPS + 2):
        assert recent.full is (step >= STEPS)
        recent.add({"loss": float(step)})
    assert recent.mean("loss") == pytest.approx(2 + (STEPS - 1) / 2)


def test_a_skipped_step_is_left_out_of_the_mean():
    """Null in metrics.jsonl, not a number in the step's own figures."""
    lines = [{"loss": 1.0}, {"loss": None}, {"loss": float("nan")}, {"loss": 3.0}]
    assert mean_of(lines, "loss") == 2.0


def test_where_no_step_has_a_figure_there_is_no_mean():
    assert mean_of([{"loss": 1.0}], "rewards/margins") is None
    assert Recent().mean("loss") is None
