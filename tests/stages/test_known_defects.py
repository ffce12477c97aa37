"""Defects seen in the best-known peer's cache of reference log-probs (TRL 1.16.0), and what happens here instead."""

import json
import shutil

import polars as pl
import pytest

from tests.jobs import Command
from tests.tiny import example_rows, write_jsonl


def test_another_learning_rate_scores_nothing(work):
    """There: with its default settings, a change of the learning rate alone scores the whole reference again."""
    work.run("precompute-ref", "train.learning_rate=1e-6")
    document = work.run("precompute-ref", "train.learning_rate=5e-7", "train.beta=0.3", "train.seed=9")
    assert (document["status"], document["responses_scored"]) == ("nothing_to_do", 0)


@pytest.mark.parametrize("max_length", [66, 64, 62])
def test_a_shorter_max_length_is_never_served_the_old_sums(work, make_work, max_length):
    """There: without `max_length`, or where the end is kept, a shorter one is served the sums of the longer texts."""
    work.run("precompute-ref")
    setting = f"data.max_length={max_length}"
    document = work.run("precompute-ref", setting)
    fresh = make_work()
    golden = fresh.run("precompute-ref", setting)
    assert 0 < document["pairs_scored"] < golden["pairs_scored"] == 40
    assert document["coverage"]["truncated"] == document["pairs_scored"]
    whole = fresh.stored_rows()
    assert (
        work.stored_rows().join(whole.select("pair_key"), on="pair_key").sort("pair_key").equals(whole.sort("pair_key"))
    )


def test_another_compute_dtype_is_never_served_the_old_values(work):
    """There: switching autocast on serves the values that were made without it."""
    first, second = (work.run("precompute-ref", f"reference.dtype={dtype}") for dtype in ("float32", "bfloat16"))
    assert second["pairs_scored"] == 40
    values = [work.stored_rows(document["reference_id"]).sort("pair_key") for document in (first, second)]
    assert not values[0]["ref_chosen_logps"].equals(values[1]["ref_chosen_logps"])


def test_rows_are_known_again_by_another_process_whatever_they_came_in(work):
    """There: rows that were not read from a file are scored anew by every process."""
    work.run("precompute-ref")
    rows = pl.DataFrame(example_rows(40)).sample(fraction=1.0, shuffle=True, seed=3)
    rows.write_parquet(work.folder / "rows.parquet")
    done = work.command("precompute-ref", "--config", str(work.config), "--json", "--set", "data.train=rows.parquet")
    assert json.loads(done.stdout)["status"] == "nothing_to_do"


def test_two_processes_at_once_finish_the_same_work(work):
    """There: two processes that score the same rows at the same time crash."""
    both = [Command(["precompute-ref", "--config", str(work.config), "--json"], work.folder) for _ in range(2)]
    assert [json.loads(process.finish().stdout)["exit_code"] for process in both] == [0, 0]
    assert work.stored_rows()["pair_key"].n_unique() == 40
    assert work.run("verify")["exit_code"] == 0


def test_a_start_from_another_checkpoint_does_not_change_the_reference(work):
    """There: whatever training starts from silently becomes the reference."""
    first = work.run("precompute-ref")
    work.run("train", "train.epochs=1")
    shutil.copytree(work.root / "latest" / "policy", work.folder / "checkpoint")
    setting = f"train.model={work.folder / 'checkpoint'}"
    again = work.run("precompute-ref", setting)
    assert (again["status"], again["reference_id"]) == ("nothing_to_do", first["reference_id"])
    run = work.run("train", setting, "train.epochs=1")["run"]
    document = json.loads((work.root / "runs" / run / "run.json").read_text())
    assert document["reference_id"] == first["reference_id"] != document["start_policy"]


def test_a_part_of_the_data_and_a_mixture_of_sets_score_only_what_is_new(work):
    """There: any other selection of rows is another data set, and is scored from the beginning."""
    work.run("precompute-ref")
    write_jsonl(work.data, example_rows(17, start=5))
    assert work.run("precompute-ref")["status"] == "nothing_to_do"
    more = write_jsonl(work.folder / "more.jsonl", [*example_rows(3, start=100), *example_rows(9)])
    document = work.run("precompute-ref", f"data.train=[{work.data}, {more}]")
    assert document["pairs_scored"] == 3
