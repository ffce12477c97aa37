"""What one measurement of against_trl.py is told and reports, whoever is measured."""

import platform
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any, NamedTuple

import torch
from torch.nn.functional import linear

import pipeline  # noqa: F401 - finds our packages
from data.schema import PreferencePair, TokenPair, unique_responses
from data.tokens.token_pairs import TokenPairs
from stages.training.config import TrainConfig
from stages.training.memory import peak_memory_bytes
from stages.training.order import StepOrder, steps_per_epoch

MAX_LENGTH = 1024
TRAIN = TrainConfig(learning_rate=1e-6, pairs_per_step=16, epochs=1)
WARM_UP = 2  # pairs, before scoring
RATE_SECONDS = 0.5
CUBE = 2048


@dataclass(frozen=True)
class Spec:
    """What to measure; `trl` holds arguments of DPOConfig, None where the contender is ours."""

    model: str
    file: str | None
    """Of the rows; None for the synthetic ones."""
    task: str
    dtype: str
    pairs: int
    pack_tokens: int | None = None
    trl: dict[str, Any] | None = None
    sort: bool = False
    """Hand TRL the rows by length: its pre-computation keeps their order."""


class Pairs(NamedTuple):
    """The same pairs as text and in tokens."""

    texts: tuple[PreferencePair, ...]
    tokens: tuple[TokenPair, ...]


def longest_rows(pairs: Sequence[TokenPair]) -> list[int]:
    """A step's worth of pairs to warm up with: touching memory for the first time has a price, paid once."""
    lengths = [len(pair.chosen) + len(pair.rejected) for pair in pairs]
    return sorted(range(len(pairs)), key=lambda row: -lengths[row])[: TRAIN.pairs_per_step]


@contextmanager
def measured(model: Any, spec: Spec, pairs: Pairs) -> Iterator[dict[str, Any]]:
    """A report of what happens inside: its seconds (unless it sets them itself), its work, memory and rates."""
    report = useful_work(model, spec, pairs.tokens)
    report["rates_before"] = matrix_rates(model, spec.dtype)
    started = time.perf_counter()
    yield report
    report.setdefault("seconds", time.perf_counter() - started)
    report["peak_bytes"] = peak_memory_bytes()
    report["rates_after"] = matrix_rates(model, spec.dtype)


def useful_work(model: Any, spec: Spec, pairs: Sequence[TokenPair]) -> dict[str, Any]:
    """Tokens and FLOPs with each prompt and each response once (in training: once a step of ours)."""
    groups = [pairs]
    if spec.task == "training":
        order = StepOrder(TokenPairs.of(pairs), TRAIN.seed, TRAIN.pairs_per_step)
        groups = [order.step(step) for step in range(steps_per_epoch(len(pairs), TRAIN.pairs_per_step))]
    tokens = scored = 0
    for group in groups:
        responses = unique_responses(group)
        prompts = {response.prompt_ids.tobytes(): len(response.prompt_ids) for response in responses}
        tokens += sum(prompts.values()) + sum(len(response.ids) for response in responses)
        scored += sum(response.n_scored for response in responses)
    embeddings, head = model.get_input_embeddings().weight, model.get_output_embeddings().weight
    body = sum(p.numel() for p in model.parameters() if p is not embeddings and p is not head)
    flops = 2 * body * tokens + 2 * head.numel() * scored
    flops *= 3 if spec.task == "training" else 1
    return {"pairs": len(pairs), "useful_tokens": tokens, "useful_flops": flops}


def matrix_rates(model: Any, dtype: str) -> dict[str, float]:
    """FLOP/s of fp32 and of `dtype`: the better of a cube and the model's MLP."""
    config = model.config.get_text_config()
    shapes = [(CUBE, CUBE, CUBE), (CUBE, config.intermediate_size, config.hidden_size)]
    return {name: max(matrix_rate(shape, name) for shape in shapes) for name in dict.fromkeys(["float32", dtype])}


def matrix_rate(shape: tuple[int, int, int], dtype: str) -> float:
    """FLOP/s of x (M, K) times w (N, K) transposed."""
    m, n, k = shape
    x, w = torch.ones(m, k, dtype=getattr(torch, dtype)), torch.ones(n, k, dtype=getattr(torch, dtype))
    linear(x[:64], w)
    calls, started = 0, time.perf_counter()
    while (seconds := time.perf_counter() - started) < RATE_SECONDS:
        linear(x, w)
        calls += 1
    return 2 * m * n * k * calls / seconds


def facts(spec: Spec) -> dict[str, Any]:
    """Versions and machine, as this process sees them."""
    packages = ["torch", "transformers"] if spec.trl is None else ["torch", "transformers", "trl", "accelerate"]
    versions = {name: version(name) for name in packages} | {"python": platform.python_version()}
    return versions | {"capability": torch.backends.cpu.get_cpu_capability(), "threads": torch.get_num_threads()}
