"""Peak memory of training, estimated and measured.

python benchmarks/memory.py --model .models/SmolLM2-135M-Instruct     estimated and measured, case by case
python benchmarks/memory.py --parts                                   where the memory of an 8B model goes, on a GPU

Two optimiser steps a configuration, each in a process of its own, on pairs of random tokens. Measured is the peak above
what the process held before it loaded the model: resident memory on a CPU, allocated memory on a GPU.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import LlamaConfig, LlamaForCausalLM

import pipeline  # noqa: F401 - finds our packages
from data.schema import Response, TokenPair
from data.tokens.token_pairs import TokenPairs
from stages.scoring.config import Numerics
from stages.scoring.model import load_model
from stages.scoring.scorer import Scorer
from stages.training.config import TrainConfig
from stages.training.gradient_checkpointing import checkpoint_layers
from stages.training.memory import peak_memory_bytes
from stages.training.memory_estimate import PROGRAM, estimate, estimate_peak
from stages.training.model_sizes import Sizes
from stages.training.optimizer import MasterAdamW

STEPS = 2  # the first makes the optimiser's states, the second has them all the time
PAIRS_PER_STEP = 4  # two batches
SMALL: dict[str, Any] = {"vocab_size": 8192, "hidden_size": 512, "intermediate_size": 1408, "num_hidden_layers": 8}
CHECKPOINTING: dict[str, Any] = {"gradient_checkpointing": True}
MOMENTS: dict[str, Any] = {"optim": "adamw_8bit"}
CASES: list[tuple[str, str, int, dict[str, Any]]] = [
    ("small", "float32", 2048, {}),
    ("small", "bfloat16", 2048, {}),
    ("small", "bfloat16", 4096, CHECKPOINTING),
    ("given", "float32", 1024, {}),
    ("given", "float32", 2048, {}),
    ("given", "float32", 1024, CHECKPOINTING),
    ("given", "bfloat16", 1024, {}),
    ("given", "bfloat16", 1024, CHECKPOINTING),
    ("given", "bfloat16", 1024, MOMENTS),
    ("given", "bfloat16", 1024, MOMENTS | CHECKPOINTING),
]

LARGE = Sizes("llama", layers=32, width=4096, mlp=14_336, queries=4096, keys=1024, vocabulary=128_256)  # Llama 3.1 8B
PLANS: list[dict[str, Any]] = [{}, CHECKPOINTING, MOMENTS, MOMENTS | CHECKPOINTING, {"lora": {"r": 16}}]


def main() -> None:
    """Print the table, or measure one case."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--model", type=Path, default=Path(".models/SmolLM2-135M-Instruct"))
    parser.add_argument("--parts", action="store_true")
    parser.add_argument("--case", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.case:
        print(json.dumps(measure(arguments.model, **json.loads(arguments.case))))
        return
    if arguments.parts:
        print_parts()
        return
    print("| model | dtype | pack_tokens | keys | estimated | measured | off by |\n|---|---|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as folder:
        torch.manual_seed(0)
        LlamaForCausalLM(LlamaConfig(**SMALL)).save_pretrained(folder)
        for name, dtype, pack_tokens, train in CASES:
            model = Path(folder) if name == "small" else arguments.model
            case = json.dumps({"dtype": dtype, "pack_tokens": pack_tokens, "train": train})
            command = [sys.executable, __file__, "--model", str(model), "--case", case]
            answer = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout
            estimated, measured = json.loads(answer.splitlines()[-1])
            title = "random, 8 layers" if name == "small" else model.name
            print(
                f"| {title} | {dtype} | {pack_tokens} | {as_keys(train)} | "
                f"{estimated / 1e9:.2f} GB | {measured / 1e9:.2f} GB | {estimated / measured - 1:+.0%} |",
                flush=True,
            )


def print_parts() -> None:
    """A row a configuration: pairs of 1,024 tokens, packs of 2,048, bf16, 16 pairs a step."""
    pairs = TokenPairs.of(random_pairs(16, 1024, LARGE.vocabulary))
    numerics = Numerics("bfloat16", "auto", 2048)
    plans = [
        (train, estimate(LARGE, dict(shapes(LARGE)), numerics, TrainConfig(**train), pairs, on_gpu=True))
        for train in PLANS
    ]
    names = list(plans[0][1].parts)
    print(f"| keys | {' | '.join(names)} | GB in all |\n|{'---|' * (len(names) + 2)}")
    for train, plan in plans:
        figures = " | ".join(f"{plan.parts[name] / 1e9:.1f}" for name in names)
        print(f"| {as_keys(train) or 'defaults'} | {figures} | {plan.total / 1e9:.1f} |")


def shapes(model: Sizes) -> Iterator[tuple[str, tuple[int, ...]]]:
    """Of the weights of a Llama of these sizes."""
    wide, narrow = (model.mlp, model.width), (model.width, model.mlp)
    attention = {"q": model.queries, "k": model.keys, "v": model.keys, "o": model.queries}
    for layer in range(model.layers):
        yield from ((f"layers.{layer}.{name}_proj.weight", (rows, model.width)) for name, rows in attention.items())
        mlp = ("gate", wide), ("up", wide), ("down", narrow)
        yield from ((f"layers.{layer}.{name}_proj.weight", shape) for name, shape in mlp)
        yield from ((f"layers.{layer}.{name}.weight", (model.width,)) for name in ("norm", "second_norm"))
    yield from ((f"{name}.weight", (model.vocabulary, model.width)) for name in ("embed_tokens", "lm_head"))
    yield "norm.weight", (model.width,)


def as_keys(train: dict[str, Any]) -> str:
    """As they stand in a configuration."""
    return ", ".join(f"`{key}: {json.dumps(value).replace(chr(34), '')}`" for key, value in train.items())


def measure(folder: Path, dtype: str, pack_tokens: int, train: dict[str, Any]) -> tuple[int, int]:
    """Bytes, estimated and measured."""
    idle = peak_memory_bytes()
    numerics, config = Numerics(dtype, "auto", pack_tokens), TrainConfig(pairs_per_step=PAIRS_PER_STEP, **train)
    scorer = Scorer(load_model(folder, dtype), pack_tokens)
    if config.gradient_checkpointing:
        checkpoint_layers(scorer.model)
    optimizer = MasterAdamW(scorer.model, config.weight_decay, config.optim)
    pairs = list(random_pairs(PAIRS_PER_STEP, pack_tokens // 2 - 64, scorer.model.config.vocab_size))
    for _ in range(STEPS):
        for batch in scorer.plan([(pair.chosen, pair.rejected) for pair in pairs]):
            scorer.logps(batch.responses).mean().backward()  # type: ignore[no-untyped-call]
        optimizer.step(config.learning_rate, config.max_grad_norm)
    on_gpu = torch.cuda.is_available()
    foreseen = estimate_peak(folder, numerics, config, TokenPairs.of(pairs), on_gpu=on_gpu)
    assert foreseen is not None
    print(foreseen.sentence(), file=sys.stderr)
    return foreseen.total - (0 if on_gpu else PROGRAM), peak_memory_bytes() - idle


def random_pairs(n: int, length: int, vocabulary: int) -> Iterator[TokenPair]:
    """Pairs of `length` tokens each, a quarter of them prompt."""
    random = np.random.default_rng(0)
    sizes = length // 4, length * 3 // 8, length * 3 // 8
    for row in range(n):
        prompt, chosen, rejected = (random.integers(0, vocabulary, size).astype(np.int32) for size in sizes)
        one, other = (Response(prompt, ids, np.ones(len(ids), dtype=np.bool_)) for ids in (chosen, rejected))
        yield TokenPair(row, f"random:{row}", one, other)


if __name__ == "__main__":
    main()
