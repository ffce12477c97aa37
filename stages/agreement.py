"""How far stored log-probs and those scored now are apart, and how far they may be."""

import logging
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from data.errors import StoreError

FP32_LIMIT = 1e-3  # nats, of one response's sum
# Rows in other batches differ legitimately in bf16 (by up to 0.033 rms and 0.15 at most, per root of a token).
BF16_RMS_LIMIT = 0.06
BF16_MAX_LIMIT = 0.4

logger = logging.getLogger(__name__)


def agreement(stored: npt.ArrayLike, scored: npt.ArrayLike, n_scored: npt.ArrayLike) -> dict[str, float]:
    """Figures of d = scored - stored, sums of responses (N,) in nats with n scored tokens each."""
    d = np.asarray(scored, np.float64) - np.asarray(stored, np.float64)
    n = np.asarray(n_scored, np.float64)
    return {
        "responses": float(len(d)),
        "max_abs": float(np.abs(d).max()),
        "rms_per_root_token": float(np.sqrt(np.mean(d**2 / n))),
        "max_per_root_token": float((np.abs(d) / np.sqrt(n)).max()),
        "mean_per_token": float(np.mean(d / n)),
    }


def agrees(figures: dict[str, float], dtype: str) -> bool:
    """Whether they are as near as two ways to compute the same in this dtype come; never where one is no number."""
    if dtype == "float32":
        return figures["max_abs"] <= FP32_LIMIT
    return figures["rms_per_root_token"] <= BF16_RMS_LIMIT and figures["max_per_root_token"] <= BF16_MAX_LIMIT


def require_agreement(figures: dict[str, float], dtype: str, finding: str, advice: str, *, accept: bool) -> None:
    """Go on where the figures agree, or where that they do not is accepted; `finding` says whose they are.

    Raises:
        StoreError: neither.
    """
    if agrees(figures, dtype):
        return
    message = f"{finding}: {in_words(figures)} (expected: {limit_in_words(dtype)})."
    if not accept:
        raise StoreError(f"{message} {advice}")
    logger.warning("%s Accepted by --accept-drift.", message)


def limit_in_words(dtype: str) -> str:
    """What `agrees` asks for."""
    if dtype == "float32":
        return f"at most {FP32_LIMIT} nats a response in {dtype}"
    return f"at most {BF16_RMS_LIMIT} rms and {BF16_MAX_LIMIT} at worst, per root of a token, in {dtype}"


def in_words(figures: dict[str, float]) -> str:
    """The figures as part of a sentence."""
    return (
        f"up to {figures['max_abs']:.4g} nats apart, {figures['rms_per_root_token']:.4g} rms and "
        f"{figures['max_per_root_token']:.4g} at worst per root of a token"
    )


def spread(ordered: Sequence[Any], sample: int) -> list[Any]:
    """`sample` of the elements, evenly spread from the first to the last."""
    if len(ordered) <= sample:
        return list(ordered)
    return [ordered[round(i * (len(ordered) - 1) / (sample - 1))] for i in range(sample)]
