"""Peak memory of training, estimated from a model's files, the configuration and the pairs; nothing is loaded.

What a layer keeps for the backward pass is exact for decoders built like Llama, and rough for others.

Legend: T tokens of a batch, M scored ones, D width, F width of the MLP, V vocabulary, P parameters.
"""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import polars as pl

from data.tokens.token_pairs import TokenPairs
from stages.scoring.config import GPU_TILE_TOKENS, KEPT_LOGITS, TILE_ROWS, TILE_TOKENS, Numerics
from stages.training.config import TrainConfig
from stages.training.model_sizes import BYTES, Shapes, Sizes, n_trained, read_shapes, read_sizes, weight_bytes
from stages.training.order import steps_per_epoch

LIKE_LLAMA = ("llama", "mistral", "qwen2", "smollm3")
# On a CPU, as benchmarks/memory.py finds them: Python with its packages, what products and attention work in, and the
# gaps of a heap that keeps what is freed (stages/scoring/allocator.py), as a share of all but the weights.
PROGRAM, WORKSPACE, GAPS = 500_000_000, 150_000_000, 0.25
_FP32 = 4
_MOMENT_BYTES = {"adamw": 8.0, "adamw_8bit": 2 + 2 * _FP32 / 256}  # a scale a block of 256


@dataclass(frozen=True)
class MemoryEstimate:
    """Bytes at the moment when most are in use, by what they are for."""

    parts: dict[str, int]
    remedies: dict[str, str]
    """By part: the keys that lower it."""
    rough: bool
    """Whether the model is not built like Llama, or only an adapter of it is trained."""

    @property
    def total(self) -> int:
        """All of them."""
        return sum(self.parts.values())

    def sentence(self) -> str:
        """For the log."""
        largest = max(self.remedies, key=self.parts.__getitem__)
        parts = ", ".join(f"{name} {size / 1e9:.2f}" for name, size in self.parts.items() if size)
        return (
            f"peak memory about {self.total / 1e9:.2f} GB{', roughly' if self.rough else ''} ({parts}); most of what a "
            f"key can lower is {largest}: {self.remedies[largest]}"
        )


def estimate_peak(
    folder: Path, numerics: Numerics, config: TrainConfig, pairs: TokenPairs, *, on_gpu: bool
) -> MemoryEstimate | None:
    """Of training the model in `folder` in one process; None where its config.json does not tell the sizes."""
    model = read_sizes(folder)
    return None if model is None else estimate(model, read_shapes(folder), numerics, config, pairs, on_gpu=on_gpu)


def estimate(
    model: Sizes, shapes: Shapes, numerics: Numerics, config: TrainConfig, pairs: TokenPairs, *, on_gpu: bool
) -> MemoryEstimate:
    """The same, of a model that need not be there."""
    batch = largest_batch(pairs, numerics, config.pairs_per_step, on_gpu=on_gpu)
    trained, width = n_trained(shapes, config.lora), int(BYTES[numerics.dtype])
    parts = {
        "weights": weight_bytes(shapes, numerics) + (0 if config.lora is None else trained * width),
        "fp32 masters": 0 if width == _FP32 else trained * _FP32,
        "optimiser states": int(trained * _MOMENT_BYTES[config.optim]),
        "gradients": trained * _FP32,
        "activations": kept_activations(model, batch, width, checkpointing=config.gradient_checkpointing),
        "logits": kept_logits(model, batch, on_gpu=on_gpu)
        + _head_gradients(model, batch, width, trained=config.lora is None),
    }
    if batch.is_whole_step:  # its activations go as its gradients come
        absent = min(("gradients",), ("activations", "logits"), key=lambda names: sum(parts[name] for name in names))
        parts |= dict.fromkeys(absent, 0)
    if not on_gpu:
        if config.epochs * steps_per_epoch(len(pairs), config.pairs_per_step) > config.checkpoint_every:
            parts["checkpoint being written"] = trained * _FP32 + parts["optimiser states"]
        parts["gaps in the heap"] = WORKSPACE + int(GAPS * (sum(parts.values()) - parts["weights"]))
        parts["the program"] = PROGRAM
    return MemoryEstimate(parts, _remedies(numerics, config), config.lora is not None or model.family not in LIKE_LLAMA)


class BatchSize(NamedTuple):
    """The largest batch of a run."""

    tokens: int
    scored: int
    is_whole_step: bool
    """Whether a step has no other batch."""


def largest_batch(pairs: TokenPairs, numerics: Numerics, pairs_per_step: int, *, on_gpu: bool) -> BatchSize:
    """As if the pairs of a step shared no prompts."""
    prompts = 2 if "rows" in (numerics.backend, numerics.attention) else 1
    length = prompts * pl.col("n_prompt") + pl.col("chosen_tokens") + pl.col("rejected_tokens")
    lengths = pairs.select(length.alias("length"))["length"].to_numpy()
    scored = pairs.select(pl.col("n_chosen") + pl.col("n_rejected")).sum().item() / lengths.sum()
    shuffled = np.random.default_rng(0).permutation(lengths)
    step = int(np.add.reduceat(shuffled, np.arange(0, len(lengths), pairs_per_step)).max())
    tokens = max(int(lengths.max()), min(step, numerics.pack_tokens))
    if on_gpu:  # there every pack has the same length
        tokens = max(tokens, numerics.pack_tokens)
    return BatchSize(tokens, math.ceil(tokens * scored), step <= numerics.pack_tokens)


def kept_activations(model: Sizes, batch: BatchSize, width: int, *, checkpointing: bool) -> int:
    """Bytes that the decoder keeps of a batch for the backward pass; a number of the compute dtype has `width`."""
    norm = (_FP32 + 2 * width) * model.width  # its input in fp32, and its output before and after the weight
    attention = 2 * width * (model.queries + model.keys)  # queries, keys, values, and what comes out
    mlp = 4 * width * model.mlp  # gate, activated gate, up, and the product
    layer = 2 * (norm + _FP32) + attention + mlp
    layers = model.layers * width * model.width + layer if checkpointing else model.layers * layer
    return batch.tokens * (layers + norm)


def kept_logits(model: Sizes, batch: BatchSize, *, on_gpu: bool) -> int:
    """Bytes of the logits in fp32, or, where they are too many to be kept, of a tile and what is made of it."""
    logits = batch.scored * model.vocabulary
    if logits <= KEPT_LOGITS:
        return _FP32 * logits
    return 3 * _FP32 * min(batch.scored, TILE_ROWS) * (GPU_TILE_TOKENS if on_gpu else TILE_TOKENS)


def _head_gradients(model: Sizes, batch: BatchSize, width: int, *, trained: bool) -> int:
    """Bytes that the backward pass of the head takes while all else is there: in fp32, then rounded."""
    to_weight = (_FP32 + width % _FP32) * model.vocabulary * model.width if trained else 0
    return (_FP32 + width) * batch.scored * model.width + to_weight


def _remedies(numerics: Numerics, config: TrainConfig) -> dict[str, str]:
    smaller = "a smaller scoring.pack_tokens"
    checkpointing = "" if config.gradient_checkpointing else "train.gradient_checkpointing: true, or "
    states = "train.optim: adamw_8bit, or " if config.optim == "adamw" else ""
    adapter = "train.lora" if config.lora is None else "a smaller train.lora.r"
    return {
        "weights": "reference.dtype: bfloat16" if numerics.dtype == "float32" else "reference.quantization",
        "fp32 masters": adapter,
        "optimiser states": states + adapter,
        "gradients": adapter,
        "activations": f"{checkpointing}{smaller}",
        "logits": smaller,
    }
