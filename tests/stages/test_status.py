"""`pipeline status`: what is stored, which field differs, what it cost, what is next; it changes nothing."""

import pytest

from tests.tiny import example_rows, save_model, write_jsonl


def snapshot(work):
    return {path: path.stat().st_mtime_ns for path in work.root.rglob("*")}


def test_before_anything_is_stored_it_says_what_to_run(work):
    document = work.run("status", "--dry-run")
    assert document["reference"]["pairs_missing"] == document["reference"]["pairs_wanted"] == 40
    assert document["reference"]["cost"] == {} and document["others"] == []
    assert document["next"] == "pipeline precompute-ref"


def test_it_follows_the_jobs_and_changes_nothing(work):
    work.run("precompute-ref")
    before = snapshot(work)
    document = work.run("status", "--dry-run")
    reference = document["reference"]
    assert (reference["name"], reference["pairs_stored"], reference["pairs_missing"]) == ("tiny-float32", 40, 0)
    assert reference["parts"] == 5 and reference["cost"]["pairs"] == 40 and reference["cost"]["jobs"] == 1
    assert document["next"] == "pipeline train"
    assert snapshot(work) == before
    work.run("train", "train.epochs=1")
    assert work.run("status", "--dry-run", "train.epochs=1")["next"] == "pipeline eval"
    assert work.run("status", "--dry-run", "train.epochs=2")["next"] == "pipeline train"
    work.run("eval", "train.epochs=1")
    assert work.run("status", "--dry-run", "train.epochs=1")["next"] is None
    assert work.run("status", "--dry-run", "train.epochs=1", "eval.reference_free=true")["next"] == "pipeline eval"


def test_the_marginal_cost_of_a_night_stands_beside_that_of_all(work):
    first = work.run("precompute-ref")
    write_jsonl(work.data, example_rows(42))
    second = work.run("precompute-ref")
    cost = work.run("status", "--dry-run")["reference"]["cost"]
    assert (cost["jobs"], cost["pairs"], cost["last"]["pairs"]) == (2, 42, 2)
    assert cost["tokens"] == first["tokens"] + second["tokens"] and cost["last"]["tokens"] == second["tokens"]
    assert 0 < cost["last"]["seconds"] < cost["seconds"]
    assert cost["full_pass_seconds"] == pytest.approx(cost["seconds"] / 84 * 84)  # 42 pairs of two responses each
    assert cost["last_share"] == pytest.approx(cost["last"]["seconds"] / cost["full_pass_seconds"])


def test_another_reference_is_named_with_the_field_that_differs(work):
    work.run("precompute-ref")
    save_model(work.folder / "moved", seed=1)
    document = work.run("status", "--dry-run", f"reference.model={work.folder / 'moved'}")
    assert document["reference"]["name"] == "moved-float32" and document["reference"]["pairs_missing"] == 40
    assert "40 of them are stored under reference tiny-float32" in document["reference"]["why"]
    (other,) = document["others"]
    assert (other["name"], other["pairs_stored"], other["pairs_wanted"]) == ("tiny-float32", 40, 40)
    assert [line.split(":")[0] for line in other["differs"]] == ["weights"]


def test_what_a_person_sees(work):
    work.run("precompute-ref")
    work.run("precompute-ref", "reference.dtype=bfloat16")
    done = work.command("status", "--config", str(work.config))
    assert done.returncode == 0
    lines = done.stdout.splitlines()
    assert lines[0] == f"store {work.root / 'store'}"
    assert "tiny-float32" in lines[1] and "40 of 40 pairs wanted are stored; it holds 40 in 5 parts" in lines[1]
    assert "1 job took" in lines[2] and "for 40 pairs" in lines[2]
    assert "tiny-bfloat16" in lines[3] and 'differs in compute_dtype: "bfloat16" -> "float32"' in lines[3]
    assert lines[-1] == "next: pipeline train"
