"""A model compiled by torch (`scoring.compile`): few calls between matrix products, where there were many.

Each pack has an attention plan of its own, so attention stays as it is, and a layer becomes two graphs around it.
Layers of one kind share them. On a GPU every pack has one length and the graphs are made for it; on a CPU lengths
differ, and the graphs leave them open. Of the head it is what is made of a tile (stages/scoring/tile.py): a pack has
any number of scored tokens, so its graphs leave that open everywhere.
"""

import logging
import time
import warnings

import torch
from transformers import PreTrainedModel

from data.errors import ConfigError, one_line
from stages.scoring.attention.registered import register
from stages.scoring.backends import TOLERANCE, Forward, scored_states
from stages.scoring.head import OutputLayer, token_scores
from stages.scoring.layout import Layout
from stages.scoring.model import repeated_layers
from stages.scoring.tile import compiled

BACKEND = "inductor"
GRAPHS = 64
"""Of a function, before torch gives up on it; a model needs several, for its first layer and others, with gradients or
without, and a process may have several models."""

HEAD_TOLERANCE = 1e-4
"""Of a log-prob, in nats: the products are the same, and what follows them is in fp32."""

logger = logging.getLogger(__name__)


@torch.no_grad()
def compile_layers(model: PreTrainedModel, forward: Forward, pack: Layout) -> None:
    """From now on; `pack` is put through the model before and after, and has to come out alike.

    Raises:
        ConfigError: the layers cannot be told or compiled, or compute something else then.
    """
    layers = repeated_layers(model)
    if not layers:
        raise _refused("layers", model, "transformers does not name its layers")
    # The compiler looks whether the states between layers have gradients, which they never do.
    warnings.filterwarnings("ignore", message="The .grad attribute of a Tensor that is not a leaf")
    torch._dynamo.config.recompile_limit = GRAPHS
    plain, started = scored_states(forward, [pack]), time.perf_counter()
    register(within_graphs=False)
    for layer in layers:
        # `forward`, not the module: gradient checkpointing and FSDP2 wrap what is compiled, and are no part of it.
        layer.forward = torch.compile(layer.forward, backend=BACKEND, dynamic=model.device.type != "cuda")
    try:
        states = scored_states(forward, [pack])
    except Exception as problem:  # of the compiler, or of the C++ compiler that it calls
        raise _refused("layers", model, one_line(problem)) from problem
    error = float(((states - plain).norm(dim=1) / plain.norm(dim=1)).median())
    if not error <= TOLERANCE[model.dtype]:
        raise _refused("layers", model, f"compiled, they differ by {error:.1e} of their norm")
    seconds = time.perf_counter() - started
    logger.info("compiled the layers in %.0f s (they differ from plain ones by %.1e of their norm)", seconds, error)


@torch.no_grad()
def compile_head(model: PreTrainedModel, layer: OutputLayer, forward: Forward, pack: Layout) -> OutputLayer:
    """The model's output layer with compiled functions; log-probs of `pack` have to come out alike.

    Raises:
        ConfigError: it cannot be compiled, or computes something else then.
    """
    hidden, fast = forward(pack).flatten(0, 1)[pack.positions], layer._replace(functions=compiled(BACKEND))
    plain, started = token_scores(hidden, pack.targets, layer).logps, time.perf_counter()
    try:
        ours = token_scores(hidden, pack.targets, fast).logps
    except Exception as problem:
        raise _refused("output layer", model, one_line(problem)) from problem
    error = float((ours - plain).abs().max())
    if not error <= HEAD_TOLERANCE:
        raise _refused("output layer", model, f"compiled, log-probs differ by {error:.1e} nats")
    seconds = time.perf_counter() - started
    logger.info("compiled the output layer in %.0f s (log-probs differ by %.1e nats at most)", seconds, error)
    return fast


def _refused(part: str, model: PreTrainedModel, why: str) -> ConfigError:
    return ConfigError(
        f"scoring.compile: the {part} of {type(model).__name__} cannot be compiled: {why.rstrip('.')}. Set "
        "scoring.compile: false."
    )
