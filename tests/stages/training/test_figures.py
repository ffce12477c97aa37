"""What is shown of a run."""

import pytest

from stages.training.figures import Figures, first_and_last


def line(step, **more):
    accuracy = float(step > 10)
    return {
        "step": step,
        "loss": 0.7 - step / 100,
        "rewards/accuracies": accuracy,
        "rewards/margins": step / 10,
        "tokens_per_second": 10_000.0,
        "peak_memory_bytes": 61_234_000_000,
        **more,
    }


def test_means_of_the_last_steps_are_shown_and_the_memory_of_the_latest():
    figures = Figures()
    for step in range(1, 31):
        figures.add(line(step, mfu=0.4 if step % 2 else 0.5, peak_memory_bytes=step * 10**9))
    assert figures.shown() == {  # of steps 11 to 30: 20.5 on average
        "loss": "0.4950",
        "accuracy": "1.00",
        "margin": "+2.050",
        "tokens/s": "10,000",
        "MFU": "45.0%",
        "memory": "30.0 GB",
    }


def test_what_a_run_does_not_have_is_absent():
    figures = Figures()
    assert figures.shown() == {}
    figures.add({"step": 1, "loss": 2.0, "tokens_per_second": 5.0, "peak_memory_bytes": 1.5e9})
    assert figures.shown() == {"loss": "2.0000", "tokens/s": "5", "memory": "1.5 GB"}


def test_the_latest_look_at_dev_pairs_stays():
    figures = Figures()
    figures.add(line(1, **{"dev/reward_accuracy": 0.625}))
    for step in range(2, 60):
        figures.add(line(step))
    assert figures.shown()["dev accuracy"] == "0.625"


def test_beginning_and_end_of_a_long_run_are_as_many_steps_as_were_averaged():
    ends = first_and_last([line(step) for step in range(1, 101)])
    assert [ends[end]["steps"] for end in ("first_steps", "last_steps")] == [20, 20]
    assert ends["first_steps"] == pytest.approx(
        {"steps": 20, "loss": 0.595, "rewards/accuracies": 0.5, "rewards/margins": 1.05}
    )
    assert ends["last_steps"]["rewards/margins"] == pytest.approx(9.05)


def test_beginning_and_end_of_a_short_run_have_no_step_in_common():
    ends = first_and_last([{"loss": 5.0}, {"loss": 4.0}, {"loss": 1.0}])
    assert ends == {"first_steps": {"steps": 1, "loss": 5.0}, "last_steps": {"steps": 1, "loss": 1.0}}
    assert first_and_last([{"loss": 1.0}]) == {} == first_and_last([])
