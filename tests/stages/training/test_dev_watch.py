"""Which step was best, and when it is enough."""

import math

import pytest
from pydantic import ValidationError

from stages.training.config import TrainConfig
from stages.training.dev_watch import DevWatch, due


def config(metric="loss", patience=0):
    return TrainConfig(eval_every=10, metric_for_best_model=metric, early_stopping_patience=patience)


def test_the_first_of_equals_is_the_best_and_less_is_better_for_a_loss():
    watch = DevWatch()
    improved = [watch.observe(step, {"loss": loss}, config()) for step, loss in enumerate([0.7, 0.5, 0.5, 0.6, 0.4], 1)]
    assert improved == [True, True, False, False, True]
    assert (watch.best_step, watch.best_value, watch.without_improvement) == (5, 0.4, 0)


def test_more_is_better_for_an_accuracy():
    watch = DevWatch()
    for step, value in enumerate([0.5, 0.7, 0.6], 1):
        watch.observe(step, {"reward_accuracy": value}, config("reward_accuracy"))
    assert (watch.best_step, watch.without_improvement) == (2, 1)


def test_what_is_no_number_is_never_the_best():
    watch = DevWatch()
    assert [
        watch.observe(step, {"loss": value}, config()) for step, value in ((1, math.nan), (2, 0.5), (3, -math.inf))
    ] == [
        False,
        True,
        False,
    ]
    assert (watch.best_step, watch.without_improvement) == (2, 1)


def test_patience_counts_evaluations_in_a_row():
    watch, settings = DevWatch(), config(patience=2)
    ends = []
    for step, loss in enumerate([0.7, 0.8, 0.6, 0.7, 0.6], 1):
        watch.observe(step, {"loss": loss}, settings)
        ends.append(watch.out_of_patience(settings))
    assert ends == [False, False, False, False, True]
    assert not watch.out_of_patience(config(patience=0))


def test_a_watch_goes_through_a_checkpoint():
    watch = DevWatch(3, 0.5, 1)
    assert DevWatch(**watch.state()) == watch


def test_without_a_metric_nothing_is_chosen():
    watch = DevWatch()
    assert not watch.observe(1, {"loss": 0.1}, TrainConfig(eval_every=1))
    assert watch == DevWatch() and watch.document(9) == {}


def test_dev_pairs_are_looked_at_every_so_often_and_at_the_end():
    assert [step for step in range(1, 26) if due(step, 25, config())] == [10, 20, 25]
    assert not any(due(step, 25, TrainConfig()) for step in range(1, 26))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"metric_for_best_model": "loss"}, "needs evaluations to choose by: set train.eval_every"),
        ({"eval_every": 5, "early_stopping_patience": 2}, "needs train.metric_for_best_model"),
        (
            {"eval_every": 5, "metric_for_best_model": "accuracy"},
            "no such metric: accuracy; did you mean reward_accuracy[?]",
        ),
        (
            {"eval_every": 5, "metric_for_best_model": "drift", "objective": "sft"},
            "no such metric of sft, which reads no reference: drift; known: ranking_accuracy",
        ),
    ],
)
def test_a_choice_without_what_it_needs_is_refused(settings, message):
    with pytest.raises(ValidationError, match=message):
        TrainConfig(**settings)


def test_looking_is_no_part_of_a_run_and_choosing_is():
    assert TrainConfig(eval_every=5).identity() == TrainConfig().identity()
    chosen = config().identity()
    assert chosen != TrainConfig().identity() and chosen["eval_every"] == 10
