"""The seam between processes: alone it does nothing, and what breaks it is told so."""

from functools import partial

import pytest
import torch
import torch.distributed as dist

from data.errors import EnvironmentProblem
from stages.processes import ALONE, BUCKET, _buckets, explained, working_together
from stages.units import ALL, Shard


def test_alone_nothing_is_summed_and_nothing_is_started():
    with working_together(ALL, 1.0, "train") as processes:
        assert processes == ALONE and not dist.is_initialized()
    tensor = torch.ones(3)
    assert ALONE.add_up(tensor) is tensor and ALONE.total(2.5) == 2.5 and ALONE.from_first(7) == 7
    parameter = torch.nn.Parameter(torch.zeros(2))
    ALONE.add_up_gradients([parameter])
    assert parameter.grad is None


@pytest.mark.parametrize(
    "text",
    [
        "[/pytorch/third_party/gloo/gloo/transport/tcp/pair.cc:547] Connection closed by peer [127.0.0.1]:1234",
        "Timed out waiting 4000ms for recv operation to complete",
        "NCCL error in: ProcessGroupNCCL.cpp:3690, unhandled system error",
    ],
)
def test_a_broken_connection_is_an_environment_problem(text):
    with pytest.raises(EnvironmentProblem) as error, explained():
        raise RuntimeError(text)
    assert str(error.value).startswith(
        "Another process of this run has ended or did not answer in time (train.ddp_timeout): RuntimeError: "
    )
    assert "The cause stands in that process's own output" in str(error.value)


def test_another_error_stays_what_it_is():
    with pytest.raises(RuntimeError, match="shape"), explained():
        raise RuntimeError("shape mismatch")


def test_gradients_go_in_buckets_of_whole_parameters():
    parameters = [torch.nn.Parameter(torch.empty(n, device="meta")) for n in (5, BUCKET, 1, 2, BUCKET + 1, 3)]
    buckets = [[p.numel() for p in bucket] for bucket in _buckets(parameters)]
    assert buckets == [[5], [BUCKET], [1, 2], [BUCKET + 1], [3]]


@pytest.fixture
def two(monkeypatch):
    """torchrun's names for the first of two processes, connected to nothing."""
    from torch.testing._internal.distributed.fake_pg import FakeStore

    connect = dist.init_process_group
    fake = partial(connect, "fake", store=FakeStore(), rank=0, world_size=2)
    monkeypatch.setattr(dist, "init_process_group", lambda backend, **options: fake())
    monkeypatch.setattr("stages.processes._meeting_place", lambda *_: None)
    yield
    if dist.is_initialized():
        dist.destroy_process_group()


def test_processes_part_when_all_is_done(two):
    with working_together(Shard(0, 2), 7.0, "train") as processes:
        assert (processes.rank, processes.size, processes.timeout_seconds) == (0, 2, 7.0)
        assert dist.is_initialized()
    assert not dist.is_initialized()


def test_a_connection_that_breaks_anywhere_is_explained_and_nobody_is_waited_for(two):
    """In what torch itself sums (FSDP2), too; to part, NCCL would wait for the others."""
    with (
        pytest.raises(EnvironmentProblem, match="has ended or did not answer"),
        working_together(Shard(0, 2), 7.0, "train"),
    ):
        raise RuntimeError("Connection closed by peer [127.0.0.1]:1234")
    assert dist.is_initialized()


def test_a_line_of_its_own_waits_no_longer_than_the_others(two):
    with working_together(Shard(0, 2), 7.0, "train") as processes, pytest.MonkeyPatch.context() as patch:
        asked = {}
        patch.setattr(dist, "new_group", lambda **options: asked.update(options))
        processes.line_of_its_own()
    assert (asked["backend"], asked["timeout"].total_seconds()) == ("gloo", 7.0)
    assert ALONE.line_of_its_own() is None
