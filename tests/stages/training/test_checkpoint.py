"""Checkpoints are complete or invisible, and are checked before they are believed."""

import pytest
import torch

from stages.training.checkpoint import newest_checkpoint, save_checkpoint

TENSORS = {"master.w": torch.arange(6.0).reshape(2, 3), "step.w": torch.tensor(3.0)}


def test_what_is_saved_is_loaded(tmp_path):
    save_checkpoint(tmp_path, TENSORS, step=3, tokens=99, identity="run")
    checkpoint = newest_checkpoint(tmp_path, "run")
    assert (checkpoint.step, checkpoint.tokens) == (3, 99)
    loaded = checkpoint.tensors()
    assert loaded.keys() == TENSORS.keys()
    assert all(torch.equal(loaded[name], TENSORS[name]) for name in TENSORS)


def test_only_the_newest_is_kept(tmp_path):
    for step in (1, 2, 10):
        save_checkpoint(tmp_path, TENSORS, step, 0, "run")
    assert [path.name for path in tmp_path.iterdir()] == ["step-00000010"]


@pytest.mark.parametrize("name", ["state.safetensors", "checkpoint.json"])
@pytest.mark.parametrize("length", [0, 5])
def test_a_truncated_checkpoint_is_passed_over(tmp_path, name, length, caplog):
    save_checkpoint(tmp_path, TENSORS, 3, 0, "run")
    file = tmp_path / "step-00000003" / name
    file.write_bytes(file.read_bytes()[:length])
    assert newest_checkpoint(tmp_path, "run") is None
    assert "is damaged and is passed over" in caplog.text


def test_the_previous_one_serves_where_the_newest_is_damaged(tmp_path):
    save_checkpoint(tmp_path, TENSORS, 3, 0, "run")
    (tmp_path / "step-00000003").rename(tmp_path / "kept")
    save_checkpoint(tmp_path, TENSORS, 4, 0, "run")
    (tmp_path / "kept").rename(tmp_path / "step-00000003")
    (tmp_path / "step-00000004" / "state.safetensors").unlink()
    assert newest_checkpoint(tmp_path, "run").step == 3


def test_another_runs_checkpoint_is_not_taken(tmp_path, caplog):
    save_checkpoint(tmp_path, TENSORS, 3, 0, "other")
    assert newest_checkpoint(tmp_path, "run") is None
    assert "another run's" in caplog.text


def test_what_an_interrupted_save_leaves_is_not_seen(tmp_path):
    (tmp_path / ".tmp-123").mkdir(parents=True)
    (tmp_path / ".tmp-123" / "checkpoint.json").write_text("{}")
    assert newest_checkpoint(tmp_path, "run") is None
