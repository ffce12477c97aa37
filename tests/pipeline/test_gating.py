"""Gates from the command: what passes, what is compared with what, night after night."""

import json
import shutil

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from data.pairs.row_columns import row_columns
from pipeline.cli import app
from stages.evaluation import pair_facts
from tests.tiny import example_rows, write_jsonl

NIGHT = ("eval.baseline=passed", "eval.max_drop.reward_accuracy=0.9")


def results(work, run):
    return json.loads((work.root / "runs" / run / "eval/metrics.json").read_text())


def test_nights_are_compared_with_the_run_that_passed_last(work):
    first = work.run("run", *NIGHT, "run=one")
    gates = first["jobs"][2]["gates"]
    assert [(gate["verdict"], gate["value"], gate["against"]) for gate in gates] == [("inconclusive", None, "baseline")]
    assert first["jobs"][2]["verdict"] == "inconclusive" and first["exit_code"] == 0
    assert (work.root / "passed").resolve().name == "one"
    second = work.run("run", *NIGHT, "run=two", "train.seed=1")
    (gate,) = second["jobs"][2]["gates"]
    assert gate["name"] == "one" and gate["low"] <= gate["point"] <= gate["high"] and gate["level"] == 0.95
    third = work.run("run", *NIGHT, "run=three", "train.seed=2", "eval.max_drop.reward_accuracy=-1.0", expect=5)
    assert third["jobs"][2]["gates"][0]["name"] == "two"
    assert "drop of reward_accuracy against the baseline two is" in third["message"]
    assert (work.root / "passed").resolve().name == "two"  # what failed is compared with nothing
    fourth = work.run("run", *NIGHT, "run=four", "train.seed=3")
    assert fourth["jobs"][2]["gates"][0]["name"] == "two"


def test_the_same_evaluation_is_held_against_the_same_whatever_passes_later(work):
    work.run("run", *NIGHT, "run=one")
    first = results(work, "one")
    work.run("run", *NIGHT, "run=two", "train.seed=1")
    again = work.run("run", *NIGHT, "run=one")
    assert again["status"] == "nothing_to_do" and results(work, "one") == first
    second = results(work, "two")
    shutil.rmtree(work.root / "runs/one")  # older runs may go
    assert work.run("run", *NIGHT, "run=two", "train.seed=1")["status"] == "nothing_to_do"
    assert results(work, "two") == second


def test_several_runs_that_passed_can_be_the_baseline(work):
    pooled = (*NIGHT, "eval.baseline_runs=2")
    for seed, name in enumerate(("one", "two", "three", "four")):
        work.run("run", *pooled, f"run={name}", f"train.seed={seed}")
    assert [each["name"] for each in results(work, "four")["compared_with"]] == ["three, two"]
    assert results(work, "two")["compared_with"][0]["name"] == "one"


def test_a_fixed_anchor_beside_the_newest_run(work):
    work.run("run", "run=anchor")
    anchored = ("eval.anchor=anchor", "eval.max_drop={reward_accuracy: 0.9, ranking_accuracy: 0.9}")
    document = work.run("run", *anchored, "eval.baseline=passed", "run=one", "train.seed=1")["jobs"][2]
    assert [(gate["metric"], gate["against"], gate["name"]) for gate in document["gates"]] == [
        (metric, against, "anchor") for against in ("baseline", "anchor")
        for metric in ("ranking_accuracy", "reward_accuracy")
    ]  # fmt: skip
    assert {gate["level"] for gate in document["gates"]} == {1 - 2 * 0.05 / 4}
    nightly = work.run("eval", *anchored, "eval.baseline=passed", "run=one", "train.seed=1", "eval.looks=365")
    assert {gate["level"] for gate in nightly["gates"]} == {1 - 2 * 0.05 / (4 * 365)}
    once, often = (
        {(each["against"], each["metric"]): each for each in found["comparisons"]} for found in (document, nightly)
    )
    for what, each in often.items():  # a gate that looks often sees less; what has no limit is seen as well as before
        limited = what[0] != "reference" and what[1] in ("reward_accuracy", "ranking_accuracy")
        assert (each["detectable"] > 1.2 * once[what]["detectable"]) == limited
        assert (each["low"], each["high"]) == (once[what]["low"], once[what]["high"])
    assert nightly["pairs_scored"] == 0


def test_the_untrained_policy_is_beaten_or_not_as_a_ranker(work):
    document = work.run("run")["jobs"][2]
    (plain, _) = (each for each in document["comparisons"] if each["against"] == "reference")
    metrics = document["metrics"]
    assert plain["difference"] == pytest.approx(metrics["ranking_accuracy"] - metrics["ref_ranking_accuracy"])
    assert plain["low"] == metrics["ranking_accuracy_gain_low"] and plain["verdict"] in ("better", "inconclusive")


def test_a_baseline_of_other_pairs_ends_the_job_before_anything_is_scored(work, make_work):
    other = make_work()
    write_jsonl(other.data, example_rows(40, start=500))
    folder = other.run("run")["jobs"][2]["outputs"]["metrics"].removesuffix("/metrics.json")
    work.run("precompute-ref")
    work.run("train")
    asked = (f"eval.baseline={folder}", "eval.max_drop.ranking_accuracy=0.5")
    document = work.run("eval", *asked, expect=2)
    assert "was evaluated on other pairs" in document["message"] and "0 are shared" in document["message"]
    assert not (work.root / "latest/eval/pairs.parquet").exists() and not (work.root / "passed").exists()
    nowhere = work.run("eval", "eval.baseline=nowhere", "eval.max_drop.ranking_accuracy=0.5", expect=2)
    assert "There is no evaluation in nowhere" in nowhere["message"]


def test_a_limit_on_what_the_data_do_not_give_is_no_pass(work):
    document = work.run("run", "eval.min.reward_accuracy_equal_length=0.0", expect=2)
    assert "the data give no value of reward_accuracy_equal_length here" in document["message"]
    assert "a limit is never passed for lack of a number" in document["message"]
    assert not (work.root / "passed").exists()
    assert work.run("eval")["pairs_scored"] == 0  # what was scored is kept


def test_limits_on_any_metric_in_any_direction_several_at_once(work):
    limits = ("eval.min={reward_accuracy: 0.0, ranking_accuracy_gain: -1}", "eval.max={drift: 1000, loss: 0.0}")
    document = work.run("run", *limits, expect=5)
    verdicts = {gate["metric"]: gate["verdict"] for gate in document["jobs"][2]["gates"]}
    assert verdicts == {
        "reward_accuracy": "passed",
        "ranking_accuracy_gain": "passed",
        "drift": "passed",
        "loss": "failed",
    }
    pointed = work.run("eval", *limits, "eval.point=true", "eval.max={drift: 1000}")
    assert {gate["measured_on"] for gate in pointed["gates"]} == {"reward_accuracy", "ranking_accuracy_gain", "drift"}


def test_the_options_are_the_keys(work):
    work.run("run")
    limits = ("--min", "reward_accuracy=0.99", "--max-drop", "loss=1", "--baseline", "passed", "--point")
    done = CliRunner().invoke(app, ["eval", "--config", str(work.config), "--json", *limits])
    gates = json.loads(done.stdout)["gates"]
    assert {(gate["metric"], gate["kind"], gate["limit"]) for gate in gates} == {
        ("reward_accuracy", "min", 0.99),
        ("loss", "max_drop", 1.0),
    }
    assert gates[0]["measured_on"] == "reward_accuracy"
    wrong = CliRunner().invoke(app, ["eval", "--max-rise", "0.1"])
    assert wrong.exit_code == 2 and "write it as --max-rise reward_accuracy=0.6" in wrong.stderr


def test_metrics_json_is_the_same_to_the_last_byte_whatever_the_order_packs_and_shards(work):
    """The same policy and pairs: rows the other way round, other packs, the reference scored in two shards."""
    rows = [row | {"topic": f"t{i % 3}"} for i, row in enumerate(example_rows(40))]
    write_jsonl(work.data, rows)
    settings = ("eval.slices=[topic]", "run=run")
    work.run("run", *settings)
    metrics = work.root / "runs/run/eval/metrics.json"
    first = metrics.read_bytes()
    for place in ("store", "pairs", "runs/run/eval"):
        shutil.rmtree(work.root / place)
    write_jsonl(work.data, rows[::-1])
    for shard in ("0/2", "1/2"):
        work.run("precompute-ref", "scoring.pack_tokens=96", arguments={"shard": shard, "accept_drift": False})
    assert work.run("eval", *settings, "scoring.pack_tokens=64")["pairs_scored"] == 6
    assert metrics.read_bytes() == first


def test_a_run_is_never_its_own_baseline(work):
    work.run("run", "run=one")
    work.run("run", *NIGHT, "run=two", "train.seed=1")  # against one
    again = work.run("run", *NIGHT, "eval.baseline_runs=2", "run=one")
    assert [each["name"] for each in results(work, "one")["compared_with"]] == ["two"], again
    for asked in ("eval.baseline=one", f"eval.baseline={work.root}/runs/one", "eval.anchor=[two, one]"):
        document = work.run("eval", "eval.max_drop.loss=0", asked, "run=one", expect=2)
        assert "the evaluation that is being made" in document["message"]
        assert "it would always pass" in document["message"]


def test_a_baseline_is_kept_for_an_evaluation_and_not_for_the_run(work):
    """Held-out pairs that changed make another evaluation, which is held against what passed last by then."""
    held_out = write_jsonl(work.folder / "held.jsonl", example_rows(30, start=100))
    night = (*NIGHT, f"data.eval={held_out}", "data.eval_fraction=null")
    for seed, name in enumerate(("one", "two", "three")):
        work.run("run", *night, f"run={name}", f"train.seed={seed}")
    write_jsonl(held_out, example_rows(60, start=100))
    refused = work.run("run", *night, "run=two", "train.seed=1", expect=2)
    assert "The baseline three was evaluated on other pairs" in refused["message"]
    work.run("run", *night, "eval.baseline=null", "eval.max_drop={}", "run=three", "train.seed=2")
    work.run("run", *night, "run=two", "train.seed=1")
    assert results(work, "two")["compared_with"][0]["name"] == "three"
    kept = json.loads((work.root / "runs/two/eval/baseline.json").read_text())
    assert kept["runs"] == ["three"] and kept["identity"] == results(work, "two")["identity"]


def test_columns_that_slices_are_cut_by_are_read_from_their_source_once(work, monkeypatch):
    """They count in whether an evaluation is looked at again: every job reads them, and a million rows take long."""
    reads = []
    monkeypatch.setattr(pair_facts, "row_columns", lambda *asked: reads.append(asked) or row_columns(*asked))
    write_jsonl(work.data, [row | {"topic": f"t{i % 3}"} for i, row in enumerate(example_rows(40))])
    for n in (1, 2):
        work.run("run", "eval.slices=[topic]")
        assert len(reads) == n


def test_a_run_that_passed_before_and_fails_now_is_told_to_be_passed_still(work):
    work.run("run", "run=one")
    strict = ("run=one", "eval.min.ranking_accuracy=1.0")
    first = work.run("eval", *strict, expect=5)["message"]
    assert "It was not made `passed`" not in first
    assert "`passed` stands for it since it passed under other limits, and still does" in first
    other = work.run("run", "run=two", "train.seed=1", "eval.min.ranking_accuracy=1.0", expect=5)["message"]
    assert "It was not made `passed`" in other and (work.root / "passed").resolve().name == "one"


def test_pairs_of_one_prompt_are_no_proof_of_a_limit(work):
    rows = [row | {"prompt": "How many times?"} for row in example_rows(4, start=100)]
    held_out = (f"data.eval={write_jsonl(work.folder / 'held.jsonl', rows)}", "data.eval_fraction=null")
    document = work.run("run", *held_out, "eval.min={reward_margin: -1000}", expect=2)
    assert "reward_margin has no interval, for all held-out pairs have one prompt" in document["message"]
    assert not (work.root / "passed").exists()
    work.run("run", *held_out, "run=one", "eval.min={reward_margin: -1000}", "eval.point=true")
    moved = ("eval.baseline=one", "eval.max_rise={loss: 1000}", "run=two", "train.seed=1")
    assert "The limit on loss cannot be judged" in work.run("run", *held_out, *moved, expect=2)["message"]


def test_one_changed_score_of_a_baseline_is_found(work):
    work.run("run", "run=one")
    path = work.root / "runs/one/eval/pairs.parquet"
    table = pq.read_table(path)
    changed = pa.array([value - 1e-9 for value in table["margin"].to_pylist()])
    pq.write_table(table.set_column(table.column_names.index("margin"), "margin", changed), path)
    document = work.run("run", *NIGHT, "run=two", "train.seed=1", expect=4)
    assert "does not hold the scores that metrics.json beside it was made of" in document["message"]


def test_pairs_that_training_has_seen_can_have_a_limit(work):
    write_jsonl(work.data, example_rows(40))
    held_out = write_jsonl(work.folder / "held.jsonl", [*example_rows(6, start=100), *example_rows(2)])
    leaked = (f"data.eval={held_out}", "data.eval_fraction=null", "eval.max.leaked_pairs=0")
    document = work.run("run", *leaked, expect=5)["jobs"][2]
    assert document["metrics"]["leaked_pairs"] == document["metrics"]["leaked_prompts"] == 2
    assert "leaked_pairs is 2.0000, at most 0 is wanted" in document["message"]


def test_a_dry_run_says_what_is_left_to_do_and_what_would_be_refused(work):
    work.run("run")
    assert work.run("eval", "--dry-run")["status"] == "nothing_to_do"
    planned = work.run("eval", "--dry-run", "eval.min.reward_accuracy=0.5", "eval.external.judge=exit 3")
    assert planned["status"] == "dry_run" and planned["responses_scored"] == 0
    assert [step["would"] for step in planned["plan"]] == ["run", "judge"]
    refused = work.run("eval", "--dry-run", "eval.baseline=nowhere", "eval.max_drop.loss=1", expect=2)
    assert "There is no evaluation in nowhere" in refused["message"]


def test_what_one_command_said_is_kept_where_the_next_one_fails(work):
    asked = work.folder / "asked"
    judge = f"echo >> {asked}; echo '{{\"win_rate\": 0.6}}'"
    work.run("run", f"eval.external={json.dumps({'judge': judge, 'other': 'exit 3'})}", expect=2)
    commands = {"judge": judge, "other": """echo '{"x": 1}'"""}
    metrics = work.run("eval", f"eval.external={json.dumps(commands)}")["metrics"]
    assert (metrics["judge/win_rate"], metrics["other/x"]) == (0.6, 1)
    assert asked.read_text().count("\n") == 1


def test_a_report_that_cannot_be_made_costs_no_verdict(work, monkeypatch, capsys):
    def broken(*_, **__):
        raise ValueError("no ink")

    monkeypatch.setattr("pipeline.eval_job.write_report", broken)
    document = work.run("run", "eval.min.reward_margin=1000", expect=5)
    assert document["jobs"][2]["verdict"] == "failed" and "report" not in document["outputs"]
    said = capsys.readouterr().err
    assert "the report could not be made (ValueError: no ink); the verdict stands" in said
