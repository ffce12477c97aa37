"""AdamW on fp32 master weights, for parameters computed in bf16.

At learning rates of 1e-6 an update is below half a bf16 step of a typical weight, so bf16 weights would never move.
Masters live here; gradients of a step accumulate in fp32; after an update the parameters are the masters, rounded.
Parameters that are fp32 already are their own masters.
"""

import math
from collections.abc import Callable

import torch
from torch import nn


class MasterAdamW:
    """AdamW (arXiv 1711.05101) over a model's trainable parameters. Norms and biases (1-d) are not decayed."""

    def __init__(self, model: nn.Module, weight_decay: float) -> None:
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
        # fused: one pass over memory instead of many, on a CPU too
        self._adamw = torch.optim.AdamW([group for group in groups if group["params"]], lr=0.0, fused=True)

    def step(self, learning_rate: float, max_grad_norm: float) -> float:
        """One update from the gradients since the last one; returns their norm before clipping (0: no clipping).

        A norm that is not finite changes nothing: the caller decides what that means.
        """
        gradients = [p for p in self._masters.values() if p.grad is not None]
        norm = float(nn.utils.get_total_norm([p.grad for p in gradients if p.grad is not None]))
        if math.isfinite(norm):
            if max_grad_norm > 0:
                nn.utils.clip_grads_with_norm_(gradients, max_grad_norm, torch.tensor(norm))
            for group in self._adamw.param_groups:
                group["lr"] = learning_rate
            self._adamw.step()
            self._write_back()
        self._adamw.zero_grad(set_to_none=True)
        return norm

    def state(self) -> dict[str, torch.Tensor]:
        """Everything that resuming needs: `master.NAME`, `exp_avg.NAME`, `exp_avg_sq.NAME`, `step.NAME`."""
        tensors = {f"master.{name}": master.detach() for name, master in self._masters.items()}
        for name, master in self._masters.items():
            for key, value in self._adamw.state.get(master, {}).items():
                tensors[f"{key}.{name}"] = value
        return tensors

    @torch.no_grad()
    def load(self, tensors: dict[str, torch.Tensor]) -> None:
        """Take up a `state()`, and put the parameters where they were."""
        for name, master in self._masters.items():
            master.copy_(tensors[f"master.{name}"])
            if f"step.{name}" in tensors:
                self._adamw.state[master] = {
                    "step": tensors[f"step.{name}"].to(master.device, copy=True),
                    "exp_avg": tensors[f"exp_avg.{name}"].to(master.device),
                    "exp_avg_sq": tensors[f"exp_avg_sq.{name}"].to(master.device),
                }
        self._write_back()

    @torch.no_grad()
    def _write_back(self) -> None:
        for name, parameter in self._parameters.items():
            if self._masters[name] is not parameter:
                parameter.copy_(self._masters[name])


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
