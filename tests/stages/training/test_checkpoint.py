"""Checkpoints are complete or invisible, and are checked before they are believed."""

import json
import shutil
import threading
import time

import pytest
import torch
import torch.distributed as dist
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import Shard, distribute_tensor

from data.errors import EnvironmentProblem, StoreError
from stages.training.checkpoint import Checkpoints
from stages.training.checkpoint_files import on_cpu, read_tensors, write_shards

TENSORS = {"master.w": torch.arange(6.0).reshape(2, 3), "step.w": torch.tensor(3.0), "exp_avg.b": torch.ones(1)}
STATE = {"progress": {"step": 3}, "dev": {}}


def saved(folder, steps, *, identity="run", keep=1, best=None):
    checkpoints = Checkpoints(folder, identity, keep)
    for step in steps:
        checkpoints.save(TENSORS, step, STATE, best)
    checkpoints.wait()
    return checkpoints


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_what_is_saved_is_loaded(tmp_path):
    checkpoint = saved(tmp_path, [3]).newest()
    assert (checkpoint.step, checkpoint.state) == (3, STATE)
    loaded = checkpoint.tensors({})
    assert loaded.keys() == TENSORS.keys()
    assert all(torch.equal(loaded[name], TENSORS[name]) for name in TENSORS)
    assert names(checkpoint.folder) == ["checkpoint.json", "state.safetensors"]


def test_training_may_go_on_while_a_checkpoint_is_written(tmp_path):
    """What is written is what was there when it was asked for."""
    moving = {"master.w": torch.zeros(1000, 1000)}
    checkpoints = Checkpoints(tmp_path, "run")
    checkpoints.save(moving, 1, STATE, None)
    moving["master.w"].add_(1)
    checkpoints.wait()
    assert not checkpoints.newest().tensors({})["master.w"].any()


def test_an_end_waits_for_what_is_being_written_and_leaves_no_thread(tmp_path):
    checkpoints = Checkpoints(tmp_path, "run")
    checkpoints.save({"master.w": torch.zeros(1000, 1000)}, 1, STATE, None)
    checkpoints.close()
    assert names(tmp_path) == ["step-00000001"]
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("checkpoint")]


@pytest.fixture
def one_of_one():
    """A process group of this process alone, and a tensor that is sharded over it."""
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    yield distribute_tensor(torch.arange(12.0).reshape(4, 3), init_device_mesh("cpu", (1,)), [Shard(0)])
    dist.destroy_process_group()


def test_parts_are_copied_written_and_read_as_parts(tmp_path, one_of_one):
    tensors = on_cpu({"master.w": one_of_one, "step.w": torch.tensor(3.0)})
    one_of_one.to_local().zero_()
    write_shards(tmp_path, tensors, dist.group.WORLD)
    read = read_tensors(tmp_path, {"w": one_of_one})
    assert read["master.w"].placements == one_of_one.placements
    assert torch.equal(read["master.w"].to_local(), torch.arange(12.0).reshape(4, 3))
    assert read["step.w"].item() == 3.0


def test_parts_that_cannot_be_written_are_the_error_of_whoever_could_not(tmp_path, one_of_one):
    (tmp_path / "file").touch()
    with pytest.raises(OSError, match="Not a directory"):
        write_shards(tmp_path / "file" / "folder", {"master.w": one_of_one}, dist.group.WORLD)


@pytest.mark.parametrize(
    ("keep", "best", "left"), [(1, None, [10]), (2, None, [2, 10]), (1, 1, [1, 10]), (2, 10, [2, 10])]
)
def test_the_newest_and_the_best_are_kept(tmp_path, keep, best, left):
    saved(tmp_path, (1, 2, 10), keep=keep, best=best)
    assert names(tmp_path) == [f"step-{step:08d}" for step in left]


@pytest.mark.parametrize("name", ["state.safetensors", "checkpoint.json"])
@pytest.mark.parametrize("length", [None, 0, 5])
def test_the_previous_one_serves_where_the_newest_is_damaged(tmp_path, name, length, caplog):
    checkpoints = saved(tmp_path, (3, 4), keep=2)
    file = tmp_path / "step-00000004" / name
    if length is None:
        file.unlink()
    else:
        file.write_bytes(file.read_bytes()[:length])
    assert checkpoints.newest().step == 3
    problem = "missing" if length is None else "damaged"
    assert f"step-00000004 is passed over: {name} is {problem}" in caplog.text


def test_one_bit_is_enough(tmp_path):
    checkpoints = saved(tmp_path, (3, 4), keep=2)
    file = tmp_path / "step-00000004" / "state.safetensors"
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)
    assert checkpoints.newest().step == 3


@pytest.mark.parametrize("lost", [{"sha256": {}}, {"state": None}])
def test_a_document_that_vouches_for_nothing_is_damaged(tmp_path, lost):
    checkpoints = saved(tmp_path, (3, 4), keep=2)
    file = tmp_path / "step-00000004" / "checkpoint.json"
    document = json.loads(file.read_text()) | lost
    file.write_text(json.dumps({name: value for name, value in document.items() if value is not None}))
    assert checkpoints.newest().step == 3


@pytest.mark.parametrize("more", [{"../../elsewhere.safetensors": True}, {"new.safetensors": False}])
def test_a_checkpoint_is_the_files_that_its_document_lists(tmp_path, more):
    """What lies elsewhere is not one of them, and what is not listed was never checked."""
    folder = saved(tmp_path / "checkpoints", [3]).newest().folder
    document = json.loads((folder / "checkpoint.json").read_text())
    for name, listed in more.items():
        shutil.copy(folder / "state.safetensors", folder / name)
        document["sha256"] |= {name: document["sha256"]["state.safetensors"]} if listed else {}
    (folder / "checkpoint.json").write_text(json.dumps(document))
    with pytest.raises(StoreError, match=r"step-00000003: checkpoint.json is damaged"):
        Checkpoints(tmp_path / "checkpoints", "run").newest()


def test_where_none_verifies_nothing_is_begun_anew(tmp_path):
    checkpoints = saved(tmp_path, (3, 4), keep=2)
    for path in tmp_path.iterdir():
        (path / "state.safetensors").unlink()
    with pytest.raises(StoreError) as error:
        checkpoints.newest()
    assert str(error.value) == (
        f"None of the checkpoints in {tmp_path} can be used (step-00000004: state.safetensors is missing; "
        "step-00000003: state.safetensors is missing). Nothing was trained and nothing was removed. Restore one of "
        "them, or delete that folder to train from the beginning."
    )


def test_a_damaged_one_that_was_passed_over_never_outlives_a_good_one(tmp_path):
    checkpoints = saved(tmp_path, (3, 9), keep=2)
    (tmp_path / "step-00000009" / "state.safetensors").unlink()
    assert checkpoints.newest().step == 3
    checkpoints = saved(tmp_path, (5,))
    assert names(tmp_path) == ["step-00000005"] and checkpoints.newest().step == 5


def test_no_checkpoint_at_all_is_the_beginning(tmp_path):
    assert Checkpoints(tmp_path / "none", "run").newest() is None


def test_another_runs_checkpoint_is_not_taken(tmp_path):
    saved(tmp_path, [3], identity="other")
    with pytest.raises(StoreError, match="step-00000003: another run's"):
        Checkpoints(tmp_path, "run").newest()


def test_what_an_interrupted_save_leaves_is_not_seen_and_swept(tmp_path):
    (tmp_path / ".tmp-123").mkdir(parents=True)
    (tmp_path / ".tmp-123" / "checkpoint.json").write_text("{}")
    checkpoints = Checkpoints(tmp_path, "run")
    assert checkpoints.newest() is None
    checkpoints.sweep()
    assert names(tmp_path) == []


def test_what_cannot_be_written_is_told_and_takes_nothing_away(tmp_path):
    folder, aside = tmp_path / "checkpoints", tmp_path / "aside"
    checkpoints = saved(folder, [3])
    folder.rename(aside)
    folder.write_text("a file where the folder should be")
    checkpoints.save(TENSORS, 4, STATE, None)
    with pytest.raises(EnvironmentProblem, match="Cannot write to"):
        checkpoints.save(TENSORS, 5, STATE, None)
    for look in (checkpoints.wait, checkpoints.check):
        checkpoints.save(TENSORS, 6, STATE, None)
        time.sleep(0.2)
        with pytest.raises(EnvironmentProblem, match="Cannot write to"):
            look()
    folder.unlink()
    aside.rename(folder)
    assert checkpoints.newest().step == 3


def test_the_best_is_checked_before_it_becomes_the_policy(tmp_path):
    checkpoints = saved(tmp_path, (1, 2), best=1)
    document = tmp_path / "step-00000001" / "checkpoint.json"
    document.write_text(json.dumps(json.loads(document.read_text()) | {"sha256": {"state.safetensors": "0"}}))
    with pytest.raises(StoreError, match=r"step-00000001, the best of this run, cannot be used: state.safetensors is"):
        checkpoints.at(1)
