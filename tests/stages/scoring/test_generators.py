"""Random numbers that are drawn aside leave no trace, and leave the GPUs of other processes alone."""

import torch

from stages.scoring.generators import own_generators


def test_what_is_drawn_aside_changes_nothing():
    before = torch.get_rng_state()
    with own_generators(torch.device("cpu")):
        torch.manual_seed(1)
        torch.rand(3)
    assert torch.equal(torch.get_rng_state(), before)


def test_gpus_of_other_processes_are_not_asked(monkeypatch):
    """torch asks all that it sees, and warns of that."""
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 8)
    with own_generators(torch.device("cpu")):
        pass
