"""Objectives through the three jobs: one store serves them all, and those without a reference need none."""

import json
import math

import polars as pl
import pytest

from pipeline.summary import summary
from stages.metrics.names import LEAKAGE_NAMES, RANKING_NAMES
from tests.stages.test_import_rows import bring_in, scored, with_sums  # noqa: F401 - a fixture
from tests.tiny import example_rows, write_jsonl

SHORT = ("train.epochs=1", "train.pairs_per_step=8")


def lines(work, document):
    text = (work.root / "runs" / document["run"] / "metrics.jsonl").read_text()
    return [json.loads(line) for line in text.splitlines()]


@pytest.mark.parametrize(
    "settings",
    [
        ("train.objective=aot", "train.label_smoothing=0.1"),
        ("train.objective={sigmoid: 0.8, bco_pair: 0.2, sft: 1.0}",),
        ("train.objective=sigmoid_norm", "train.beta=5"),
        ("train.ld_alpha=0.5", "train.use_weighting=true", "train.f_divergence_type=js_divergence"),
    ],
    ids=["aot", "sum", "sigmoid_norm", "ld_wpo_js"],
)
def test_one_store_serves_every_objective(work, settings):
    work.run("precompute-ref")
    stored = work.stored_rows()
    assert work.run("precompute-ref", *settings)["status"] == "nothing_to_do"
    document = work.run("train", *SHORT, *settings)
    figures = lines(work, document)
    assert len(figures) == 5 and all(math.isfinite(line["loss"]) and line["grad_norm"] > 0 for line in figures)
    metrics = work.run("eval", *SHORT, *settings)["metrics"]
    assert metrics["reward_margin"] != 0 and math.isfinite(metrics["loss"])
    assert work.stored_rows().equals(stored)


def test_the_loss_of_the_evaluation_is_the_objective_on_the_held_out_pairs(work):
    """An untrained policy: c = r = 0, so apo_zero costs 1 and sigmoid with LD-DPO ln 2, pair by pair."""
    work.run("precompute-ref")
    for settings, loss in ((("train.objective=apo_zero",), 1.0), (("train.ld_alpha=0.2",), math.log(2))):
        still = (*SHORT, "train.learning_rate=1e-30", *settings)
        work.run("train", *still)
        document = work.run("eval", *still)
        assert document["metrics"]["loss"] == pytest.approx(loss, abs=1e-6)
        assert pl.read_parquet(document["outputs"]["pairs"])["loss"].to_list() == pytest.approx([loss] * 6, abs=1e-6)


def test_wpo_weighs_the_losses_of_the_evaluation_too(work):
    work.run("precompute-ref")
    still = (*SHORT, "train.learning_rate=1e-30", "train.use_weighting=true")
    work.run("train", *still)
    losses = pl.read_parquet(work.run("eval", *still)["outputs"]["pairs"])["loss"]
    assert losses.n_unique() == len(losses) and (losses > 0).all()


@pytest.mark.parametrize("objective", ["naive", "simpo", "sft"])
def test_an_objective_without_a_reference_needs_no_store(work, objective):
    setting = f"train.objective={objective}"
    document = work.run("run", setting, *SHORT, "train.beta=1", "eval.min.ranking_accuracy=0.0")
    scoring, training, evaluation = document["jobs"]
    assert (scoring["status"], scoring["responses_scored"]) == ("nothing_to_do", 0)
    assert scoring["why"] == f"train.objective: {objective} reads no reference"
    assert summary(scoring) == f"precompute-ref: nothing to do (train.objective: {objective} reads no reference)"
    assert not (work.root / "store").exists() or not list((work.root / "store").rglob("*.parquet"))
    assert not any(name.startswith("rewards/") for name in lines(work, training)[0])
    assert json.loads((work.root / "runs" / training["run"] / "run.json").read_text())["reference_id"] is None
    assert set(evaluation["metrics"]) == {*RANKING_NAMES, *LEAKAGE_NAMES} and evaluation["verdict"] == "passed"
    records = pl.read_parquet(evaluation["outputs"]["pairs"])
    assert all(records[name].null_count() == 6 for name in ("ref_chosen_logps", "margin", "chosen_reward"))
    assert records["policy_chosen_logps"].null_count() == 0
    assert (
        work.run("run", setting, *SHORT, "train.beta=1", "eval.min.ranking_accuracy=0.0")["status"] == "nothing_to_do"
    )


def test_sft_lowers_the_loss_of_the_chosen_tokens(work):
    figures = lines(work, work.run("train", "train.objective=sft", "train.epochs=4"))
    assert figures[-1]["loss"] < figures[0]["loss"] - 0.5
    assert figures[-1]["logps/chosen"] > figures[0]["logps/chosen"]


def test_what_is_next_does_not_name_a_store_that_nobody_reads(work):
    assert work.run("status")["next"] == "pipeline precompute-ref"
    assert work.run("status", "train.objective=sft")["next"] == "pipeline train"


def test_ld_dpo_says_which_pairs_have_no_shared_sums(work, scored):  # noqa: F811
    bring_in(work, [with_sums(row, sums) for row, _, sums in scored])
    message = work.run("train", "reference.id=theirs", "train.ld_alpha=0.5", expect=4)["message"]
    assert "train.ld_alpha needs sums over the shared length of each pair" in message
    assert "34 pairs are stored without them under reference theirs" in message
    assert "Nothing was trained or evaluated. Remove train.ld_alpha, or take a reference that this" in message


def test_margins_and_weights_of_the_data_reach_the_loss_and_make_another_run(work):
    """At step 0 D = 0: a margin of 1 costs -log s(-1) = 1.313262, twice that with a weight of 2."""
    work.run("precompute-ref")
    plain = work.run("train", *SHORT)
    write_jsonl(work.data, [row | {"gap": 1.0, "twice": 2.0} for row in example_rows(40)])
    margin, weight = "columns: {margin: gap}", "columns: {margin: gap, pair_weight: twice}"
    runs, losses = {plain["run"]}, []
    for columns in (margin, weight):
        source = f"data.train={{path: {work.data}, {columns}}}"
        assert work.run("precompute-ref", source)["pairs_scored"] == 0
        document = work.run("train", source, *SHORT)
        runs.add(document["run"])
        losses.append(lines(work, document)[0]["loss"])
        assert work.run("eval", source, *SHORT)["exit_code"] == 0
    assert len(runs) == 3
    assert losses == pytest.approx([1.313262, 2 * 1.313262], abs=1e-5)


def test_a_beta_that_suits_sums_is_warned_of(work, capsys):
    work.run("precompute-ref")
    work.run("train", "train.objective=sigmoid_norm", *SHORT)
    assert "train.beta is 0.1; with sigmoid_norm, whose log-ratios are means over tokens" in capsys.readouterr().err
