"""Likelihood displacement is named once, where it is."""

import json
from pathlib import Path

import pytest

from stages.training.config import TrainConfig
from stages.training.displacement import Displacement
from tests.tiny import Work, write_jsonl

DPO = TrainConfig(beta=0.1)


def series(steps, chosen=0.0, margin=0.0, wobble=0.0):
    """Rewards that move in a line, `chosen` and `margin` a step, and up and down by `wobble` from step to step."""
    return [
        {"step": n, "rewards/chosen": chosen * n + wobble * (-1) ** n, "rewards/margins": margin * n}
        for n in range(1, steps + 1)
    ]


def named(lines, config=DPO):
    """The steps at which it was named, and the sentences."""
    watch = Displacement(config)
    return [(line["step"], said) for line in lines if (said := watch.observe(line))]


def test_chosen_that_fall_while_margins_grow_are_named_once():
    """0.02 a step: the mean over the first 20 steps is 10.5 times that, a reward of -0.21, which is 2.1 nats."""
    ((step, said),) = named(series(200, chosen=-0.02, margin=0.04))
    assert step == 20
    assert said == (
        "Likelihood displacement: by step 20 the chosen responses have become less likely than under the reference, by "
        "2.1 nats (8.2 times; mean chosen reward -0.21 over the last 20 steps), while margins grow (+0.42): the "
        "rejected ones fall further. Where that is not wanted, train.objective helps: dpop, which charges for it, or "
        "apo_zero, which raises the chosen, or a sum with sft ({sigmoid: 1, sft: 0.2}). See docs/metrics.md."
    )


def test_a_slow_fall_is_named_when_it_has_come_to_a_nat():
    """0.001 a step: the mean of steps n-19 to n is (n - 9.5) / 1000, which is 0.1 from step 110 on."""
    assert [step for step, _ in named(series(200, chosen=-0.001, margin=0.002))] == [110]


@pytest.mark.parametrize(
    "lines",
    [
        series(200, chosen=0.01, margin=0.02),  # both sides as wanted
        series(200, chosen=-0.01, margin=-0.02),  # a run that goes wrong otherwise
        series(200, chosen=0.0, margin=0.02, wobble=3.0),  # noise
        series(19, chosen=-1.0, margin=2.0),  # too few steps to tell
        [{"step": n, "loss": 1.0} for n in range(1, 100)],  # no reference
        [{"step": n, "rewards/chosen": None, "rewards/margins": None} for n in range(1, 100)],  # all of them skipped
    ],
)
def test_nothing_is_said_where_there_is_none(lines):
    assert named(lines) == []


def test_a_fall_is_measured_in_nats_whatever_beta():
    lines = series(30, chosen=-0.05, margin=0.1)
    assert named(lines, TrainConfig(beta=0.1)) != [] == named(lines, TrainConfig(beta=2.0))


def test_what_the_objective_has_already_is_not_advised_and_what_it_wants_is_not_named():
    falling = series(30, chosen=-0.05, margin=0.1)
    ((_, said),) = named(falling, TrainConfig(objective={"sigmoid": 1.0, "sft": 0.2}))
    assert "train.objective helps: dpop, which charges for it, or apo_zero, which raises the chosen. See" in said
    assert named(falling, TrainConfig(objective="apo_down")) == []


@pytest.mark.parametrize("stopped_after", [10, 19, 25, 100])
def test_a_resumed_run_names_it_where_the_whole_one_does_and_not_again(stopped_after):
    lines = series(200, chosen=-0.01, margin=0.02)
    watch = Displacement(DPO)
    watch.replay(lines[:stopped_after])
    found = [line["step"] for line in lines[stopped_after:] if watch.observe(line)]
    assert found == ([20] if stopped_after < 20 else [])


SETTINGS = ("data.eval_fraction=0", "train.learning_rate=1e-3", "train.epochs=3")


@pytest.fixture(scope="module")
def likely_pairs(tmp_path_factory, model_folder):
    """A reference that was taught the chosen responses, and pairs that differ in one word."""
    work = Work(tmp_path_factory.mktemp("work"), model_folder)
    rows = [
        {
            "prompt": f"Question {i}: how many times does the fox jump?",
            "chosen": f"It jumps {i} times over the lazy dog.",
            "rejected": f"It jumps {i} times over the lazy fox.",
        }
        for i in range(40)
    ]
    write_jsonl(work.data, rows)
    taught = work.run("train", *SETTINGS, "train.objective=sft", "train.learning_rate=3e-3", "train.epochs=8")
    reference = f"reference.model={taught['outputs']['policy']}"
    work.run("precompute-ref", *SETTINGS, reference)
    return work, reference


def trained(likely_pairs, objective):
    """The lines of metrics.jsonl of a run with this objective."""
    work, reference = likely_pairs
    document = work.run("train", *SETTINGS, reference, f"train.objective={objective}")
    return [json.loads(line) for line in Path(document["outputs"]["training_metrics"]).read_text().splitlines()]


def test_dpo_on_pairs_that_differ_in_a_word_is_a_case_of_it(likely_pairs):
    lines = trained(likely_pairs, "sigmoid")
    assert lines[-1]["rewards/chosen"] < 0 < lines[-1]["rewards/margins"]
    assert [step for step, _ in named(lines)] == [20]


@pytest.mark.parametrize("objective", ["dpop", "apo_zero", "{sigmoid: 1, sft: 0.2}"])
def test_what_is_advised_helps(likely_pairs, objective):
    falls = [-trained(likely_pairs, each)[-1]["rewards/chosen"] for each in ("sigmoid", objective)]
    assert falls[1] < falls[0] / 4
