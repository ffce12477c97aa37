"""AdamW on fp32 master weights, for parameters computed in bf16.

At learning rates of 1e-6 an update is below half a bf16 step of a typical weight, so bf16 weights would never move.
Masters live here; gradients of a step accumulate in fp32; after an update the parameters are the masters, rounded.
Parameters that are fp32 already are their own masters.
"""

import logging
import math
from collections import defaultdict
from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.distributed.tensor import DTensor

from data.errors import ConfigError
from stages.processes import ALONE, Processes
from stages.training.config import OptimizerName


class MasterAdamW:
    """AdamW (arXiv 1711.05101) over a model's trainable parameters. Norms and biases (1-d) are not decayed.

    With `adamw_8bit` its two moments are kept in blocks of 256 8-bit numbers (arXiv 2110.02861); masters never are.

    Raises:
        ConfigError: `adamw_8bit` without the package that it comes from.
    """

    def __init__(self, model: nn.Module, weight_decay: float, optim: OptimizerName = "adamw") -> None:
        self._parameters = {name: p for name, p in model.named_parameters() if p.requires_grad}
        self._masters = {name: _master(p) for name, p in self._parameters.items()}
        self._hooks = [
            p.register_post_accumulate_grad_hook(_accumulate_into(self._masters[name]))  # type: ignore[no-untyped-call]
            for name, p in self._parameters.items()
            if self._masters[name] is not p
        ]
        decayed = [p for p in self._masters.values() if p.dim() >= 2]
        plain = [p for p in self._masters.values() if p.dim() < 2]
        groups = [{"params": decayed, "weight_decay": weight_decay}, {"params": plain, "weight_decay": 0.0}]
        self._adamw = _adamw([group for group in groups if group["params"]], optim)

    @property
    def masters(self) -> dict[str, nn.Parameter]:
        """The fp32 weights by the names of the model's parameters."""
        return self._masters

    def step(self, learning_rate: float, max_grad_norm: float, processes: Processes = ALONE) -> float:
        """One update from the gradients since the last one; returns their norm before clipping (0: no clipping).

        A norm that is not finite changes nothing: the caller decides what that means.
        """
        masters = list(self._masters.values())
        if not isinstance(masters[0], DTensor):  # the gradients of a sharded model are summed already
            processes.add_up_gradients(masters)
        gradients = [p.grad for p in masters if p.grad is not None]
        norm = _number(nn.utils.get_total_norm(gradients))
        if math.isfinite(norm):
            if max_grad_norm > 0:
                # As torch's clip_grads_with_norm_ does it, but for the parts of a sharded model, too.
                scale = float(torch.clamp(max_grad_norm / (torch.tensor(norm) + 1e-6), max=1.0))
                torch._foreach_mul_(gradients, scale)
            for group in self._adamw.param_groups:
                group["lr"] = learning_rate
            self._adamw.step()
            self._write_back()
        self.drop_gradients()
        return norm

    def drop_gradients(self) -> None:
        """Forget what has been added up since the last update."""
        self._adamw.zero_grad(set_to_none=True)

    def state(self) -> dict[str, torch.Tensor]:
        """Everything that resuming needs: `master.NAME`, and what AdamW keeps of it.

        That is `step.NAME`, `exp_avg.NAME` and `exp_avg_sq.NAME`; in 8 bits `step.NAME`, `state1.NAME` and
        `state2.NAME`, and where these are 8-bit (from 4,096 numbers on) their scales `absmax1.NAME`, `absmax2.NAME` and
        codes `qmap1.NAME`, `qmap2.NAME`.
        """
        tensors = {f"master.{name}": master.detach() for name, master in self._masters.items()}
        for name, master in self._masters.items():
            for key, value in self._adamw.state.get(master, {}).items():
                # The codes are one tensor for all parameters, and a file holds none twice.
                tensors[f"{key}.{name}"] = value.clone() if key.startswith("qmap") else torch.as_tensor(value)
        return tensors

    @torch.no_grad()
    def load(self, tensors: dict[str, torch.Tensor]) -> None:
        """Take up a `state()`, and put the parameters where they were."""
        kept: dict[str, dict[str, torch.Tensor]] = defaultdict(dict)
        for full_name, tensor in tensors.items():
            key, _, name = full_name.partition(".")
            kept[name][key] = tensor
        for name, master in self._masters.items():
            master.copy_(kept[name].pop("master"))
            if kept[name]:
                self._adamw.state[master] = {key: _taken_up(value, master) for key, value in kept[name].items()}
        self._write_back()

    @torch.no_grad()
    def _write_back(self) -> None:
        rounded = {name: p for name, p in self._parameters.items() if self._masters[name] is not p}
        if rounded:
            torch._foreach_copy_(list(rounded.values()), [self._masters[name] for name in rounded])


def _adamw(groups: list[dict[str, Any]], optim: OptimizerName) -> torch.optim.Optimizer:
    if optim == "adamw":
        # fused: one pass over memory instead of many, on a CPU too
        return torch.optim.AdamW(groups, lr=0.0, fused=True)
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)  # it warns of a kernel that it does without
    try:
        from bitsandbytes.optim.adamw import AdamW8bit
    except ImportError as error:
        raise ConfigError(
            "train.optim: adamw_8bit needs the package bitsandbytes. Install it: pip install "
            "'offline-preference-pipeline[8bit]'. Or set train.optim: adamw."
        ) from error
    optimizer: torch.optim.Optimizer = AdamW8bit(groups, lr=0.0)  # type: ignore[no-untyped-call]
    return optimizer


def _number(tensor: torch.Tensor) -> float:
    """The value of a tensor of one number, of all processes where each has a part."""
    return float(tensor.full_tensor() if isinstance(tensor, DTensor) else tensor)


def _taken_up(value: torch.Tensor, master: nn.Parameter) -> torch.Tensor | int:
    """As the optimiser had it: on the device, in memory of its own; steps that were counted in whole numbers, so."""
    return int(value) if value.dtype == torch.int64 else value.to(master.device, copy=True)


def _master(parameter: nn.Parameter) -> nn.Parameter:
    if parameter.dtype == torch.float32:
        return parameter
    return nn.Parameter(parameter.detach().float())


def _accumulate_into(master: nn.Parameter) -> Callable[[torch.Tensor], None]:
    """A hook that moves a parameter's fresh gradient into its master's, in fp32."""

    def hook(parameter: torch.Tensor) -> None:
        assert parameter.grad is not None
        if master.grad is None:
            master.grad = parameter.grad.float()
        else:
            master.grad.add_(parameter.grad)
        parameter.grad = None

    return hook
