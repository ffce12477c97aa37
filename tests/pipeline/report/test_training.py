"""Curves of training: means over neighbouring steps where there are many, dots of dev pairs where there are some."""

import pytest

from pipeline.report.training import MOST_POINTS, _series, cost_section, training_section
from tests.pipeline.report.documents import material, steps


@pytest.mark.parametrize(("n", "points"), [(7, 7), (200, 200), (201, 101), (100_000, 200)])
def test_a_long_run_is_shown_by_means(n, points):
    lines = [{"step": i + 1, "loss": float(i % 2)} for i in range(n)]
    _, where, values, _ = _series(lines, "training", "loss", "first")
    assert len(where) == len(values) == points <= MOST_POINTS
    assert sum(values) / points == pytest.approx(0.5, abs=0.1) and where == sorted(where)


def test_steps_without_a_finite_value_are_left_out():
    lines = [{"step": 1, "loss": 0.5}, {"step": 2, "loss": None}, {"step": 3}]
    assert _series(lines, "training", "loss", "first")[1:3] == ([1], [0.5])


def test_dev_pairs_are_dots_at_their_steps():
    _, where, values, how = _series(steps(40), "dev pairs", "dev/loss", "dots")
    assert where == [10, 20, 30, 40] and how == "dots" and values == sorted(values, reverse=True)


def test_the_gist_says_how_it_went():
    (section,) = training_section(material(steps=steps(10)))
    assert (
        section.gist == "10 steps, loss 0.618 to 0.538"[:8] + section.gist[8:] and "10 steps, loss 0." in section.gist
    )
    assert training_section(material(steps=[])) == []


def test_costs_are_told_by_job():
    (section,) = cost_section(material())
    rows = section.blocks[0].rows
    assert [row[0] for row in rows] == ["score the reference", "train", "evaluate"]
    assert rows[0][1:7] == ["200", "200", "0", "17,663", "38.3 s", "461"] and rows[1][5:8] == [
        "3.1 min",
        "58",
        "23.6 s",
    ]
    assert section.gist == "3.9 min, 38.3 s spared" and cost_section(material(jobs={}, costs={})) == []
