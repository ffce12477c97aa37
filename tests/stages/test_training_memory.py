"""Memory that runs out in training, by a limit that the system enforces: code 6, a hint, and nothing lost."""

import json

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
