"""A run leaves the process as it found it, and its random numbers are its own."""

import os

import pytest
import torch

from stages.training.reproducible import reproducible, seed_step


@pytest.mark.parametrize("asked", [False, True])
def test_what_varies_is_refused_where_asked_and_only_in_the_run(monkeypatch, asked):
    monkeypatch.delenv("CUBLAS_WORKSPACE_CONFIG", raising=False)
    with pytest.raises(ZeroDivisionError), reproducible(deterministic=asked):
        assert torch.are_deterministic_algorithms_enabled() == asked
        assert os.environ.get("CUBLAS_WORKSPACE_CONFIG") == (":4096:8" if asked else None)
        raise ZeroDivisionError
    assert not torch.are_deterministic_algorithms_enabled()
    monkeypatch.delenv("CUBLAS_WORKSPACE_CONFIG", raising=False)


def test_numbers_of_a_step_are_its_own_and_those_of_the_caller_go_on():
    before = torch.get_rng_state()
    drawn = []
    with reproducible(deterministic=False):
        for seed, step in ((0, 5), (0, 6), (1, 5), (0, 5)):
            seed_step(seed, step)
            drawn.append(torch.rand(()).item())
    assert len(set(drawn)) == 3 and drawn[0] == drawn[-1]
    assert torch.equal(torch.get_rng_state(), before)
