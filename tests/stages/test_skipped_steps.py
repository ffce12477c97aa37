"""Rows that blow a step up: it is left out and named, and a run of nothing else ends."""

import json
import time

import pytest

from tests.stages.test_train import metrics, run_of
from tests.tiny import example_rows, write_jsonl

WEIGHTED = ("data.train={path: PATH, columns: {pair_weight: weight}}",)


def rows(heavy):
    """Rows of which some have a weight whose loss is beyond fp32."""
    return [row | {"weight": 1e39 if i in heavy else 1.0} for i, row in enumerate(example_rows(40))]


def settings(work):
    return (WEIGHTED[0].replace("PATH", str(work.data)), "data.eval_fraction=0", "train.checkpoint_every=3")


def test_a_step_that_is_not_finite_is_left_out_and_named(work, capsys):
    write_jsonl(work.data, rows({7}))
    work.run("precompute-ref", *settings(work))
    document = work.run("train", *settings(work), "train.epochs=3")
    assert document["steps_skipped"] == 3  # one an epoch, and none after another
    lines = metrics(run_of(work, document))
    skipped = [line["step"] for line in lines if line["loss"] is None]
    assert len(skipped) == 3 and [line["step"] for line in lines if line["grad_norm"] is None] == skipped
    assert len(lines) == 30 and lines[-1]["loss"] < 0.5
    warnings = [line for line in capsys.readouterr().err.splitlines() if "was left out" in line]
    assert len(warnings) == 3 and all(f"{work.data}:8" in message for message in warnings)
    assert f"step {skipped[0]} was left out: its loss is inf (rows " in warnings[0]
    found = work.run("inspect", *settings(work), "train.epochs=3", arguments={"step": skipped[0], "limit": 1})
    assert found["shown"][0]["location"] == f"{work.data}:8"


def test_three_in_a_row_end_the_run_and_keep_the_last_checkpoint(work):
    write_jsonl(work.data, rows(range(40)))
    work.run("precompute-ref", *settings(work))
    document = work.run("train", *settings(work), expect=1)
    assert "Training stopped at step 3: the loss is inf, and the 2 steps before were no better." in document["message"]
    assert "`pipeline inspect --step 3` shows what each came to" in document["message"]
    assert "A lower train.learning_rate, or reference.dtype: float32, usually helps." in document["message"]
    (run,) = (work.root / "runs").iterdir()
    assert len(metrics(run)) == 3 and not (run / "policy").exists()


def test_a_checkpoint_that_is_being_written_is_finished_before_the_run_ends(work, monkeypatch):
    from stages.training import checkpoint

    write_tensors = checkpoint.write_tensors

    def slowly(folder, tensors):
        time.sleep(0.5)
        write_tensors(folder, tensors)

    monkeypatch.setattr(checkpoint, "write_tensors", slowly)
    write_jsonl(work.data, rows(range(40)))
    work.run("precompute-ref", *settings(work))
    work.run("train", *settings(work), "train.checkpoint_every=2", expect=1)
    assert [path.name for path in work.root.glob("runs/*/checkpoints/*")] == ["step-00000002"]


def test_a_gradient_that_is_not_finite_is_left_out_too(work, monkeypatch):
    """A loss may be finite where its gradient is not."""
    import torch

    from stages.training.optimizer import MasterAdamW

    step, calls = MasterAdamW.step, []

    def spoiled(optimizer, *more):
        calls.append(1)
        if len(calls) == 4:
            next(iter(optimizer.masters.values())).grad.view(-1)[0] = torch.inf
        return step(optimizer, *more)

    monkeypatch.setattr(MasterAdamW, "step", spoiled)
    work.run("precompute-ref")
    document = work.run("train")
    lines = metrics(run_of(work, document))
    assert document["steps_skipped"] == 1 and lines[3]["grad_norm"] is None and lines[3]["loss"] is not None
    assert all(json.dumps(line, allow_nan=False) for line in lines)


@pytest.mark.parametrize("change", ["train.beta=0.2", "train.lora={r: 4}", "train.pairs_per_step=5"])
def test_an_interrupted_run_does_not_go_on_under_another_configuration(work, monkeypatch, change):
    from itertools import count

    from pipeline.control import ProcessControl

    work.run("precompute-ref")
    asked = count()
    with monkeypatch.context() as patch:
        patch.setattr(ProcessControl, "stop_requested", lambda self: next(asked) >= 6)
        work.run("train", "run=night", expect=75)
    message = work.run("train", "run=night", change, expect=2)["message"]
    key = change.partition("=")[0]
    assert f"holds another run, which differs in: {key}" in message
    allowed = ("train.checkpoint_every=3", "train.keep=2", "train.gradient_checkpointing=true", "train.ddp_timeout=9",
               "train.report_to=tensorboard", "train.deterministic=true", "train.fsdp=true")  # fmt: skip
    assert work.run("train", "run=night", *allowed)["steps_before"] > 0
