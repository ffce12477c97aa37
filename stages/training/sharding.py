"""Shards a model over the processes (FSDP2): each holds its part of weights, gradients and optimiser states.

Parts are kept in fp32, which makes them the masters; a layer's weights are gathered and rounded to the compute dtype
for as long as it computes. Gradients are summed in fp32. So the step is that of a model which is whole.
"""

import torch
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, MixedPrecisionPolicy, fully_shard
from torch.distributed.tensor import DTensor
from transformers import PreTrainedModel

from data.errors import ConfigError
from stages.processes import Processes
from stages.scoring.model import device, repeated_layers
from stages.scoring.scorer import Scorer


def shard(scorer: Scorer, processes: Processes) -> None:
    """Replace the weights of the scorer's model by this process's part of them.

    Raises:
        ConfigError: the model cannot be sharded.
    """
    mesh = init_device_mesh(device().type, (processes.size,))
    policy = MixedPrecisionPolicy(_compute_dtype(scorer.model), torch.float32, cast_forward_inputs=False)
    for layer in repeated_layers(scorer.model):
        fully_shard(layer, mesh=mesh, mp_policy=policy)
    fully_shard(scorer.network, mesh=mesh, mp_policy=policy)
    for module in scorer.network.modules():
        if isinstance(module, FSDPModule):
            module._apply(_master)  # type: ignore[no-untyped-call]
            module.set_gradient_divide_factor(1.0)  # a sum: the loss is divided by the pairs of all processes
            module.set_force_sum_reduction_for_comms(enable=True)


def whole_state(scorer: Scorer, dtype: torch.dtype, *, here: bool) -> dict[str, torch.Tensor] | None:
    """The tensors of a sharded model, put together on the CPU, in `dtype`; None of one that is not sharded.

    All processes have to ask together, and get nothing where they are not wanted `here`; each tensor stands there once,
    under the first of its names.
    """
    for module in scorer.network.modules():
        if isinstance(module, FSDPModule):
            module.reshard()  # what was last gathered to look at dev pairs still stands in the place of the parts
    model = scorer.model
    parameters = dict(model.named_parameters())
    if not any(isinstance(parameter, DTensor) for parameter in parameters.values()):
        return None
    tied = {name for name, _ in model.named_parameters(remove_duplicate=False)} - set(parameters)
    others = {name: tensor for name, tensor in model.state_dict().items() if name not in {*parameters, *tied}}
    whole: dict[str, torch.Tensor] = {}
    for name, part in parameters.items():
        tensor = part.detach().full_tensor()  # type: ignore[attr-defined]
        whole |= {name: tensor.to("cpu", dtype)} if here else {}
    return whole | {name: tensor.to("cpu") for name, tensor in others.items()}


def _master(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.float() if isinstance(tensor, DTensor) and tensor.is_floating_point() else tensor


def _compute_dtype(model: PreTrainedModel) -> torch.dtype:
    dtypes = {parameter.dtype for parameter in model.parameters()}
    if len(dtypes) > 1:
        raise ConfigError(
            f"train.fsdp: the weights of {type(model).__name__} are of several dtypes "
            f"({', '.join(sorted(map(str, dtypes)))}) and cannot be sharded together. Set train.fsdp: false, so that "
            "every process holds all of them."
        )
    return dtypes.pop()
