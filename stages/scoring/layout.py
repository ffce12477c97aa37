"""A batch as the model sees it, and where in its output the scored tokens are predicted."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from data.schema import Response
from stages.scoring.attention.contract import PackAttention
from stages.scoring.transfer import on_device

# Lengths are rounded up to this. Matrix products of a few rows take another path than those of many, and elementwise
# functions treat the end of an array that does not fill a vector differently: either would change last bits.
GRANULE = 64


@dataclass(frozen=True)
class Layout:
    """Input of the model, and for each of the M scored tokens, response by response, what became of it.

    `positions` is the flat position that predicts the token (rounded up to a multiple of `GRANULE` by repeats),
    `targets` the token, `owners` its response in the batch, `places` its rank among that response's scored tokens.
    """

    input_ids: torch.Tensor  # (B, T)
    position_ids: torch.Tensor | None  # (B, T)
    attention: PackAttention | None
    positions: torch.Tensor  # (M rounded up,) into B*T
    targets: torch.Tensor  # (M rounded up,)
    owners: torch.Tensor  # (M,) into N
    places: torch.Tensor  # (M,)
    n_responses: int
    most_scored: int  # scored tokens of the response that has most


def token_multiple() -> int:
    """What lengths are rounded up to: each thread's share of an array then fills whole vectors."""
    odd = torch.get_num_threads()
    while odd % 2 == 0:
        odd //= 2
    return GRANULE * odd


def make_layout(
    responses: Sequence[Response],
    predicted_from: Sequence[np.ndarray],
    input_ids: np.ndarray,
    position_ids: np.ndarray | None,
    attention: PackAttention | None,
    device: torch.device,
) -> Layout:
    """The layout of responses whose every token is predicted from a flat position, given response by response."""
    scored = [np.flatnonzero(response.mask) for response in responses]
    counts = [len(part) for part in scored]
    missing = -sum(counts) % GRANULE
    positions = [at[part] for at, part in zip(predicted_from, scored, strict=True)]
    targets = [response.ids[part] for response, part in zip(responses, scored, strict=True)]

    def moved(*parts: np.ndarray) -> torch.Tensor:
        return on_device(np.concatenate(parts).astype(np.int64), device)

    return Layout(
        on_device(input_ids, device),
        None if position_ids is None else on_device(position_ids, device),
        attention,
        moved(*positions, np.zeros(missing)),
        moved(*targets, np.zeros(missing)),
        moved(np.repeat(np.arange(len(responses)), counts)),
        moved(*[np.arange(n) for n in counts]),
        len(responses),
        max(counts),
    )
