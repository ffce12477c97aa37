"""Job one: every response is scored once, whatever happens to rows, labels, order and configuration."""

import gzip
import json
import os
import shutil
import subprocess
import sys
from itertools import count

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from data.storage import LocalStorage
from data.store import ReferenceStore
from pipeline.control import ProcessControl
from stages.scoring.scorer import Scorer
from tests.families import build as build_family
from tests.families import naive_sum
from tests.tiny import ROOT, build_model, example_rows, save_model, write_jsonl


def stored_rows(work) -> pl.DataFrame:
    parts = sorted((work.root / "store").glob("*/parts/*.parquet"))
    return pl.concat([pl.read_parquet(part) for part in parts]).sort("pair_key")


def test_the_stored_sums_are_the_naive_sums(work):
    from data.pairs import PairsFolder

    work.run("precompute-ref")
    rows = {row["pair_key"]: row for row in stored_rows(work).to_dicts()}
    pairs = PairsFolder(work.root / "pairs").load(PairsFolder(work.root / "pairs").origin()).all
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


@pytest.mark.parametrize(
    "change",
    ["train.beta=0.5", "train.learning_rate=1e-5", "train.seed=3", "scoring.pack_tokens=100", "train.pairs_per_step=2",
     "data.eval_fraction=0.5", "data.dev_fraction=0.2", "store.unit_pairs=3", "run=other"],
)  # fmt: skip
def test_what_cannot_change_a_logp_scores_nothing(work, change):
    work.run("precompute-ref")
    assert work.run("precompute-ref", change)["status"] == "nothing_to_do"


def test_the_size_of_packs_does_not_change_a_bit(work):
    """The same parts, but for the pack length in what they say of their making."""
    work.run("precompute-ref")
    rows = stored_rows(work)
    shutil.rmtree(work.root / "store")
    work.run("precompute-ref", "scoring.pack_tokens=100", "store.unit_pairs=3")
    assert rows.equals(stored_rows(work))


def test_packs_and_rows_are_two_references_and_auto_takes_the_one_that_is_stored(work):
    rows = work.run("precompute-ref", "scoring.backend=rows")
    assert work.run("precompute-ref")["status"] == "nothing_to_do"
    packs = work.run("precompute-ref", "scoring.backend=segments")
    assert packs["pairs_scored"] == 40 and packs["reference_id"] != rows["reference_id"]
    assert work.run("precompute-ref")["reference_id"] == packs["reference_id"]


def test_a_model_that_packs_would_misread_is_stored_and_found_again_as_rows(work):
    model = build_family("gptj")
    for part in work.model.iterdir():
        if part.name.startswith(("tokenizer", "special", "chat")):
            (work.folder / "gptj").mkdir(exist_ok=True)
            shutil.copy(part, work.folder / "gptj")
    model.save_pretrained(work.folder / "gptj")
    setting = f"reference.model={work.folder / 'gptj'}"
    document = work.run("precompute-ref", setting)
    identity = json.loads((work.root / "store" / document["reference_id"] / "reference.json").read_text())["identity"]
    assert identity["attention"] == "rows"
    assert work.run("precompute-ref", setting)["status"] == "nothing_to_do"
    assert work.run("train", setting, "train.epochs=1")["status"] == "done"
    assert work.run("eval", setting, "train.epochs=1")["status"] == "done"
    message = work.run("precompute-ref", setting, "scoring.backend=segments", expect=2)["message"]
    assert "scoring.backend: segments does not work here: GPTJForCausalLM cannot be scored in packs" in message


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


def test_row_order_and_another_file_format_score_nothing(work):
    work.run("precompute-ref")
    moved = work.folder / "elsewhere.json.gz"
    with gzip.open(moved, "wt") as file:
        json.dump(example_rows(40)[::-1], file)
    assert work.run("precompute-ref", f"data.train={moved}")["status"] == "nothing_to_do"


def test_the_model_under_another_path_scores_nothing(work):
    work.run("precompute-ref")
    shutil.copytree(work.model, work.folder / "copy")
    assert work.run("precompute-ref", f"reference.model={work.folder / 'copy'}")["status"] == "nothing_to_do"


@pytest.mark.parametrize("change", ["reference.dtype=bfloat16", "reference.model={other}"])
def test_what_changes_a_logp_is_another_reference(work, change):
    first = work.run("precompute-ref")
    save_model(work.folder / "other", seed=1)
    second = work.run("precompute-ref", change.format(other=work.folder / "other"))
    assert second["pairs_scored"] == 40
    assert second["reference_id"] != first["reference_id"]


def test_one_weight_changed_by_one_ulp_is_another_reference(work):
    from safetensors.torch import load_file, save_file

    shutil.copytree(work.model, work.folder / "copy")
    change = f"reference.model={work.folder / 'copy'}"
    first = work.run("precompute-ref", change)
    file = work.folder / "copy" / "model.safetensors"
    tensors = load_file(file)
    weight = tensors["model.norm.weight"]
    weight[0] = torch.nextafter(weight[0], torch.tensor(2.0))
    save_file(tensors, file, metadata={"format": "pt"})
    assert work.run("precompute-ref", change)["reference_id"] != first["reference_id"]


def test_five_rows_appended_score_five_pairs(work):
    work.run("precompute-ref")
    write_jsonl(work.data, example_rows(45))
    document = work.run("precompute-ref")
    assert (document["pairs_scored"], document["responses_scored"]) == (5, 10)
    assert document["pairs_stored_before"] == 40


def test_a_flipped_label_and_a_new_pair_of_known_responses_score_no_response(work):
    rows = example_rows(10)
    rows.append({**rows[0], "rejected": "Many."})
    write_jsonl(work.data, rows)
    work.run("precompute-ref")
    flipped = {**rows[1], "chosen": rows[1]["rejected"], "rejected": rows[1]["chosen"]}
    between = {"prompt": rows[0]["prompt"], "chosen": rows[0]["rejected"], "rejected": "Many."}
    write_jsonl(work.data, [*rows, flipped, between])
    document = work.run("precompute-ref")
    assert (document["pairs_scored"], document["responses_scored"]) == (2, 0)
    assert len(stored_rows(work)) == 13


def test_a_fifth_answer_scores_one_response_and_gives_the_rows_of_scoring_all(make_work):
    """Also where the new answer is the shortest, so that the shared sums of all others are over other tokens."""
    work, golden = make_work(), make_work()
    answers = ["One, two, three, four.", "Two times.", "Three times over.", "Four, they say.", "No."]

    def rows(n):
        pairs = [(one, two) for i, one in enumerate(answers[:n]) for two in answers[i + 1 : n]]
        return [{"prompt": "How many?", "chosen": one, "rejected": two} for one, two in pairs]

    write_jsonl(work.data, [*rows(4), *example_rows(4)])
    work.run("precompute-ref", "data.eval_fraction=0")
    for each in (work, golden):
        write_jsonl(each.data, [*rows(5), *example_rows(4)])
    document = work.run("precompute-ref", "data.eval_fraction=0")
    assert (document["pairs_scored"], document["responses_scored"]) == (4, 1)
    golden.run("precompute-ref", "data.eval_fraction=0")
    assert stored_rows(work).equals(stored_rows(golden))


def test_shared_sums_are_over_as_many_tokens_of_each_side(work):
    from data.pairs import PairsFolder
    from data.schema import Response

    work.run("precompute-ref")
    rows = {row["pair_key"]: row for row in stored_rows(work).to_dicts()}
    model, folder = build_model(), PairsFolder(work.root / "pairs")
    for pair in folder.load(folder.origin()).all:
        shared = min(pair.chosen.n_scored, pair.rejected.n_scored)
        for name, side in (("chosen", pair.chosen), ("rejected", pair.rejected)):
            cut = Response(side.prompt_ids, side.ids[:shared], side.mask[:shared])
            with torch.no_grad():
                expected = float(naive_sum(model, cut))
            assert rows[pair.key][f"ref_{name}_shared_logps"] == pytest.approx(expected, abs=1e-4)


@pytest.mark.parametrize("count", [2, 3])
def test_any_number_of_workers_gives_the_rows_of_one(make_work, count):
    golden, work = make_work(), make_work()
    golden.run("precompute-ref")
    documents = [work.run("precompute-ref", arguments={"shard": f"{i}/{count}"}) for i in reversed(range(count))]
    assert sum(document["pairs_scored"] for document in documents) == 40
    assert {document["pairs_stored_before"] for document in documents} == {0}
    assert stored_rows(work).equals(stored_rows(golden))
    assert work.run("precompute-ref")["status"] == "nothing_to_do"


def test_workers_that_start_together_and_one_that_joins_late_share_the_work(work):
    """Real processes, on a work folder in which nothing is prepared yet."""
    command = [sys.executable, "-m", "pipeline", "precompute-ref", "--config", str(work.config), "--json"]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "WORLD_SIZE": "2"}
    workers = [
        subprocess.Popen(command, env=environment | {"RANK": str(rank)}, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        for rank in range(2)
    ]
    documents = [json.loads(worker.communicate(timeout=120)[0]) for worker in workers]
    assert [document["exit_code"] for document in documents] == [0, 0]
    assert sum(document["pairs_scored"] for document in documents) == 40
    late = work.run("precompute-ref", arguments={"shard": "1/4"})
    assert late["status"] == "nothing_to_do" and late["shard"] == "1/4"
    assert len(stored_rows(work)) == 40
    assert work.run("train", "train.epochs=1")["status"] == "done"


def test_a_worker_that_died_leaves_its_share_and_training_says_so(work):
    work.run("precompute-ref", arguments={"shard": "0/2"})
    stored = len(stored_rows(work))
    message = work.run("train", expect=4)["message"]
    assert "pairs have no reference log-probs under reference tiny-float32" in message
    assert work.run("precompute-ref", arguments={"shard": "1/2"})["pairs_scored"] == 40 - stored
    assert work.run("train", "train.epochs=1")["status"] == "done"


def test_more_new_pairs_than_the_budget_are_refused_with_the_tokenizer_that_moved(work):
    work.run("precompute-ref", "store.max_new_pairs=40")
    write_jsonl(work.data, example_rows(41))
    assert work.run("precompute-ref", "store.max_new_pairs=1")["pairs_scored"] == 1
    shutil.copytree(work.model, work.folder / "moved")
    template = work.folder / "moved" / "chat_template.jinja"
    template.write_text(template.read_text().replace("{{ m['content'] }}", " {{ m['content'] }}"))
    settings = (f"reference.model={work.folder / 'moved'}", "store.max_new_pairs=5")
    before = len(stored_rows(work))
    message = work.run("precompute-ref", *settings, expect=4)["message"]
    assert "41 of 41 pairs have no reference log-probs under reference moved-float32" in message
    assert "more than store.max_new_pairs = 5 lets one job add. Nothing was scored." in message
    assert "tokenizer.chat_template.jinja:" in message and "--set store.max_new_pairs=null" in message
    assert len(stored_rows(work)) == before
    assert work.run("precompute-ref", settings[0])["pairs_scored"] == 41


def test_a_budget_names_the_dtype_or_the_revision_that_moved(work):
    work.run("precompute-ref")
    message = work.run("precompute-ref", "reference.dtype=bfloat16", "store.max_new_pairs=0", expect=4)["message"]
    assert "40 of them are stored under reference tiny-float32" in message
    assert 'compute_dtype: "float32" -> "bfloat16"' in message
    save_model(work.folder / "moved", seed=1)
    settings = (f"reference.model={work.folder / 'moved'}", "store.max_new_pairs=39")
    message = work.run("precompute-ref", *settings, expect=4)["message"]
    assert "weights:" in message and "reference.model:" in message
    assert work.run("precompute-ref", settings[0], "store.max_new_pairs=40")["pairs_scored"] == 40


def change_stacks(work, shift=0.0, **stack):
    """The parts of the store as another machine would have made them."""
    for path in sorted((work.root / "store").glob("*/parts/*")):
        store = ReferenceStore(LocalStorage(work.root / "store"), path.parts[-3])
        table = pq.read_table(path)
        at = table.schema.get_field_index("ref_chosen_logps")
        moved = pa.array([value + shift for value in table["ref_chosen_logps"].to_pylist()], pa.float32())
        store.commit(table.set_column(at, "ref_chosen_logps", moved).replace_schema_metadata(None), stack)
        path.unlink()


def test_a_stack_that_the_store_has_not_seen_scores_some_stored_pairs_first(work):
    work.run("precompute-ref")
    assert "drift" not in work.run("precompute-ref", "reference.dtype=bfloat16")
    write_jsonl(work.data, example_rows(41))
    assert "drift" not in work.run("precompute-ref")
    change_stacks(work, shift=-1e-4, device="another machine", torch="1.0")
    write_jsonl(work.data, example_rows(42))
    drift = work.run("precompute-ref")["drift"]
    assert drift["responses"] == 82 and drift["max_abs"] == pytest.approx(1e-4, rel=0.1)
    write_jsonl(work.data, example_rows(43))
    assert "drift" not in work.run("precompute-ref")


def test_a_stack_that_scores_otherwise_is_refused_unless_it_is_accepted(work):
    work.run("precompute-ref")
    change_stacks(work, shift=-0.5, device="another machine", torch="1.0")
    assert work.run("precompute-ref")["status"] == "nothing_to_do"
    write_jsonl(work.data, example_rows(41))
    message = work.run("precompute-ref", expect=4)["message"]
    assert "scores 80 stored responses otherwise than the one that stored them (device another machine" in message
    assert "up to 0.5 nats apart" in message and "--accept-drift" in message and "Nothing was scored" in message
    assert len(stored_rows(work)) == 40
    document = work.run("precompute-ref", arguments={"accept_drift": True})
    assert document["pairs_scored"] == 1 and document["drift"]["max_abs"] == pytest.approx(0.5, rel=1e-3)


def test_each_job_that_scores_leaves_what_it_took_and_a_later_one_says_what_was_saved(work):
    first = work.run("precompute-ref")
    assert "seconds_saved" not in first
    write_jsonl(work.data, example_rows(41))
    second = work.run("precompute-ref")
    store = ReferenceStore(LocalStorage(work.root / "store"), first["reference_id"])
    costs = store.costs()
    assert [(cost["pairs"], cost["responses"]) for cost in costs] == [(40, 80), (1, 2)]
    assert [cost["tokens"] for cost in costs] == [first["tokens"], second["tokens"]]
    assert costs[0]["seconds"] == pytest.approx(first["seconds"], abs=1e-3)
    assert second["seconds_saved"] == pytest.approx(40 * costs[0]["seconds"] / 40, abs=0.06)
    work.run("precompute-ref")
    assert len(store.costs()) == 2 and store.costs(last=1) == costs[1:]
    trained = work.run("train", "train.epochs=3")
    rate = costs[1]["seconds"] / 2  # of the last job, a response
    assert trained["seconds_saved"] == pytest.approx(rate * 2 * trained["pairs"] * 3, abs=0.06)
    evaluated = work.run("eval", "train.epochs=3")
    assert evaluated["seconds_saved"] == pytest.approx(rate * 2 * evaluated["pairs"], abs=0.06)


CPU_MESSAGE = (
    "[enforce fail at alloc_cpu.cpp:127] err == 0. DefaultCPUAllocator: can't allocate memory: you tried to allocate"
)


@pytest.mark.parametrize(
    "error", [torch.OutOfMemoryError("CUDA out of memory"), MemoryError(), RuntimeError(CPU_MESSAGE)]
)
def test_memory_that_runs_out_means_smaller_packs_and_the_same_values(make_work, monkeypatch, error):
    golden, work = make_work(), make_work()
    golden.run("precompute-ref")
    real = Scorer.token_logps

    def limited(scorer, responses, limit=200):
        if sum(len(response) for response in responses) > limit:
            raise error
        return real(scorer, responses)

    monkeypatch.setattr(Scorer, "token_logps", limited)
    work.run("precompute-ref", "scoring.pack_tokens=1600")
    assert stored_rows(work).equals(stored_rows(golden))
    stacks = {pq.read_schema(path).metadata[b"pack_tokens"] for path in (work.root / "store").glob("*/parts/*")}
    assert stacks == {b"100"}  # 1,600 halved until whole responses, prompts counted with each, are few enough
    shutil.rmtree(work.root / "store")
    monkeypatch.setattr(Scorer, "token_logps", lambda scorer, responses: limited(scorer, responses, limit=10))
    assert "Memory ran out" in work.run("precompute-ref", expect=6)["message"]
    assert not list((work.root / "store").glob("*/parts/*"))


def test_four_answers_and_six_pairs_cost_four_passes(work):
    answers = ["One.", "Two times.", "Three times over.", "Four, they say."]
    rows = [
        {"prompt": "How many?", "chosen": chosen, "rejected": rejected}
        for i, chosen in enumerate(answers)
        for rejected in answers[i + 1 :]
    ]
    write_jsonl(work.data, [*rows, *example_rows(4)])
    assert work.run("precompute-ref")["responses_scored"] == 4 + 8


def test_the_same_pairs_in_any_order_are_stored_as_the_same_bytes(make_work):
    works = [make_work(), make_work()]
    write_jsonl(works[1].data, example_rows(40)[::-1])
    for work in works:
        work.run("precompute-ref")
    names = [sorted(path.name for path in (work.root / "store").glob("*/*/*.parquet")) for work in works]
    assert names[0] == names[1] and len(names[0]) == 10


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
    assert stored_rows(work).equals(stored_rows(golden))


def test_a_damaged_part_is_set_aside_and_scored_again(work, caplog):
    work.run("precompute-ref")
    golden = stored_rows(work)
    part = sorted((work.root / "store").glob("*/parts/*"))[0]
    content = bytearray(part.read_bytes())
    content[len(content) // 2] ^= 1
    part.write_bytes(content)
    document = work.run("precompute-ref")
    assert document["pairs_scored"] > 0
    assert stored_rows(work).equals(golden)
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
    asked = count(-40)  # reading the 40 rows asks too
    with monkeypatch.context() as patch:
        patch.setattr(ProcessControl, "stop_requested", lambda self: next(asked) >= checks)
        document = work.run("precompute-ref", "scoring.pack_tokens=300", expect=75)
    assert document["status"] == "interrupted" and "the one under way was dropped" in document["message"]
    before = work.run("precompute-ref", "--dry-run")["pairs_stored_before"]
    assert before % 8 == 0 and before < 40
    assert work.run("precompute-ref")["pairs_scored"] == 40 - before
    assert stored_rows(work)["pair_key"].equals(stored_rows(golden)["pair_key"])
