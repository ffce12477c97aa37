"""fp32 masters under bf16 parameters: small updates add up, and gradients of a step do too."""

import pytest
import torch
from torch import nn

from stages.training.optimizer import MasterAdamW


class Tiny(nn.Module):
    def __init__(self, dtype: torch.dtype) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.weight = nn.Parameter(torch.randn(4, 3, generator=generator).to(dtype))
        self.bias = nn.Parameter(torch.randn(4, generator=generator).to(dtype))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x @ self.weight.T + self.bias


def inputs(dtype: torch.dtype, n: int = 5) -> torch.Tensor:
    return torch.randn(n, 3, generator=torch.Generator().manual_seed(1)).to(dtype)


def test_fp32_parameters_follow_plain_adamw():
    model, plain = Tiny(torch.float32), Tiny(torch.float32)
    ours = MasterAdamW(model, weight_decay=0.1)
    theirs = torch.optim.AdamW(
        [{"params": [plain.weight], "weight_decay": 0.1}, {"params": [plain.bias], "weight_decay": 0.0}], lr=1e-2
    )
    for _ in range(5):
        model(inputs(torch.float32)).square().mean().backward()
        ours.step(1e-2, max_grad_norm=0.5)
        theirs.zero_grad()
        plain(inputs(torch.float32)).square().mean().backward()
        nn.utils.clip_grad_norm_(plain.parameters(), 0.5)
        theirs.step()
    assert torch.equal(model.weight, plain.weight) and torch.equal(model.bias, plain.bias)


def test_updates_below_a_bf16_step_are_not_lost():
    """A thousand updates of 1e-6 move a bf16 weight of about 1 by 1e-3 in the master; bf16 alone would never move."""
    model = Tiny(torch.bfloat16)
    optimizer = MasterAdamW(model, weight_decay=0.0)
    start = optimizer.state()["master.weight"].clone()
    for _ in range(50):
        model(inputs(torch.bfloat16)).sum().backward()
        optimizer.step(1e-6, max_grad_norm=0.0)
    moved = (optimizer.state()["master.weight"] - start).abs()
    assert moved == pytest.approx(50e-6, rel=0.05)
    assert torch.equal(model.weight, optimizer.state()["master.weight"].bfloat16())


def test_after_an_update_the_parameters_are_the_masters_rounded():
    model = Tiny(torch.bfloat16)
    optimizer, before = MasterAdamW(model, weight_decay=0.0), model.weight.detach().clone()
    model(inputs(torch.bfloat16)).sum().backward()
    optimizer.step(0.5, max_grad_norm=0.0)
    assert torch.equal(model.weight, optimizer.state()["master.weight"].bfloat16())
    assert (model.weight - before).abs().min() > 0.4


def test_gradients_of_a_step_accumulate_in_fp32():
    """256 equal parts of a gradient: bf16 would stop growing once a part falls below half a step of the sum."""
    model = Tiny(torch.bfloat16)
    optimizer = MasterAdamW(model, weight_decay=0.0)
    part = inputs(torch.bfloat16, n=1)
    for _ in range(1000):
        model(part).sum().backward()
    assert model.weight.grad is None
    norm = optimizer.step(0.0, max_grad_norm=0.0)
    exact = 1000 * torch.cat([part.float().expand(4, 3).flatten(), torch.ones(4)]).norm()
    assert norm == pytest.approx(float(exact), rel=1e-4)


def test_clipping_scales_to_the_norm_and_reports_the_norm_before():
    model = Tiny(torch.float32)
    optimizer = MasterAdamW(model, weight_decay=0.0)
    (1000 * model(inputs(torch.float32)).sum()).backward()
    expected = torch.cat([p.grad.flatten() for p in model.parameters()]).norm()
    assert optimizer.step(0.0, max_grad_norm=1.0) == pytest.approx(float(expected))


def test_a_gradient_that_is_not_finite_changes_nothing():
    model = Tiny(torch.float32)
    optimizer = MasterAdamW(model, weight_decay=0.0)
    before = model.weight.detach().clone()
    (model(inputs(torch.float32)).sum() * float("nan")).backward()
    assert not torch.isfinite(torch.tensor(optimizer.step(1.0, max_grad_norm=1.0)))
    assert torch.equal(model.weight, before)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_state_goes_on_exactly(dtype):
    def steps(model: Tiny, optimizer: MasterAdamW, n: int) -> None:
        for _ in range(n):
            model(inputs(dtype)).square().mean().backward()
            optimizer.step(1e-2, max_grad_norm=1.0)

    straight = Tiny(dtype)
    optimizer = MasterAdamW(straight, weight_decay=0.01)
    steps(straight, optimizer, 3)
    state = {name: tensor.clone() for name, tensor in optimizer.state().items()}
    steps(straight, optimizer, 3)
    resumed = Tiny(dtype)
    other = MasterAdamW(resumed, weight_decay=0.01)
    other.load(state)
    steps(resumed, other, 3)
    for name, tensor in optimizer.state().items():
        assert torch.equal(tensor, other.state()[name]), name
    assert torch.equal(straight.weight, resumed.weight)
