"""What saves memory in training, through the command: no bit lost to it, nor to memory that runs out."""

import json
from itertools import count

import pytest

from pipeline.control import ProcessControl
from tests.tiny import example_rows, save_model, write_jsonl

# The limit is what the process has when a few steps are behind it; what it freed before can be used, and no more.
LIMITED = """
import resource, sys
from itertools import count
from pathlib import Path
import pipeline
from pipeline.chain import Options, run_command
from pipeline.control import ProcessControl

asked = count()

def stop_requested(self):
    if next(asked) == {batches}:
        used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (used, resource.RLIM_INFINITY))
    return False

ProcessControl.stop_requested = stop_requested
sys.exit(run_command("train", Options(Path(sys.argv[1]), sys.argv[2:], True, False, True, 0)))
"""


def test_out_of_memory_in_training_keeps_the_last_checkpoint_and_says_which_keys_save_memory(work):
    """The model is wide and one pair much longer than the others: it comes in the last step, the limit in step 7."""
    model = save_model(work.folder / "wide", intermediate_size=4096)
    write_jsonl(
        work.data,
        [*example_rows(12), {"prompt": "Why? " * 300, "chosen": "It jumps. " * 20, "rejected": "Nobody. " * 20}],
    )
    settings = ("train.pairs_per_step=1", "train.epochs=1", "train.checkpoint_every=2", "data.eval_fraction=0",
                "data.max_length=2048", f"reference.model={model}", "train.objective=simpo")  # fmt: skip
    process = work.command(str(work.config), *settings, module=LIMITED.format(batches=6))
    document = json.loads(process.stdout)
    assert process.returncode == document["exit_code"] == 6, process.stderr
    message = document["message"]
    assert message.startswith("Memory ran out: ") and "train.optim: adamw_8bit, train.lora, a lower data" in message
    assert "Set train.gradient_checkpointing: true or lower scoring.pack_tokens: the same command then goes" in message
    resumed = work.run("train", *settings, "train.gradient_checkpointing=true")
    assert resumed["status"] == "done" and 6 <= resumed["steps_before"] <= 12


def trained(work, *settings):
    """The run's name, and its weights."""
    document = work.run("train", *settings)
    return document["run"], (work.root / "runs" / document["run"] / "policy/model.safetensors").read_bytes()


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_gradient_checkpointing_is_no_part_of_a_run_and_changes_no_weight(make_work, dtype):
    settings = ("train.objective=simpo", f"reference.dtype={dtype}", "train.epochs=1")
    plain = trained(make_work(), *settings)
    assert trained(make_work(), *settings, "train.gradient_checkpointing=true") == plain


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_run_with_8_bit_moments_goes_on_exactly_and_is_a_run_of_its_own(make_work, monkeypatch, tmp_path, dtype):
    model = save_model(tmp_path / "wide", hidden_size=64)  # matrices of 4,096 numbers and more
    settings = ("train.objective=simpo", f"reference.dtype={dtype}", "train.epochs=1", f"reference.model={model}")
    moments = (*settings, "train.optim=adamw_8bit")
    straight, stopped = make_work(), make_work()
    golden = trained(straight, *moments)
    asked = count()
    with monkeypatch.context() as patch:
        patch.setattr(ProcessControl, "stop_requested", lambda self: next(asked) >= 4)
        stopped.run("train", *moments, expect=75)
    assert trained(stopped, *moments) == golden
    name, weights = trained(straight, *settings)
    assert name != golden[0] and weights != golden[1]
