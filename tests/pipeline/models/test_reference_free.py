"""Evaluations that take nothing from the store."""

import json
import shutil
from pathlib import Path

import polars as pl
import pytest

from data.errors import ConfigError
from pipeline.config import load_config
from pipeline.summary import summary
from stages.metrics.names import LEAKAGE_NAMES, RANKING_NAMES

FREE = "eval.reference_free=true"


def test_a_fresh_folder_needs_one_model_and_no_store(work, models, loads):
    """The reference is a tokenizer here: its weights may be anywhere else."""
    tokenizer = work.folder / "tokenizer"
    shutil.copytree(work.model, tokenizer, ignore=shutil.ignore_patterns("*.safetensors"))
    other = models["other"]
    document = work.run("eval", f"eval.model={other}", FREE, f"reference.model={tokenizer}")
    assert loads == [other]
    assert not (work.root / "store").exists() and not (work.root / "reference.lock").exists()
    assert set(document["metrics"]) == {*RANKING_NAMES, *LEAKAGE_NAMES} - {"loss"}
    again = work.run("eval", f"eval.model={other}", FREE, f"reference.model={tokenizer}")
    assert again["status"] == "nothing_to_do" and loads == [other]


def test_its_numbers_are_those_of_an_evaluation_with_a_reference(trained, models):
    with_reference = trained.run("eval", f"eval.model={models['other']}")
    full = pl.read_parquet(with_reference["outputs"]["pairs"])
    free = trained.run("eval", f"eval.model={models['other']}", FREE)
    assert free["outputs"] == with_reference["outputs"]  # one folder for one policy: the newest evaluation
    assert free["metrics"].items() <= with_reference["metrics"].items()
    pairs, taken = pl.read_parquet(free["outputs"]["pairs"]), ("ref_chosen_logps", "margin", "loss")
    assert pairs.select(taken).null_count().row(0) == (6, 6, 6)
    kept = [name for name in full.columns if pairs[name].null_count() == 0]
    assert pairs.select(kept).equals(full.select(kept)) and "policy_chosen_logps" in kept
    document = json.loads(Path(free["outputs"]["metrics"]).read_text())
    assert document["reference"] is None and document["reference_report"] is None and document["comparisons"] == []


def test_the_policy_of_a_run_needs_its_store_no_more(make_work):
    work = make_work()
    full = work.run("run")["jobs"][2]["metrics"]
    shutil.rmtree(work.root / "store")
    free = work.run("eval", FREE, "eval.point=true", "eval.min.ranking_accuracy=0")
    assert free["metrics"].items() <= full.items() and free["verdict"] == "passed"
    assert "loss" not in summary(free) and "reward" not in summary(free)


def test_an_objective_without_a_reference_keeps_its_loss(trained, models):
    document = trained.run("eval", f"eval.model={models['other']}", FREE, "train.objective=sft")
    assert document["metrics"]["loss"] == pytest.approx(document["metrics"]["chosen_nll"], rel=0.2)


def test_several_are_ranked_by_ranking_accuracy(trained, models):
    asked = f'eval.model=["{models["other"]}", "{models["copy"]}"]'
    board = trained.run("eval", asked, FREE)["leaderboard"]
    assert board["metric"] == "ranking_accuracy" and board["reference"] is None and board["beta"] is None
    values = [model["metrics"]["ranking_accuracy"] for model in board["models"]]
    assert values == sorted(values, reverse=True) and "reward_accuracy" not in board["models"][0]["metrics"]


@pytest.mark.parametrize("key", ["min", "max", "max_drop", "max_rise"])
@pytest.mark.parametrize("metric", ["reward_accuracy", "loss", "drift"])
def test_limits_on_what_takes_a_reference_are_refused(work, key, metric):
    message = rf"eval\.{key}: {metric} cannot be had with eval\.reference_free; there are: ranking_accuracy, "
    with pytest.raises(ConfigError, match=message):
        load_config(work.config, [FREE, f"eval.{key}={{{metric}: 0.1}}", "eval.baseline=passed"])


def test_limits_on_what_does_not_are_not(work):
    limits = "{ranking_accuracy: 0.1, generation_ended: 0.5, judge/win_rate: 0.5}"
    config = load_config(
        work.config, [FREE, "eval.external={judge: judge}", "eval.generate={prompts: 4}", f"eval.min={limits}"]
    )
    assert len(config.eval.min) == 3
    with pytest.raises(ConfigError, match=r"eval\.min: ref_generation_ended cannot be had with eval\.reference_free"):
        load_config(work.config, [FREE, "eval.generate={prompts: 4}", "eval.min={ref_generation_ended: 0.5}"])
