"""Dev pairs in the middle of a run: the numbers of the eval job, the best step, an end before the end."""

import json

import pytest
from safetensors.torch import load_file

from pipeline.config import load_config
from pipeline.control import ProcessControl
from pipeline.eval_job import evaluation_of
from pipeline.inputs import Inputs
from stages.evaluate import evaluate
from stages.metrics.names import LEAKAGE_NAMES
from stages.run_folder import RunFolder
from tests.stages.test_train import metrics, run_of, weights

DEV = ("data.dev_fraction=0.25", "train.epochs=4")


def dev_lines(run):
    """Step and metrics of each look at the dev pairs."""
    return [
        (line["step"], {name.removeprefix("dev/"): value for name, value in line.items() if name.startswith("dev/")})
        for line in metrics(run)
        if "dev/loss" in line
    ]


def test_looking_changes_nothing_and_gives_the_numbers_of_the_eval_job(make_work):
    looking, blind = make_work(), make_work()
    for work in (looking, blind):
        work.run("precompute-ref", *DEV)
    run = run_of(looking, looking.run("train", *DEV, "train.eval_every=5"))
    other = run_of(blind, blind.run("train", *DEV))
    assert run.name == other.name and weights(run) == weights(other)
    steps = [step for step, _ in dev_lines(run)]
    assert steps == [*range(5, len(metrics(run)), 5), len(metrics(run))]
    # The eval job's own code on the dev pairs, under the policy of the last step.
    inputs = Inputs(load_config(looking.config, DEV), ProcessControl(quiet=True))
    bound = inputs.bind()
    prepared = inputs.pairs(bound.folder)
    evaluation = evaluation_of(inputs, bound, RunFolder(run), prepared, "dev")
    _, document = evaluate(evaluation, None, inputs.numerics(bound), inputs.control)
    of_pairs = {name: value for name, value in document["metrics"].items() if name not in LEAKAGE_NAMES}
    assert dev_lines(run)[-1][1] == of_pairs


def test_the_policy_is_that_of_the_best_step(make_work):
    """The drift from the reference is least after the first evaluation, and the checkpoint of that step is kept."""
    settings = (*DEV, "train.eval_every=2")
    chosen, straight = make_work(), make_work()
    for work in (chosen, straight):
        work.run("precompute-ref", *settings)
    document = chosen.run("train", *settings, "train.metric_for_best_model=drift")
    run = run_of(chosen, document)
    drifts = {step: found["drift"] for step, found in dev_lines(run)}
    best = min(drifts, key=lambda step: (drifts[step], step))
    assert document["best_step"] == best == 2 < document["last_step"] == document["steps_total"]
    assert document["best_value"] == drifts[best]
    checkpoint = load_file(run / "checkpoints" / f"step-{best:08d}" / "state.safetensors")
    policy = load_file(run / "policy" / "model.safetensors")
    assert all((policy[name] == checkpoint[f"master.{name}"]).all() for name in policy)
    last = run_of(straight, straight.run("train", *settings))
    assert weights(last) != weights(run) and run.name != last.name


def test_patience_ends_a_run_early(work):
    settings = (*DEV, "train.eval_every=1", "train.metric_for_best_model=drift", "train.early_stopping_patience=2")
    work.run("precompute-ref", *settings)
    document = work.run("train", *settings)
    assert document["last_step"] == 3 == document["best_step"] + 2 < document["steps_total"]
    run = run_of(work, document)
    assert len(metrics(run)) == document["last_step"]
    assert work.run("train", *settings)["status"] == "nothing_to_do"
    assert work.run("eval", *settings)["n_pairs"] > 0


def test_evaluations_without_dev_pairs_are_refused_before_any_work(work):
    work.run("precompute-ref")
    message = work.run("train", "train.eval_every=5", expect=2)["message"]
    assert message == (
        "train.eval_every asks for evaluations on dev pairs, and there are none. Set data.dev_fraction above 0 (0.05, "
        "say), or take train.eval_every out of the configuration."
    )
    assert not (work.root / "runs").exists()


def test_other_dev_pairs_are_another_run_where_they_choose(work):
    settings = (*DEV, "train.eval_every=5", "train.metric_for_best_model=loss", "train.epochs=1")
    work.run("precompute-ref", *settings)
    run = run_of(work, work.run("train", *settings))
    document = json.loads((run / "run.json").read_text())
    assert document["dev_pairs"]
    other = work.run("train", "data.dev_fraction=0", "data.eval_fraction=0.1", "train.epochs=1")
    assert "dev_pairs" not in json.loads((run_of(work, other) / "run.json").read_text())


@pytest.mark.parametrize("objective", ["sft", "aot"])
def test_any_objective_can_be_looked_at(work, objective):
    settings = (*DEV, "train.epochs=1", "train.eval_every=3", f"train.objective={objective}")
    work.run("precompute-ref", *settings)
    lines = dev_lines(run_of(work, work.run("train", *settings)))
    assert len(lines) > 1 and all(("reward_accuracy" in found) == (objective == "aot") for _, found in lines)
