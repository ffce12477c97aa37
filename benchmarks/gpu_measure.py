"""What a cell of the GPU benchmark measures, whoever works: time, useful work, memory, the card's own matrix rate."""

import platform
import time
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import torch

import pipeline  # noqa: F401 - finds our packages
from data.schema import TokenPair
from stages.scoring.model import device_name
from stages.training.flops import Work, model_cost
from stages.training.memory import peak_memory_bytes

PACKAGES = ("torch", "transformers", "triton", "trl", "accelerate", "bitsandbytes", "peft", "vllm")
CUBE = {"cuda": 8192, "cpu": 512}
watches: list[AbstractContextManager[Any]] = []
"""What is open while something is measured, a profiler for instance."""

RATE_SECONDS = {"cuda": 0.4, "cpu": 0.02}


def synchronize() -> None:
    """Wait for the device, where there is one that works on its own."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def now() -> float:
    """Seconds, when all that was asked of the device is done."""
    synchronize()
    return time.perf_counter()


@contextmanager
def measured(report: dict[str, Any], dtype: str) -> Iterator[None]:
    """Into the report: seconds of what happens inside (unless it says itself), peak memory, matrix rates around it."""
    report["rates"] = [matrix_rate(dtype)]
    if torch.cuda.is_available():
        torch.cuda.empty_cache()  # what the warm-up and the rate no longer need
        torch.cuda.reset_peak_memory_stats()
    with ExitStack() as stack:
        for watch in watches:
            stack.enter_context(watch)
        started = now()
        yield
        report.setdefault("seconds", now() - started)
    report["peak_bytes"] = peak_memory_bytes()
    if torch.cuda.is_available():
        report["peak_reserved_bytes"] = torch.cuda.max_memory_reserved()
        torch.cuda.empty_cache()
    report["rates"].append(matrix_rate(dtype))


def useful_work(model: Any, task: str, groups: Sequence[Sequence[TokenPair]]) -> dict[str, int]:
    """Tokens and operations with each prompt and each response of a group once: 2 a parameter and token, in training 6.

    Of the output layer at scored positions only; attention is not counted.
    """
    work = [Work.of(group) for group in groups]
    cost = model_cost(model)
    assert cost is not None
    tokens = sum(part.tokens for part in work)
    flops = 2 * cost.body * tokens + 2 * cost.head * sum(part.scored for part in work)
    return {
        "pairs": sum(map(len, groups)),
        "useful_tokens": tokens,
        "useful_flops": flops * (3 if task == "training" else 1),
    }


def matrix_rate(dtype: str) -> float:
    """FLOP/s of a product of random square matrices, the largest that matters."""
    kind = "cuda" if torch.cuda.is_available() else "cpu"
    cube = CUBE[kind]
    x, w = (torch.randn(cube, cube, device=kind, dtype=getattr(torch, dtype)) for _ in range(2))
    out = x @ w
    calls, started = 0, now()
    while (seconds := now() - started) < RATE_SECONDS[kind]:
        for _ in range(10):
            torch.mm(x, w, out=out)
        calls += 10
    return 2 * cube**3 * calls / seconds


def facts() -> dict[str, str]:
    """Device and versions, as this process sees them."""
    versions = {name: found for name in PACKAGES if (found := _version(name)) is not None}
    return {"device": device_name(), "python": platform.python_version(), **versions}


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None
