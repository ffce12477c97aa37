"""How large a model is, read from its config.json and the headers of its weights; nothing is loaded."""

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from safetensors import safe_open

from stages.scoring.config import Numerics
from stages.training.lora import LoraSettings

BYTES = {"float32": 4.0, "bfloat16": 2.0, "nf4": 0.52, "int8": 1.0}
"""Of a number, with its share of the scales."""

Shapes = Mapping[str, tuple[int, ...]]
"""Of the weights, by name."""


class Sizes(NamedTuple):
    """What of a model decides how large its activations are."""

    family: str
    layers: int
    width: int
    """D."""
    mlp: int
    """F, of all experts that a token goes through."""
    queries: int
    """Heads times their width."""
    keys: int
    """The same of keys, and of values."""
    vocabulary: int


def read_sizes(folder: Path) -> Sizes | None:
    """From config.json, under the names that architectures give them; None where it has no width or layers."""
    file = folder / "config.json"
    if not file.is_file():
        return None
    config: dict[str, Any] = json.loads(file.read_bytes())
    config = config.get("text_config", config)

    def size(*names: str, default: int = 0) -> int:
        return next((int(config[name]) for name in names if config.get(name)), default)

    width, layers = size("hidden_size", "n_embd", "d_model"), size("num_hidden_layers", "n_layer", "n_layers")
    if not width or not layers:
        return None
    heads = size("num_attention_heads", "n_head", "n_heads", default=1)
    head_width = size("head_dim", default=width // heads)
    experts = size("num_experts_per_tok", default=1) + size("n_shared_experts")
    return Sizes(
        family=config.get("model_type", ""),
        layers=layers,
        width=width,
        mlp=experts * size("moe_intermediate_size", "intermediate_size", "n_inner", "ffn_dim", default=4 * width),
        queries=heads * head_width,
        keys=size("num_key_value_heads", default=heads) * head_width,
        vocabulary=size("vocab_size"),
    )


def read_shapes(folder: Path) -> Shapes:
    """From the headers of its safetensors files."""
    shapes: dict[str, tuple[int, ...]] = {}
    for file in folder.glob("*.safetensors"):
        with safe_open(file, framework="numpy") as tensors:
            shapes |= {name: tuple(tensors.get_slice(name).get_shape()) for name in tensors.keys()}  # noqa: SIM118
    return shapes


def weight_bytes(shapes: Shapes, numerics: Numerics) -> int:
    """Of a loaded model."""
    linear = sum(math.prod(shape) for name, shape in shapes.items() if _is_linear(name, shape))
    others = sum(map(math.prod, shapes.values())) - linear
    return int(linear * BYTES[numerics.quantization or numerics.dtype] + others * BYTES[numerics.dtype])


def n_trained(shapes: Shapes, lora: LoraSettings | None) -> int:
    """Parameters that have gradients: all, or those of the adapter."""
    if lora is None:
        return sum(map(math.prod, shapes.values()))
    every = lora.target_modules == "all-linear"
    targets = (
        shape for name, shape in shapes.items()
        if _is_linear(name, shape) and (every or name.split(".")[-2] in lora.target_modules)
    )  # fmt: skip
    return lora.r * sum(map(sum, targets))


def _is_linear(name: str, shape: tuple[int, ...]) -> bool:
    """Whether this is a layer of the decoder that quantisation and adapters change."""
    return len(shape) == 2 and not any(part in name for part in ("embed", "lm_head", "wte", "wpe"))
