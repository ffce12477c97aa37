"""Job two: the reference is never loaded, runs are what their identity says, and resuming is exact."""

import itertools
import json
import math
import shutil
from itertools import count

import pytest
from safetensors.torch import load_file

from pipeline.control import ProcessControl
from stages.run_folder import RunFolder
from tests.tiny import example_rows, save_model, write_jsonl

TIMES = {"tokens_per_second", "peak_memory_bytes"}


def metrics(run):
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [{name: value for name, value in line.items() if name not in TIMES} for line in lines]


def weights(run) -> bytes:
    return (run / "policy" / "model.safetensors").read_bytes()


def run_of(work, document):
    return work.root / "runs" / document["run"]


def test_training_without_the_reference_on_this_machine(work):
    """The policy has its own folder; reference.lock and the store are all that is left of the reference."""
    shutil.copytree(work.model, work.folder / "reference")
    own = save_model(work.folder / "own", seed=5)
    settings = (f"reference.model={work.folder / 'reference'}", f"train.model={own}")
    work.run("precompute-ref", *settings)
    shutil.rmtree(work.folder / "reference")
    document = work.run("train", *settings)
    assert document["status"] == "done"
    assert work.run("eval", *settings)["n_pairs"] > 0


def test_the_policy_folder_is_a_whole_model_in_the_compute_dtype(work):
    from transformers import AutoModelForCausalLM, AutoTokenizer

    work.run("precompute-ref", "reference.dtype=bfloat16")
    document = work.run("train", "reference.dtype=bfloat16")
    policy = run_of(work, document) / "policy"
    loaded = AutoModelForCausalLM.from_pretrained(policy)
    assert str(loaded.dtype) == "torch.bfloat16"
    ids = AutoTokenizer.from_pretrained(policy).apply_chat_template([{"role": "user", "content": "Why?"}])["input_ids"]
    assert (
        ids
        == AutoTokenizer.from_pretrained(work.model).apply_chat_template([{"role": "user", "content": "Why?"}])[
            "input_ids"
        ]
    )


def test_the_first_step_starts_at_ln_2_and_training_lowers_the_loss(work):
    work.run("precompute-ref")
    lines = metrics(run_of(work, work.run("train")))
    assert lines[0]["loss"] == pytest.approx(math.log(2), abs=1e-5)
    assert lines[0]["rewards/margins"] == pytest.approx(0, abs=1e-5)
    assert lines[-1]["loss"] < 0.5
    assert all(before["num_tokens"] < after["num_tokens"] for before, after in itertools.pairwise(lines))
    assert {"rewards/chosen", "rewards/rejected", "rewards/accuracies", "logps/chosen", "logps/rejected", "grad_norm",
            "learning_rate", "epoch", "num_tokens"} <= lines[0].keys()  # fmt: skip


def test_the_gradient_does_not_depend_on_how_a_step_is_batched(make_work):
    trained = []
    for pack_tokens in (40, 4000):
        work = make_work()
        settings = (f"scoring.pack_tokens={pack_tokens}", "train.pairs_per_step=8")
        work.run("precompute-ref", *settings)
        trained.append(metrics(run_of(work, work.run("train", *settings))))
    for one, other in zip(*trained, strict=True):
        assert one["grad_norm"] == pytest.approx(other["grad_norm"], rel=1e-4)
        assert one["loss"] == pytest.approx(other["loss"], abs=1e-5)


def test_a_finished_run_is_not_trained_again(work):
    work.run("precompute-ref")
    first = work.run("train")
    before = weights(run_of(work, first))
    again = work.run("train")
    assert again["status"] == "nothing_to_do" and again["run"] == first["run"]
    assert weights(run_of(work, first)) == before


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("checks", [1, 3, 9, 10])
def test_an_interrupted_run_ends_as_if_it_never_was(make_work, monkeypatch, checks, dtype):
    """A stop after any number of batches, mid-step included: the same weights and metrics, bit for bit."""
    settings = ("scoring.pack_tokens=100", f"reference.dtype={dtype}", "train.warmup_steps=3", "train.weight_decay=0.1")
    straight, stopped = make_work(), make_work()
    for work in (straight, stopped):
        work.run("precompute-ref", *settings)
    golden = run_of(straight, straight.run("train", *settings))
    asked = count()
    with monkeypatch.context() as patch:
        patch.setattr(ProcessControl, "stop_requested", lambda self: next(asked) >= checks)
        document = stopped.run("train", *settings, expect=75)
    assert document["status"] == "interrupted" and "Run the same command again" in document["message"]
    interrupted = document["run"]
    resumed = run_of(stopped, stopped.run("train", *settings))
    assert interrupted == resumed.name
    assert weights(resumed) == weights(golden)
    assert metrics(resumed) == metrics(golden)


def test_resuming_from_a_checkpoint_takes_later_metrics_back(work, monkeypatch):
    bar, bars = ProcessControl.bar, []
    monkeypatch.setattr(ProcessControl, "bar", lambda self, *about: bars.append(about) or bar(self, *about))
    work.run("precompute-ref")
    run = run_of(work, work.run("train", "train.checkpoint_every=5"))
    golden = metrics(run)
    shutil.rmtree(run / "policy")  # as after a kill before the policy was saved
    (run / "checkpoints" / ".tmp-1").mkdir()  # and in the middle of a checkpoint
    document = work.run("train", "train.checkpoint_every=5")
    assert document["steps_before"] == 15 and document["steps_total"] == 18
    assert bars[-1] == (
        "training",
        2 * 34,
        34 + 6 * 4,
    )  # an epoch of nine steps, the last of two pairs, and six steps of four
    assert metrics(run) == golden
    assert [path.name for path in (run / "checkpoints").iterdir()] == ["step-00000015"]


def test_a_damaged_checkpoint_is_passed_over_for_the_one_before_it(work):
    settings = ("train.checkpoint_every=5", "train.keep=2")
    work.run("precompute-ref")
    run = run_of(work, work.run("train", *settings))
    golden = weights(run), metrics(run)
    shutil.rmtree(run / "policy")
    (run / "checkpoints" / "step-00000015" / "state.safetensors").write_bytes(b"")
    assert work.run("train", *settings)["steps_before"] == 10
    assert (weights(run), metrics(run)) == golden


def test_a_run_without_a_sound_checkpoint_is_not_begun_anew_unasked(work):
    work.run("precompute-ref")
    run = run_of(work, work.run("train", "train.checkpoint_every=5"))
    golden = weights(run)
    shutil.rmtree(run / "policy")
    (state,) = run.glob("checkpoints/step-*/state.safetensors")
    state.write_bytes(state.read_bytes()[:-1])
    message = work.run("train", "train.checkpoint_every=5", expect=4)["message"]
    assert "None of the checkpoints in" in message and "delete that folder to train from the beginning" in message
    shutil.rmtree(run / "checkpoints")
    assert work.run("train", "train.checkpoint_every=5")["steps_before"] == 0
    assert weights(run) == golden


def test_how_often_a_checkpoint_is_written_is_no_part_of_the_run(work):
    work.run("precompute-ref")
    first = work.run("train")
    assert work.run("train", "train.checkpoint_every=3")["run"] == first["run"]


def test_grown_data_make_a_new_run_and_leave_the_old_one(work):
    work.run("run")
    old = (work.root / "latest").resolve()
    files = {path: path.read_bytes() for path in old.rglob("*") if path.is_file()}
    write_jsonl(work.data, example_rows(44))
    document = work.run("run")
    new = (work.root / "latest").resolve()
    assert new != old and new.name == document["run"]
    assert {path: path.read_bytes() for path in old.rglob("*") if path.is_file()} == files


@pytest.mark.parametrize("change", ["train.beta=0.2", "train.seed=1", "train.epochs=1", "train.label_smoothing=0.1"])
def test_another_training_section_is_another_run(work, change):
    work.run("precompute-ref")
    assert work.run("train", change)["run"] != work.run("train")["run"]


def test_beta_and_label_smoothing_take_effect(make_work):
    finals = set()
    for settings in ((), ("train.beta=1.0",), ("train.label_smoothing=0.3",)):
        work = make_work()
        work.run("precompute-ref", *settings)
        finals.add(weights(run_of(work, work.run("train", *settings))))
    assert len(finals) == 3


def test_a_named_run_that_holds_another_run_is_refused_with_the_difference(work):
    work.run("precompute-ref")
    work.run("train", "run=nightly")
    document = work.run("train", "run=nightly", "train.beta=0.3", expect=2)
    assert "holds another run, which differs in: train.beta: 0.1 -> 0.3" in document["message"]


def test_a_run_that_was_refused_before_its_first_step_does_not_hold_its_name(work):
    work.run("precompute-ref")
    refused = work.run("train", "run=nightly", "train.lora={target_modules: nothing}", expect=2)
    assert "train.lora cannot be put on LlamaForCausalLM" in refused["message"]
    assert work.run("train", "run=nightly")["status"] == "done"


def test_a_run_in_the_middle_is_planned_and_evaluated_as_such(work, monkeypatch):
    work.run("precompute-ref")
    whole = work.run("train", "--dry-run")
    assert (whole["steps_before"], whole["steps_total"]) == (0, 18)
    asked = count()
    with monkeypatch.context() as patch:
        patch.setattr(ProcessControl, "stop_requested", lambda self: next(asked) >= 9)
        work.run("train", expect=75)
    rest = work.run("train", "--dry-run")
    assert rest["steps_before"] == 9 and rest["tokens"] == whole["tokens"] // 2
    message = work.run("eval", expect=4)["message"]
    assert "is not finished: its newest checkpoint is that of step 9. Let it finish, or run: pipeline train" in message


def test_sharding_in_one_process_is_named_and_quantised_weights_are_not_sharded(work, capsys):
    work.run("precompute-ref")
    work.run("train", "train.fsdp=true", "train.epochs=1")
    assert "train.fsdp: there is one process, so nothing is sharded" in capsys.readouterr().err
    document = work.run("train", "train.fsdp=true", "train.lora={}", "reference.quantization=nf4", expect=2)
    assert "quantised weights (reference.quantization) cannot be sharded" in document["message"]


def test_checkpoints_of_finished_runs_may_go(work):
    work.run("precompute-ref")
    run = run_of(work, work.run("train", "train.checkpoint_every=5"))
    golden = weights(run)
    listed = work.run("gc", "--dry-run", arguments={"compact": False, "drop": []})
    assert [each["run"] for each in listed["checkpoints"]] == [run.name] and listed["checkpoints"][0]["bytes"] > 100_000
    assert (run / "checkpoints").exists()
    work.run("gc", arguments={"compact": False, "drop": []})
    assert not (run / "checkpoints").exists()
    assert work.run("train", "train.checkpoint_every=5")["status"] == "nothing_to_do" and weights(run) == golden


def test_a_second_process_does_not_train_the_same_run(work):
    work.run("precompute-ref")
    run = RunFolder(work.root / "runs" / "nightly")
    with run.only_writer():
        document = work.run("train", "run=nightly", expect=6)
    assert "Another process is training in" in document["message"]
    assert work.run("train", "run=nightly")["status"] == "done"


def test_a_run_that_another_process_finished_meanwhile_is_not_trained_again(work, monkeypatch):
    work.run("precompute-ref")
    work.run("train")
    is_trained, first_answers = RunFolder.is_trained.fget, [False]
    monkeypatch.setattr(
        RunFolder, "is_trained", property(lambda run: first_answers.pop() if first_answers else is_trained(run))
    )
    assert work.run("train")["status"] == "nothing_to_do"


def test_missing_reference_logps_stop_training_before_any_work(work):
    document = work.run("train", expect=4)
    assert "34 of 34 pairs have no reference log-probs" in document["message"]
    assert "run: pipeline precompute-ref" in document["message"]
    assert not (work.root / "runs").exists()


def test_another_dtype_is_named_where_the_store_was_made_with_it(work):
    work.run("precompute-ref", "reference.dtype=bfloat16")
    document = work.run("train", expect=4)
    assert 'compute_dtype: "bfloat16" -> "float32"' in document["message"]


def test_training_and_evaluating_never_write_to_the_store(work):
    work.run("precompute-ref")
    store = work.root / "store"
    before = {path: (path.stat().st_mtime_ns, path.is_file() and path.read_bytes()) for path in store.rglob("*")}
    work.run("train")
    work.run("eval")
    assert {p: (p.stat().st_mtime_ns, p.is_file() and p.read_bytes()) for p in store.rglob("*")} == before


def test_a_reference_changed_on_disk_is_refused_with_the_difference(work):
    shutil.copytree(work.model, work.folder / "reference")
    settings = (f"reference.model={work.folder / 'reference'}",)
    work.run("precompute-ref", *settings)
    save_model(work.folder / "reference", seed=9)
    document = work.run("train", *settings, expect=4)
    assert "is no longer the model that was scored: weights: " in document["message"]


def test_step_zero_check_finds_an_edited_store(work):
    """A stored sum edited by 0.5, its part written again under the right name: only scoring again can tell."""
    import pyarrow as pa

    from data.store.reference_store import ReferenceStore
    from data.store.storage import LocalStorage

    document = work.run("precompute-ref")
    store = ReferenceStore(LocalStorage(work.root / "store"), document["reference_id"])
    stack = json.loads(store.rows()["stack"][0])
    table = store.rows().drop("stack").to_arrow()
    for part in (work.root / "store" / document["reference_id"] / "parts").iterdir():
        part.unlink()
    edited = [value + (0.5 if i == 7 else 0.0) for i, value in enumerate(table["ref_chosen_logps"].to_pylist())]
    index = table.schema.get_field_index("ref_chosen_logps")
    store.commit(table.set_column(index, "ref_chosen_logps", pa.array(edited, pa.float32())), stack)
    message = work.run("train", "data.eval_fraction=0", expect=4)["message"]
    assert "Step-0 check failed before the first update" in message and "up to 0.5 nats apart" in message
    assert "expected: none at all on the same machine and versions" in message


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_an_untouched_policy_gives_what_is_stored_to_the_last_bit(work, dtype):
    """Whatever the packs: stored in packs of 100 tokens, checked in packs of 1000."""
    work.run("precompute-ref", f"reference.dtype={dtype}", "scoring.pack_tokens=100")
    settings = (f"reference.dtype={dtype}", "scoring.pack_tokens=1000", "train.epochs=1")
    done = work.command("train", "--config", str(work.config), *(part for s in settings for part in ("--set", s)))
    assert done.returncode == 0
    assert "responses, each the same to the last bit" in done.stderr


def test_the_policy_moves_by_about_the_learning_rate(work):
    """One AdamW step moves a weight by at most the rate: a guard against a schedule that is not applied."""
    settings = ("train.epochs=1", "train.pairs_per_step=40", "train.learning_rate=1e-4")
    work.run("precompute-ref", *settings)
    after = load_file(run_of(work, work.run("train", *settings)) / "policy" / "model.safetensors")
    before = load_file(work.model / "model.safetensors")
    moved = max(float((after[name] - before[name]).abs().max()) for name in before)
    assert 0.5e-4 < moved < 1.01e-4
