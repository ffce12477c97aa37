"""fp32 masters under bf16 parameters: small updates add up, and gradients of a step do too; moments in 8 bits."""

import sys

import pytest
import torch
from pydantic import ValidationError
from safetensors.torch import load_file, save_file
from torch import nn

from data.errors import ConfigError
from stages.scoring.scorer import Scorer
from stages.training.config import TrainConfig
from stages.training.optimizer import MasterAdamW
from tests.families import build, random_responses


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


class Wide(nn.Module):
    """A matrix that 8-bit moments are worth it for (4,096 numbers), and a bias that they are not."""

    def __init__(self, dtype: torch.dtype) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.weight = nn.Parameter(torch.randn(1500, 3, generator=generator).to(dtype))
        self.bias = nn.Parameter(torch.randn(1500, generator=generator).to(dtype))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x @ self.weight.T + self.bias


@pytest.mark.parametrize("optim", ["adamw", "adamw_8bit"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_state_goes_on_exactly(dtype, optim, tmp_path):
    """Through a file, as checkpoints are."""

    def steps(model: Wide, optimizer: MasterAdamW, n: int) -> None:
        for _ in range(n):
            model(inputs(dtype)).square().mean().backward()
            optimizer.step(1e-2, max_grad_norm=1.0)

    straight = Wide(dtype)
    optimizer = MasterAdamW(straight, weight_decay=0.01, optim=optim)
    steps(straight, optimizer, 3)
    save_file(optimizer.state(), tmp_path / "state.safetensors")
    steps(straight, optimizer, 3)
    resumed = Wide(dtype)
    other = MasterAdamW(resumed, weight_decay=0.01, optim=optim)
    other.load(load_file(tmp_path / "state.safetensors"))
    steps(resumed, other, 3)
    for name, tensor in optimizer.state().items():
        assert tensor.dtype == other.state()[name].dtype and torch.equal(tensor, other.state()[name]), name
    assert torch.equal(straight.weight, resumed.weight)


def test_what_is_kept_in_8_bits_and_what_never_is():
    model = Wide(torch.bfloat16)
    optimizer = MasterAdamW(model, weight_decay=0.0, optim="adamw_8bit")
    model(inputs(torch.bfloat16)).sum().backward()
    optimizer.step(1e-3, max_grad_norm=0.0)
    kept = {
        name: (str(tensor.dtype).removeprefix("torch."), tensor.numel()) for name, tensor in optimizer.state().items()
    }
    assert kept == {
        "master.weight": ("float32", 4500),
        "step.weight": ("int64", 1),
        **dict.fromkeys(["state1.weight", "state2.weight"], ("uint8", 4500)),
        **dict.fromkeys(["absmax1.weight", "absmax2.weight"], ("float32", 18)),  # blocks of 256
        **dict.fromkeys(["qmap1.weight", "qmap2.weight"], ("float32", 256)),
        "master.bias": ("float32", 1500),
        "step.bias": ("int64", 1),
        **dict.fromkeys(["state1.bias", "state2.bias"], ("float32", 1500)),
    }


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_8_bit_moments_learn_as_fp32_ones_do(dtype):
    """30 steps on the same responses: the loss halves, and the curves are nowhere half a per cent apart."""
    curves = []
    for optim in ("adamw", "adamw_8bit"):
        scorer = Scorer(build("llama", hidden_size=64, intermediate_size=192, initializer_range=0.05).to(dtype), 1024)
        optimizer, responses = MasterAdamW(scorer.model, 0.01, optim), random_responses(8)
        tokens = sum(response.n_scored for response in responses)
        losses = []
        for _ in range(30):
            loss = -scorer.logps(responses).sum() / tokens
            loss.backward()
            optimizer.step(3e-3, max_grad_norm=1.0)
            losses.append(loss.item())
        curves.append(torch.tensor(losses))
    assert curves[0][-1] < curves[0][0] / 2
    torch.testing.assert_close(curves[1], curves[0], rtol=0.005, atol=0)
    assert not torch.equal(*curves)


def test_8_bit_moments_without_their_package(monkeypatch):
    monkeypatch.setitem(sys.modules, "bitsandbytes.optim.adamw", None)
    with pytest.raises(ConfigError, match=r"adamw_8bit needs the package bitsandbytes. Install it: pip install .*8bit"):
        MasterAdamW(Wide(torch.float32), weight_decay=0.0, optim="adamw_8bit")


def test_8_bit_moments_are_not_sharded():
    with pytest.raises(
        ValidationError, match=r"adamw_8bit updates whole weights, train.fsdp shards them: set train.op"
    ):
        TrainConfig(optim="adamw_8bit", fsdp=True)
