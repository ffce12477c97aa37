"""`pipeline gc`: only what nobody names goes, only when asked; merging changes no value."""

import json
import os
import shutil

import pytest

from data.store.reference_store import ReferenceStore
from data.store.storage import LocalStorage
from tests.tiny import example_rows, write_jsonl


def files(work):
    return {str(path.relative_to(work.root)) for path in (work.root / "store").rglob("*") if path.is_file()}


def store(work):
    return ReferenceStore(LocalStorage(work.root / "store"), work.run("precompute-ref")["reference_id"])


def test_a_dry_run_is_the_default_and_changes_nothing(work):
    work.run("precompute-ref", "reference.dtype=bfloat16")
    work.run("precompute-ref")
    before = files(work)
    document = work.run("gc", "--dry-run", arguments={"compact": True})
    assert [each["name"] for each in document["references"]] == ["tiny-bfloat16"]
    assert (document["parts_merged"], document["parts_made"]) == (10, 2)
    assert files(work) == before
    done = work.command("gc", "--config", str(work.config))
    assert "would go: reference tiny-bfloat16" in done.stdout and "--apply does it" in done.stdout
    assert files(work) == before


def test_what_a_run_or_the_lock_names_stays(work):
    work.run("precompute-ref", "reference.dtype=bfloat16")
    work.run("train", "reference.dtype=bfloat16", "train.epochs=1")
    work.run("precompute-ref", "scoring.backend=rows")
    kept = work.run("precompute-ref", "scoring.backend=segments")["reference_id"]
    document = work.run("gc")
    assert [each["name"] for each in document["references"]] == ["tiny-float32-rows"]
    left = {path.name for path in (work.root / "store").iterdir()}
    assert kept in left and len(left) == 2
    assert work.run("eval", "reference.dtype=bfloat16", "train.epochs=1")["status"] == "done"


def test_a_store_that_others_may_use_loses_only_what_is_named(work):
    url = f"store.url={work.root / 'store'}"
    work.run("precompute-ref", url, "reference.dtype=bfloat16")
    work.run("precompute-ref", url)
    document = work.run("gc", url)
    assert document["references"] == [] and [each["name"] for each in document["unnamed_but_kept"]] == ["tiny-bfloat16"]
    assert len(list((work.root / "store").iterdir())) == 2
    work.run("gc", url, arguments={"drop": ["tiny-bfloat16"]})
    assert len(list((work.root / "store").iterdir())) == 1
    message = work.run("gc", url, arguments={"drop": ["tiny-bfloat16"]}, expect=4)["message"]
    assert "has no reference of the name or id tiny-bfloat16. It holds: tiny-float32" in message


def test_parts_that_were_set_aside_go(work):
    part = sorted((work.root / "store").glob("*/parts/*"))[0] if work.run("precompute-ref") else None
    part.write_bytes(b"")
    work.run("precompute-ref")
    assert work.run("gc")["files"] == [f"{part.parts[-3]}/quarantine/{part.name}"]
    assert not [name for name in files(work) if "quarantine" in name]
    assert work.run("gc")["files"] == []


def test_merging_keeps_every_row_and_every_token(work):
    for n in (10, 20, 30, 40):
        write_jsonl(work.data, example_rows(n))
        work.run("precompute-ref", "store.unit_pairs=2")
    whole = store(work)
    before = whole.rows().sort("pair_key")
    keys = [*before["chosen_key"], *before["rejected_key"]]
    tokens = whole.token_logps(keys, damaged="refuse")
    document = work.run("gc", arguments={"compact": True})
    assert document["parts_merged"] > 30 and document["parts_made"] == 2
    assert len(whole.part_names()) == 1
    assert whole.rows().sort("pair_key").equals(before)
    after = whole.token_logps(keys, damaged="refuse")
    assert {key: value.tobytes() for key, value in after.items()} == {k: v.tobytes() for k, v in tokens.items()}
    assert work.run("precompute-ref")["status"] == "nothing_to_do"
    assert work.run("gc", arguments={"compact": True})["parts_merged"] == 0


def test_parts_of_different_stacks_are_not_merged(work):
    whole = store(work)
    for name, part in list(whole.checked_parts("parts"))[:2]:
        whole.replace("parts", [name], part.table, {"device": "another"})
    before = whole.rows().sort("pair_key")
    work.run("gc", arguments={"compact": True})
    assert len(whole.part_names()) == 2
    assert whole.rows().sort("pair_key").equals(before)


def test_where_two_parts_disagree_the_same_one_wins_after_merging(work):
    import pyarrow as pa

    whole = store(work)
    _, part = next(whole.checked_parts("parts"))
    at = part.table.schema.get_field_index("ref_chosen_logps")
    for shift in (1.0, 2.0, 3.0):
        other = pa.array([value - shift for value in part.table["ref_chosen_logps"].to_pylist()], pa.float32())
        whole.replace("parts", [], part.table.set_column(at, "ref_chosen_logps", other), part.stack)
    before = whole.rows().sort("pair_key")
    work.run("gc", arguments={"compact": True})
    assert len(whole.part_names()) == 5
    assert whole.rows().sort("pair_key").equals(before)


@pytest.mark.parametrize("stop", [0, 1, 3])
def test_merging_that_is_interrupted_loses_nothing(work, monkeypatch, stop):
    whole = store(work)
    before = whole.rows().sort("pair_key")
    delete, calls = LocalStorage.delete, []

    def die(storage, name):
        calls.append(name)
        if len(calls) > stop:
            raise KeyboardInterrupt
        delete(storage, name)

    with monkeypatch.context() as patch:
        patch.setattr(LocalStorage, "delete", die)
        with pytest.raises(KeyboardInterrupt):
            work.run("gc", arguments={"compact": True})
    assert whole.rows().sort("pair_key").equals(before)
    work.run("gc", arguments={"compact": True})
    assert len(whole.part_names()) == 1
    assert whole.rows().sort("pair_key").equals(before)


def test_a_run_that_goes_on_after_merging_has_the_same_values(work):
    work.run("precompute-ref")
    settings = ("train.epochs=1", "run=mine")
    work.run("train", *settings)
    import shutil

    shutil.rmtree(work.root / "runs" / "mine" / "policy")
    work.run("gc", arguments={"compact": True})
    assert work.run("train", *settings)["status"] == "done"


def test_a_run_that_goes_on_with_other_values_is_refused(work):
    import pyarrow as pa

    whole = store(work)
    settings = ("train.epochs=1", "run=mine")
    work.run("train", *settings)
    import shutil

    shutil.rmtree(work.root / "runs" / "mine" / "policy")
    for name, part in list(whole.checked_parts("parts")):
        at = part.table.schema.get_field_index("ref_chosen_logps")
        other = pa.array([value - 1e-5 for value in part.table["ref_chosen_logps"].to_pylist()], pa.float32())
        whole.replace("parts", [name], part.table.set_column(at, "ref_chosen_logps", other), part.stack)
    message = work.run("train", *settings, expect=4)["message"]
    assert "The reference log-probs of run mine are no longer those that it was begun with" in message
    assert "Nothing was trained" in message


def test_what_was_set_aside_of_a_reference_goes_with_it_and_is_told_once(work):
    work.run("precompute-ref", "reference.dtype=bfloat16")
    part = sorted((work.root / "store").glob("*/parts/*"))[0]
    part.write_bytes(b"")
    work.run("precompute-ref", "reference.dtype=bfloat16")
    work.run("precompute-ref")
    document = work.run("gc")
    assert [each["name"] for each in document["references"]] == ["tiny-bfloat16"] and document["files"] == []
    assert not (work.root / "store" / part.parts[-3]).exists()


def test_what_a_dead_job_left_goes(work):
    whole = store(work)
    left = whole.storage.root / whole.reference_id / "parts" / ".tmp-elsewhere-1-a"
    left.touch()
    os.utime(left, (0, 0))
    work.run("gc", "--dry-run")
    assert left.exists()
    work.run("gc")
    assert not left.exists()


def test_answers_of_models_that_nobody_evaluates_any_more_go(work):
    generate = "eval.generate={prompts: 2, max_new_tokens: 4}"
    work.run("run", generate, "run=one")
    work.run("run", generate, "run=two", "train.beta=0.2")
    assert work.run("gc")["generations"] == []
    gone = json.loads((work.root / "runs/one/eval/metrics.json").read_text())["policy"]["id"]
    shutil.rmtree(work.root / "runs/one")
    assert work.run("gc", "--dry-run")["generations"] == [gone]
    assert (work.root / "generations" / gone).is_dir()
    work.run("gc")
    assert len(list((work.root / "generations").iterdir())) == 2  # the reference and the other policy
    assert work.run("eval", generate, "run=two", "train.beta=0.2")["status"] == "nothing_to_do"
