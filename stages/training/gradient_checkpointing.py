"""Gradient checkpointing: a layer keeps its input alone, and the backward pass computes the rest of it again.

transformers' own switch works in training mode only, and this model stays in eval mode: dropout off is what makes
training and scoring the same function. So the layers that transformers marks are wrapped here.
"""

from contextlib import AbstractContextManager, nullcontext
from functools import partial
from typing import Any

from torch.utils.checkpoint import checkpoint
from transformers import PreTrainedModel
from transformers.modeling_layers import GradientCheckpointingLayer

from data.errors import ConfigError
from stages.scoring.bf16_products import fast_bf16_products


def checkpoint_layers(model: PreTrainedModel) -> None:
    """From now on; no bit of a loss or a gradient changes.

    Raises:
        ConfigError: the model's layers are not marked as layers.
    """
    layers: list[Any] = [module for module in model.modules() if isinstance(module, GradientCheckpointingLayer)]
    if not layers:
        raise ConfigError(
            f"train.gradient_checkpointing does not work with {type(model).__name__}: transformers does not mark its "
            "layers (GradientCheckpointingLayer). Set it to false; a lower scoring.pack_tokens saves memory, too."
        )

    def contexts() -> tuple[AbstractContextManager[Any], AbstractContextManager[Any]]:
        # Of the forward pass, which has the scorer's already, and of the recomputation, which happens elsewhere.
        return nullcontext(), fast_bf16_products(model.device)

    for layer in layers:
        # On `forward`, not `__call__`: hooks (FSDP2's gathering of weights) stay outside. No state of random
        # generators is kept, because in eval mode nothing is random.
        layer.forward = partial(
            checkpoint, layer.forward, use_reentrant=False, preserve_rng_state=False, context_fn=contexts
        )
