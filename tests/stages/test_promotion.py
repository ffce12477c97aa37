"""A policy becomes the reference: what its evaluation has scored is in the store without being scored again."""

import json
import shutil

import polars as pl
import pytest

from tests.tiny import example_rows, write_jsonl


def promoted(work, *settings):
    """Job one with the policy that passed as its reference."""
    return work.run("precompute-ref", f"reference.model={work.root / 'passed' / 'policy'}", *settings)


def parts(work, reference_id, folder):
    """Rows and stacks of a reference's files, whatever their number."""
    files = sorted((work.root / "store" / reference_id / folder).glob("*.parquet"))
    key = "pair_key" if folder == "parts" else "response_key"
    return pl.concat([pl.read_parquet(file) for file in files]).unique().sort(key)


@pytest.mark.parametrize("settings", [(), ("reference.dtype=bfloat16",), ("train.use_weighting=true",)])
def test_a_store_that_is_filled_by_promotion_equals_one_that_is_filled_by_scoring(work, make_work, settings):
    work.run("run", *settings)
    first = promoted(work, *settings)
    assert (first["pairs_promoted"], first["pairs_scored"], first["pairs"]) == (6, 34, 40)
    other = make_work()
    shutil.copytree(work.root / "passed" / "policy", other.folder / "policy")
    other.run("precompute-ref", f"reference.model={other.folder / 'policy'}", f"data.train={work.data}", *settings)
    reference_id = first["reference_id"]
    for folder in ("parts", "tokens"):
        assert parts(work, reference_id, folder).equals(parts(other, reference_id, folder))
    from data.store.reference_store import ReferenceStore
    from data.store.storage import LocalStorage

    stacks = ReferenceStore(LocalStorage(work.root / "store"), reference_id).rows()["stack"].unique()
    assert len(stacks) == 1 and "reused" not in json.loads(stacks[0])  # so that step 0 is held to the last bit


def test_an_evaluation_of_all_pairs_leaves_nothing_to_score_and_loads_no_model(work, monkeypatch):
    held_out = write_jsonl(work.folder / "held.jsonl", example_rows(12, start=100))
    work.run("run", f"data.eval={held_out}", "data.eval_fraction=null")
    monkeypatch.setattr("stages.scoring.scorer.load_scorer", None)
    settings = (f"data.train={held_out}", "data.eval_fraction=0")
    planned = promoted(work, *settings, "--dry-run")
    assert (planned["status"], planned["tokens"], planned["pairs"], planned["pairs_promoted"]) == (
        "nothing_to_do",
        0,
        12,
        12,
    )
    document = promoted(work, *settings)
    assert (document["status"], document["pairs_promoted"]) == ("nothing_to_do", 12)
    again = promoted(work, *settings)
    assert (again["status"], again["pairs_promoted"], again["pairs_stored_before"]) == ("nothing_to_do", 0, 12)
    references = {path.name: path for path in (work.root / "store").iterdir()}
    assert (references[document["reference_id"]] / "reference.json").is_file()


def test_training_from_a_promoted_reference_passes_step_zero(work):
    work.run("run")
    policy = f"reference.model={work.folder / 'sft'}"
    shutil.copytree(work.root / "passed" / "policy", work.folder / "sft")  # promoted for good
    assert work.run("run", policy, "train.beta=0.2")["status"] == "done"
    assert work.run("run", policy, "train.beta=0.2")["status"] == "nothing_to_do"


def test_another_dtype_or_another_policy_takes_nothing_over(work):
    work.run("run")
    assert promoted(work, "reference.dtype=bfloat16")["pairs_promoted"] == 0
    assert work.run("precompute-ref")["pairs_promoted"] == 0


def test_a_damaged_evaluation_is_passed_over_and_its_pairs_are_scored(work):
    work.run("run")
    (part, *_) = (work.root / "passed" / "eval" / "scores").glob("*/tokens/*.parquet")
    part.write_bytes(part.read_bytes()[:-1])
    document = promoted(work)
    assert (document["pairs_promoted"], document["pairs_scored"]) == (0, 40)


def test_the_next_evaluation_of_a_run_replaces_what_was_kept(work):
    from tests.tiny import build_model

    work.run("run")
    scores = work.root / "latest" / "eval" / "scores"
    (before,) = scores.iterdir()
    build_model(seed=8).save_pretrained(work.root / "latest" / "policy")
    work.run("eval")
    (after,) = scores.iterdir()
    assert after != before
