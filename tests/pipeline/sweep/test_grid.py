"""The points of a grid: their order, and everything that cannot be run refused before anything starts."""

import pytest

from data.errors import ConfigError
from pipeline.config import load_config
from pipeline.sweep.grid import grid, metric_of

SMALLEST = "reference:\n  model: some/model\ndata:\n  train: prefs.jsonl\n"


@pytest.fixture
def load(tmp_path):
    def load(*assignments: str):
        file = tmp_path / "c.yaml"
        file.write_text(SMALLEST)
        return load_config(file, assignments, {})

    return load


def refusal(call, *arguments) -> str:
    with pytest.raises(ConfigError) as caught:
        call(*arguments)
    return str(caught.value)


def test_the_last_axis_varies_fastest_and_an_axis_left_out_has_trains_value(load):
    config = load("train.learning_rate=3e-6", "sweep.objective=[sigmoid, {ipo: 0.5, hinge: 2}]", "sweep.seed=[4, 2]")
    points = grid(config)
    assert [(point.config.train.objective, point.config.train.seed) for point in points] == [
        ("sigmoid", 4),
        ("sigmoid", 2),
        ({"ipo": 0.5, "hinge": 2.0}, 4),
        ({"ipo": 0.5, "hinge": 2.0}, 2),
    ]
    assert {(point.config.train.beta, point.config.train.learning_rate) for point in points} == {(0.1, 3e-6)}
    assert str(points[1]) == "objective: sigmoid, seed: 2"


def test_what_a_point_says_of_itself_makes_its_configuration(load):
    axes = ("sweep.objective=[sigmoid, {ipo: 0.5, hinge: 2}]", "sweep.beta=[0.3, 5e-7]", "sweep.learning_rate=[1e-30]")
    for point in grid(load(*axes)):
        assert load(*axes, *point.assignments) == point.config


def test_without_an_axis_there_is_an_example(load):
    text = refusal(grid, load())
    assert text.startswith("There is nothing to compare: section sweep has no axis.")
    assert "for instance as --set 'sweep.beta=[0.05, 0.1, 0.3]'" in text
    assert len(grid(load("sweep.beta=[0.05, 0.1, 0.3]", "sweep.seed=[0, 1]"))) == 6  # the example, as it stands there


def test_runs_cannot_share_a_named_folder(load):
    text = refusal(grid, load("run=nightly", "sweep.seed=[0]"))
    assert text.startswith("run: nightly names one folder") and "(--set run=null)" in text
    assert grid(load("run=nightly", "sweep.seed=[0]", "run=null"))


@pytest.mark.parametrize(
    "axis",
    ["objective=[ipo, sigmoid, ipo]", "beta=[0.1, 1e-1]", "seed=[1, 1]", "objective=[{a: 1, b: 2}, {b: 2, a: 1}]"],
)
def test_a_value_that_stands_twice_is_refused(load, axis):
    text = refusal(load, f"sweep.{axis}")
    assert f"--set sweep.{axis.partition('=')[0]}: " in text and "stands here twice; a run is made once" in text


@pytest.mark.parametrize(
    ("assignments", "problem"),
    [
        (
            ("train.label_smoothing=0.1", "sweep.objective=[sigmoid, hinge]", "sweep.beta=[0.1, 0.2]"),
            "objective: hinge, beta: 0.1 (and 1 more): label_smoothing has no effect on the objective hinge; remove it",
        ),
        (("sweep.objective=[sigmiod]",), "objective: sigmiod: there is no objective 'sigmiod'; did you mean sigmoid?"),
        (("sweep.learning_rate=[1e-6, -1]",), "learning_rate: -1.0: train.learning_rate: input should be greater than"),
        (("sweep.seed=[0, -1]",), "seed: -1: train.seed: input should be greater than or equal to 0"),
        (
            ("sweep.objective=[sigmoid, sft]", "sweep.beta=[0.1, 0.2]"),
            "objective: sft, beta: 0.1 (and 1 more): beta has no effect on the objective sft; sweep it on its own",
        ),
        (
            ("eval.min={reward_accuracy: 0.6}", "sweep.objective=[sigmoid, naive]"),
            "objective: naive: eval.min: reward_accuracy cannot be had with the objective naive",
        ),
    ],
)
def test_a_point_that_cannot_be_run_is_named(load, assignments, problem):
    text = refusal(grid, load(*assignments))
    head, *lines = text.split("\n  ")
    assert head == "The grid of section sweep has points that cannot be run, so nothing was started:"
    assert len(lines) == 1 and lines[0].startswith(problem)


def test_every_problem_is_shown_once(load):
    text = refusal(
        grid, load("train.label_smoothing=0.1", "sweep.objective=[hinge, ipo, none_such]", "sweep.seed=[0, 1]")
    )
    assert [line.partition(" (")[0] for line in text.split("\n  ")[1:]] == [
        "objective: hinge, seed: 0",
        "objective: ipo, seed: 0",
        "objective: none_such, seed: 0",
    ]


def test_an_objective_without_beta_can_be_compared_where_beta_is_no_axis(load):
    assert len(grid(load("sweep.objective=[sigmoid, sft]", "sweep.beta=[0.1]"))) == 2


@pytest.mark.parametrize(
    ("objectives", "asked", "metric"),
    [
        ("[sigmoid]", "null", "reward_accuracy"),
        ("[sigmoid, naive]", "null", "ranking_accuracy"),
        ("[sigmoid]", "ranking_accuracy", "ranking_accuracy"),
    ],
)
def test_what_the_choice_goes_by(load, objectives, asked, metric):
    config = load(f"sweep.objective={objectives}", f"sweep.metric={asked}")
    assert metric_of(config, grid(config)) == metric


def test_a_metric_that_a_run_cannot_have_is_refused(load):
    config = load("sweep.objective=[sigmoid, naive]", "sweep.metric=reward_accuracy")
    text = refusal(metric_of, config, grid(config))
    assert text.startswith(
        "sweep.metric: reward_accuracy cannot be had of objective: naive, whose objective reads no ref"
    )
    assert "sweep.metric: ranking_accuracy" in text
