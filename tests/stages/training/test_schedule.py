"""The learning rate of each step, against transformers' own schedulers."""

import pytest
import torch
from transformers import get_scheduler

from stages.training.schedule import learning_rate, warmup_length


@pytest.mark.parametrize("name", ["linear", "cosine"])
@pytest.mark.parametrize("warmup", [0, 3])
def test_equals_the_scheduler_of_transformers(name, warmup):
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=2e-5)
    scheduler = get_scheduler(name, optimizer, num_warmup_steps=warmup, num_training_steps=10)
    for step in range(10):
        assert learning_rate(step, 10, 2e-5, warmup, name) == pytest.approx(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()


def test_constant_stays():
    assert [learning_rate(step, 5, 1.0, 2, "constant") for step in range(5)] == [0.0, 0.5, 1.0, 1.0, 1.0]


def test_warm_up_below_one_is_a_share():
    assert warmup_length(0.1, 95) == 10
    assert warmup_length(12, 95) == 12
    assert warmup_length(0, 95) == 0
