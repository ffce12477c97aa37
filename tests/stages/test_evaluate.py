"""Job three: the figures of the records, verdicts, and no work that was done before."""

import json

import polars as pl
import pytest

from data.pairs.coverage import Coverage
from data.tokens.token_pairs import TokenPairs
from pipeline.control import ProcessControl
from stages.evaluation.evaluation import Evaluation
from stages.training.config import TrainConfig
from tests.tiny import example_rows, write_jsonl


def results(work):
    return json.loads((work.root / "latest" / "eval" / "metrics.json").read_text())


def test_metrics_are_those_of_the_records(work):
    work.run("run")
    document = results(work)
    records = pl.read_parquet(work.root / "latest" / "eval" / "pairs.parquet")
    assert {"pair_key", "row", "policy_chosen_logps", "policy_rejected_logps", "ref_chosen_logps",
            "ref_rejected_logps", "chosen_reward", "rejected_reward", "margin", "n_chosen", "n_rejected"} <= set(
        records.columns
    )  # fmt: skip
    assert len(records) == document["n_pairs"] == 6
    wins = (records["margin"] > 0).cast(pl.Float64) + 0.5 * (records["margin"] == 0).cast(pl.Float64)
    metrics = document["metrics"]
    assert metrics["reward_accuracy"] == pytest.approx(wins.mean())
    assert metrics["reward_margin"] == pytest.approx(records["margin"].mean())
    ranking = records["ref_chosen_logps"] > records["ref_rejected_logps"]
    assert metrics["ref_ranking_accuracy"] == pytest.approx(ranking.mean())
    assert document["coverage"] == {**document["coverage"], "read": 40, "used": 40, "rejected": {}}
    assert document["verdict"] == "passed" and document["schema_version"] == 2


def test_a_policy_that_is_the_reference_has_margins_0_and_loss_ln_2(work):
    """The phases agree: what job one stored is what job three finds, under a policy that was never moved."""
    work.run("precompute-ref")
    work.run("train", "train.learning_rate=1e-30", "reference.dtype=float32")
    document = work.run("eval", "train.learning_rate=1e-30")
    assert document["metrics"]["loss"] == pytest.approx(0.6931472, abs=1e-6)
    assert abs(document["metrics"]["reward_margin"]) < 1e-6
    records = pl.read_parquet(document["outputs"]["pairs"])
    assert records["margin"].abs().max() < 1e-5


def test_a_second_evaluation_loads_no_model_and_gives_the_same_verdict(work):
    first = work.run("run")
    for file in (work.root / "latest" / "policy").glob("*.safetensors"):
        content = file.read_bytes()
        file.write_bytes(content)  # same bytes, another time stamp: the digest is taken again, the result stands
    again = work.run("eval")
    assert again["status"] == "nothing_to_do"
    assert again["metrics"] == first["jobs"][2]["metrics"]


def test_a_failed_gate_is_exit_code_5_and_moves_passed_no_further(work):
    document = work.run("run", "eval.min.reward_margin=1000", expect=5)
    assert document["status"] == "failed" and document["jobs"][2]["verdict"] == "failed"
    assert "reward_margin_gate_low is " in document["message"] and "at least 1000 is wanted" in document["message"]
    assert (work.root / "latest").exists() and not (work.root / "passed").exists()
    assert results(work)["gates"][0]["passed"] is False
    assert work.run("eval", "eval.min.reward_margin=1000", expect=5)["exit_code"] == 5  # and stays failed


def test_new_gates_are_judged_without_scoring_again(work):
    work.run("run")
    document = work.run("eval", "eval.max.loss=0.0", expect=5)
    assert document["pairs_scored"] == 0 and document["verdict"] == "failed" == results(work)["verdict"]
    assert work.run("eval", "eval.max.loss=100")["verdict"] == "passed"
    assert (work.root / "passed").resolve() == (work.root / "latest").resolve()


def test_latest_and_passed_never_go_back_to_an_older_run(work):
    work.run("run", "run=first")
    work.run("run", "run=second", "train.beta=0.2")
    work.run("run", "run=first")
    assert (work.root / "latest").resolve().name == (work.root / "passed").resolve().name == "second"


def test_an_edited_policy_is_evaluated_again(work):
    from tests.tiny import build_model

    work.run("run")
    before = results(work)["metrics"]
    build_model(seed=8).save_pretrained(work.root / "latest" / "policy")
    assert work.run("eval")["pairs_scored"] == 6
    assert results(work)["metrics"] != before


def test_the_result_does_not_depend_on_batches_or_row_order(work):
    work.run("run")
    first = results(work)
    (work.root / "latest" / "eval" / "metrics.json").unlink()
    write_jsonl(work.data, example_rows(40)[::-1])
    work.run("eval", "scoring.pack_tokens=64")
    again = results(work)
    assert again["metrics"] == pytest.approx(first["metrics"], abs=1e-6)
    assert again["identity"] == first["identity"]


def test_without_a_trained_policy_it_says_what_to_run(work):
    work.run("precompute-ref")
    document = work.run("eval", expect=4)
    assert "There is no trained policy in" in document["message"] and "Run: pipeline train" in document["message"]


def test_a_changed_configuration_does_not_evaluate_another_policy(work):
    work.run("run")
    document = work.run("eval", "train.beta=0.7", expect=4)
    assert "The latest run differs in: train.beta: 0.1 -> 0.7" in document["message"]


def test_nothing_held_out_is_a_configuration_error(work):
    work.run("precompute-ref", "data.eval_fraction=0")
    work.run("train", "data.eval_fraction=0")
    document = work.run("eval", "data.eval_fraction=0", expect=2)
    assert "No pairs are held out" in document["message"]


def test_a_held_out_file_of_its_own_and_its_overlap(work, caplog):
    held_out = write_jsonl(work.folder / "held.jsonl", [*example_rows(5, start=100), example_rows(1)[0]])
    work.config.write_text(work.config.read_text().replace("eval_fraction: 0.25", f"eval: {held_out}"))
    document = work.run("run")
    assert document["jobs"][2]["n_pairs"] == 6
    assert document["jobs"][2]["coverage"]["overlap"] == 1
    assert document["jobs"][2]["coverage"]["splits"] == {"train": 40, "dev": 0, "eval": 6}


def test_a_signal_leaves_no_part_of_a_report(work, monkeypatch):
    work.run("precompute-ref")
    work.run("train")
    with monkeypatch.context() as patch:
        patch.setattr(ProcessControl, "stop_requested", lambda self: True)
        document = work.run("eval", expect=75)
    assert "nothing of it was written" in document["message"]
    assert not (work.root / "latest" / "eval").exists()
    assert work.run("eval")["status"] == "done"


def test_an_evaluation_is_of_one_objective_with_its_parameters(tmp_path):
    pairs = TokenPairs.of([])
    configs = [TrainConfig(), TrainConfig(objective="ipo"), TrainConfig(objective="ipo", average=False)]
    configs += [TrainConfig(ld_alpha=0.5), TrainConfig(use_weighting=True)]
    places = ("run", tmp_path / "policy", tmp_path / "eval")
    found = {Evaluation(*places, pairs, {}, each, Coverage(), "p", "r").identity for each in configs}
    assert len(found) == len(configs)


@pytest.mark.parametrize("damage", ["[1]", "7", "{", '"a"'])
def test_metrics_that_are_damaged_are_made_again_from_the_scores(work, damage):
    work.run("run")
    path = work.root / "latest" / "eval" / "metrics.json"
    before = path.read_bytes()
    path.write_text(damage)
    assert work.run("eval")["pairs_scored"] == 0 and path.read_bytes() == before
