"""Peak memory of training, estimated and measured: python benchmarks/memory.py --model .models/SmolLM2-135M-Instruct

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
from stages.training.memory_estimate import PROGRAM, estimate_peak
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


def main() -> None:
    """Print the table, or measure one case."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--model", type=Path, default=Path(".models/SmolLM2-135M-Instruct"))
    parser.add_argument("--case", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.case:
        print(json.dumps(measure(arguments.model, **json.loads(arguments.case))))
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
            keys = ", ".join(f"{key}: {str(value).lower()}" for key, value in train.items())
            print(
                f"| {'random, 8 layers' if name == 'small' else model.name} | {dtype} | {pack_tokens} | {keys} | "
                f"{estimated / 1e9:.2f} GB | {measured / 1e9:.2f} GB | {estimated / measured - 1:+.0%} |",
                flush=True,
            )


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
    estimate = estimate_peak(folder, numerics, config, TokenPairs.of(pairs), on_gpu=on_gpu)
    assert estimate is not None
    print(estimate.sentence(), file=sys.stderr)
    return estimate.total - (0 if on_gpu else PROGRAM), peak_memory_bytes() - idle


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
