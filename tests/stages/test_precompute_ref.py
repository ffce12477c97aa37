"""Job one: what it stores, how it goes on, and what it says where it cannot."""

import json
import shutil
from itertools import count

import pyarrow.parquet as pq
import pytest
import torch

from pipeline.control import ProcessControl
from stages.scoring.scorer import Scorer
from tests.families import build as build_family
from tests.families import naive_sum
from tests.tiny import build_model, example_rows, write_jsonl


def test_the_stored_sums_are_the_naive_sums(work):
    work.run("precompute-ref")
    rows = {row["pair_key"]: row for row in work.stored_rows().to_dicts()}
    pairs = work.prepared().all
    assert len(rows) == len(pairs) == 40
    model = build_model()
    for pair in pairs:
        row = rows[pair.key]
        for side, response in (("chosen", pair.chosen), ("rejected", pair.rejected)):
            with torch.no_grad():
                assert row[f"ref_{side}_logps"] == pytest.approx(float(naive_sum(model, response)), abs=1e-4)
            assert row[f"n_{side}"] == response.n_scored
            assert row[f"{side}_key"] == response.key
        assert row["n_prompt"] == len(pair.chosen.prompt_ids)
        assert row["prompt_key"] == pair.prompt_key


def test_a_finished_rerun_scores_nothing_and_changes_nothing(work):
    first = work.run("precompute-ref")
    assert (first["pairs"], first["pairs_scored"], first["responses_scored"]) == (40, 40, 80)
    before = {path: path.stat().st_mtime_ns for path in (work.root / "store").rglob("*")}
    again = work.run("precompute-ref")
    assert again["status"] == "nothing_to_do"
    assert (again["pairs_scored"], again["responses_scored"], again["pairs_stored_before"]) == (0, 0, 40)
    assert {path: path.stat().st_mtime_ns for path in (work.root / "store").rglob("*")} == before


def test_the_size_of_packs_does_not_change_a_bit(work):
    """The same parts, but for the pack length in what they say of their making."""
    work.run("precompute-ref")
    rows = work.stored_rows()
    shutil.rmtree(work.root / "store")
    work.run("precompute-ref", "scoring.pack_tokens=100", "store.unit_pairs=3")
    assert rows.equals(work.stored_rows())


def test_packs_and_rows_are_two_references_and_auto_takes_the_one_that_is_stored(work):
    rows = work.run("precompute-ref", "scoring.backend=rows")
    assert work.run("precompute-ref")["status"] == "nothing_to_do"
    packs = work.run("precompute-ref", "scoring.backend=segments")
    assert packs["pairs_scored"] == 40 and packs["reference_id"] != rows["reference_id"]
    assert work.run("precompute-ref")["reference_id"] == packs["reference_id"]


def test_a_model_that_packs_would_misread_is_stored_and_found_again_as_rows(work):
    model = build_family("bloom")
    for part in work.model.iterdir():
        if part.name.startswith(("tokenizer", "special", "chat")):
            (work.folder / "bloom").mkdir(exist_ok=True)
            shutil.copy(part, work.folder / "bloom")
    model.save_pretrained(work.folder / "bloom")
    setting = f"reference.model={work.folder / 'bloom'}"
    document = work.run("precompute-ref", setting)
    identity = json.loads((work.root / "store" / document["reference_id"] / "reference.json").read_text())["identity"]
    assert identity["attention"] == "rows"
    assert work.run("precompute-ref", setting)["status"] == "nothing_to_do"
    assert work.run("train", setting, "train.epochs=1")["status"] == "done"
    assert work.run("eval", setting, "train.epochs=1")["status"] == "done"
    message = work.run("precompute-ref", setting, "scoring.backend=segments", expect=2)["message"]
    assert "scoring.backend: segments does not work here: BloomForCausalLM cannot be scored in packs" in message


def test_what_scored_a_value_is_only_claimed_of_values_scored_then(work):
    """A unit that reuses earlier values may not say that its stack made them."""
    work.run("precompute-ref")
    rows = example_rows(40)
    rows[0] = {**rows[0], "chosen": rows[0]["rejected"], "rejected": rows[0]["chosen"]}
    rows[1] = {**rows[1], "rejected": "Something new, and long enough."}
    write_jsonl(work.data, [*rows, *example_rows(2, start=99)])
    before = set((work.root / "store").glob("*/parts/*.parquet"))
    work.run("precompute-ref", "store.unit_pairs=1")
    stacks = [pq.read_schema(p).metadata for p in set((work.root / "store").glob("*/parts/*.parquet")) - before]
    assert sorted(stack.get(b"reused", b"none") for stack in stacks) == [b"none", b"none", b"some", b"some"]


def test_shared_sums_are_over_as_many_tokens_of_each_side(work):
    from data.schema import Response

    work.run("precompute-ref")
    rows = {row["pair_key"]: row for row in work.stored_rows().to_dicts()}
    model = build_model()
    for pair in work.prepared().all:
        shared = min(pair.chosen.n_scored, pair.rejected.n_scored)
        for name, side in (("chosen", pair.chosen), ("rejected", pair.rejected)):
            cut = Response(side.prompt_ids, side.ids[:shared], side.mask[:shared])
            with torch.no_grad():
                expected = float(naive_sum(model, cut))
            assert rows[pair.key][f"ref_{name}_shared_logps"] == pytest.approx(expected, abs=1e-4)


CPU_MESSAGE = (
    "[enforce fail at alloc_cpu.cpp:127] err == 0. DefaultCPUAllocator: can't allocate memory: you tried to allocate"
)


@pytest.mark.parametrize(
    ("error", "behind"),
    [(torch.OutOfMemoryError("CUDA out of memory"), True), (MemoryError(), True), (RuntimeError(CPU_MESSAGE), False)],
)
def test_memory_that_runs_out_means_smaller_packs_and_the_same_values(make_work, monkeypatch, error, behind):
    golden, work = make_work(), make_work()
    golden.run("precompute-ref")
    monkeypatch.setattr(Scorer, "is_asynchronous", behind)
    real = Scorer.token_logps

    def limited(scorer, responses, limit=200):
        if sum(len(response) for response in responses) > limit:
            raise error
        return real(scorer, responses)

    monkeypatch.setattr(Scorer, "token_logps", limited)
    work.run("precompute-ref", "scoring.pack_tokens=1600")
    assert work.stored_rows().equals(golden.stored_rows())
    stacks = {pq.read_schema(path).metadata[b"pack_tokens"] for path in (work.root / "store").glob("*/parts/*")}
    assert stacks == {b"100"}  # 1,600 halved until whole responses, prompts counted with each, are few enough
    shutil.rmtree(work.root / "store")
    monkeypatch.setattr(Scorer, "token_logps", lambda scorer, responses: limited(scorer, responses, limit=10))
    assert "Memory ran out" in work.run("precompute-ref", expect=6)["message"]
    assert not list((work.root / "store").glob("*/parts/*"))


@pytest.mark.parametrize("finished", [1, 2, 4])
def test_a_job_that_was_killed_goes_on_and_ends_with_the_same_bytes(make_work, finished):
    """The units that a dead job had committed are all it leaves; what is scored again is only the rest."""
    golden, work = make_work(), make_work()
    for each in (golden, work):
        each.run("precompute-ref")
    parts = sorted((work.root / "store").glob("*/parts/*"))
    for part in parts[finished:]:
        part.unlink()
    left = sum(pq.read_metadata(part).num_rows for part in parts[:finished])
    document = work.run("precompute-ref")
    assert document["pairs_scored"] == 40 - left
    assert work.stored_rows().equals(golden.stored_rows())


def test_a_damaged_part_is_set_aside_and_scored_again(work, caplog):
    work.run("precompute-ref")
    golden = work.stored_rows()
    part = sorted((work.root / "store").glob("*/parts/*"))[0]
    content = bytearray(part.read_bytes())
    content[len(content) // 2] ^= 1
    part.write_bytes(content)
    document = work.run("precompute-ref")
    assert document["pairs_scored"] > 0
    assert work.stored_rows().equals(golden)
    assert list((work.root / "store").glob("*/quarantine/*.parquet"))


def test_a_dry_run_says_what_is_missing_and_writes_nothing(work):
    document = work.run("precompute-ref", "--dry-run")
    assert document["status"] == "dry_run"
    assert (document["pairs_scored"], document["responses_scored"]) == (40, 80)
    assert document["tokens"] > 0 and "seconds_estimated" not in document
    assert document["disk_bytes"] > 0
    assert not (work.root / "store").exists() and not (work.root / "pairs").exists()
    work.run("precompute-ref")
    assert work.run("precompute-ref", "--dry-run")["status"] == "nothing_to_do"
    write_jsonl(work.data, example_rows(42))
    grown = work.run("precompute-ref", "--dry-run")
    assert grown["responses_scored"] == 4 and grown["seconds_estimated"] >= 0


def test_a_logp_that_is_not_finite_is_never_stored(work):
    from safetensors.torch import load_file, save_file

    shutil.copytree(work.model, work.folder / "broken")
    file = work.folder / "broken" / "model.safetensors"
    tensors = load_file(file)
    tensors["model.norm.weight"][:] = float("nan")
    save_file(tensors, file, metadata={"format": "pt"})
    document = work.run("precompute-ref", f"reference.model={work.folder / 'broken'}", expect=1)
    assert "not finite or above 0 for " in document["message"]
    assert f"rows {work.data}:" in document["message"] and "nothing of this unit was stored" in document["message"]
    assert not list((work.root / "store").glob("*/parts/*"))


@pytest.mark.parametrize("checks", [0, 3])
def test_a_signal_drops_the_unit_under_way_and_keeps_the_others(make_work, monkeypatch, checks):
    golden, work = make_work(), make_work()
    golden.run("precompute-ref")
    asked = count(-1)  # reading asks too, once a part
    with monkeypatch.context() as patch:
        patch.setattr(ProcessControl, "stop_requested", lambda self: next(asked) >= checks)
        document = work.run("precompute-ref", "scoring.pack_tokens=300", expect=75)
    assert document["status"] == "interrupted" and "the one under way was dropped" in document["message"]
    before = work.run("precompute-ref", "--dry-run")["pairs_stored_before"]
    assert before % 8 == 0 and before < 40
    assert work.run("precompute-ref")["pairs_scored"] == 40 - before
    assert work.stored_rows()["pair_key"].equals(golden.stored_rows()["pair_key"])
