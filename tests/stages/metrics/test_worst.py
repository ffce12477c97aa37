"""What stands out of a run: losses against those of their step."""

import math

import polars as pl
import pytest

from stages.metrics.worst import visits_of_step, worst_pairs


def frame(*visits):
    """Visits (step, row, loss) in a frame as visits.parquet has them."""
    rows = [(step, f"key {row}", "a.jsonl", str(row), loss, -loss) for step, row, loss in visits]
    return pl.LazyFrame(rows, ["step", "pair_key", "source", "line", "loss", "margin"], orient="row")


def test_the_pairs_of_a_step_come_by_their_loss_with_the_excess_over_its_mean():
    rows = visits_of_step(frame((1, 5, 9.0), (2, 1, 1.0), (2, 2, 6.0), (2, 3, 2.0)), 2)
    assert rows.select("line", "loss", "excess").rows() == [("2", 6.0, 3.0), ("3", 2.0, -1.0), ("1", 1.0, -2.0)]


def test_the_worst_pairs_are_those_with_the_largest_mean_excess_and_show_their_last_visit():
    rows = worst_pairs(frame((1, 1, 0.7), (1, 2, 0.7), (2, 2, 0.1), (2, 1, 0.5), (3, 3, 5.0), (3, 4, 5.6)))
    assert rows.select("line", "visits", "step", "loss", "margin").rows() == [
        ("4", 1, 3, 5.6, -5.6), ("1", 2, 2, 0.5, -0.5), ("2", 2, 2, 0.1, -0.1), ("3", 1, 3, 5.0, -5.0),
    ]  # fmt: skip
    assert rows["excess"].to_list() == pytest.approx([0.3, 0.1, -0.1, -0.3])


def test_a_step_that_is_high_as_a_whole_accuses_no_pair_of_it():
    ordinary = [(step, 10 * step + row, 0.1 * row) for step in (1, 2) for row in range(5)]
    rows = worst_pairs(frame(*ordinary, *((3, 30 + row, 50.0) for row in range(5))))
    assert set(rows["line"][:4]) == {"14", "24", "13", "23"}


@pytest.mark.parametrize("loss", [math.nan, math.inf])
def test_what_is_not_finite_comes_first_and_spoils_nothing_for_the_others(loss):
    rows = worst_pairs(frame((1, 1, 1.0), (1, 2, loss), (1, 3, 3.0)))
    assert rows["line"].to_list() == ["2", "3", "1"]
    assert rows["excess"].to_list() == [math.inf, 1.0, -1.0]


def test_a_step_of_which_nothing_is_finite_says_nothing_about_its_pairs():
    rows = worst_pairs(frame((1, 1, 1.0), (1, 2, 2.0), (2, 1, math.nan), (2, 3, math.nan)))
    assert rows.select("line", "excess").rows() == [("2", 0.5), ("1", -0.5), ("3", None)]


def test_the_same_pair_in_two_rows_of_the_data_is_two_rows():
    twice = pl.concat([frame((1, 1, 2.0)), frame((2, 1, 2.0)).with_columns(line=pl.lit("9"))])
    assert sorted(worst_pairs(twice)["line"]) == ["1", "9"]
