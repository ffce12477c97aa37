"""Log-probs of given tokens from hidden states, in fp32, without ever building all logits.

The vocabulary projection runs on tiles of rows; each tile's logits live only while its log-softmax is taken, and are
computed again in the backward pass.
"""

import torch
from torch.nn.functional import linear
from torch.utils.checkpoint import checkpoint

TILE_LOGITS = 2**25  # logits alive at a time (128 MiB in fp32)


def token_logps(
    hidden: torch.Tensor, targets: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None
) -> torch.Tensor:
    """Log p(target) of each row: hidden (M, D), targets (M,), weight (V, D) -> (M,) float32, in nats."""
    weight = weight.float()  # once a call: products of bf16 inputs are exact in fp32, their sums are not in bf16
    bias = None if bias is None else bias.float()
    rows = max(1, TILE_LOGITS // weight.shape[0])
    tiles = []
    for start in range(0, len(targets), rows):
        tile = (hidden[start : start + rows], targets[start : start + rows], weight, bias)
        if torch.is_grad_enabled():
            tiles.append(checkpoint(_tile_logps, *tile, use_reentrant=False, preserve_rng_state=False))
        else:
            tiles.append(_tile_logps(*tile))
    return torch.cat(tiles)


def logits_logps(logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """Log p(target) of each row of the model's own logits (M, V) -> (M,) float32, in nats."""
    logits = logits.float()
    # Not log_softmax: on a CPU its error has a sign, and a sum over tokens adds it up (docs/experiments.md).
    return logits.gather(-1, targets[:, None]).squeeze(-1) - logits.logsumexp(-1)


def _tile_logps(
    hidden: torch.Tensor, targets: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None
) -> torch.Tensor:
    return logits_logps(linear(hidden.float(), weight, bias), targets)
