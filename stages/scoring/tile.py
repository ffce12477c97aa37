"""What is made of one tile of the vocabulary between matrix products: a few numbers a row, or a gradient.

Plain functions of tensors, which they leave as they are, so that torch.compile can make one kernel of each: a tile is
then read once, where single operations read and write it again and again.

Legend: M rows, W words of the vocabulary. Products are of hidden states and weights: (M, W) float32.
"""

from collections.abc import Callable
from functools import cache
from typing import Any, NamedTuple

import torch
from torch import Tensor


class Finish(NamedTuple):
    """From products to logits: a bias is added, then all are multiplied by `scale`, then capped."""

    scale: float = 1.0
    softcap: float | None = None

    def logits(self, products: Tensor, bias: Tensor | None) -> Tensor:
        """(M, W); where nothing is to be done, the products themselves."""
        logits = products if bias is None else products + bias
        if self.scale != 1.0:
            logits = logits * self.scale
        if self.softcap is not None:
            logits = torch.tanh(logits / self.softcap) * self.softcap
        return logits

    def slope(self, logits: Tensor) -> Tensor | float | None:
        """Derivative of the logits by the products, if it is not 1."""
        if self.softcap is not None:
            return (1 - (logits / self.softcap).square()) * self.scale
        return self.scale if self.scale != 1.0 else None


class TileSums(NamedTuple):
    """Of each row (M,): its target's logit (0 if in another tile), log-sum-exp of the logits, of twice the logits."""

    target: Tensor
    log_sum: Tensor
    log_squares: Tensor | None


def tile_sums(products: Tensor, bias: Tensor | None, targets: Tensor, finish: Finish, collisions: bool) -> TileSums:
    """What the log-probs need of a tile; `targets` (M,) are columns of it, or beyond it."""
    logits = finish.logits(products, bias)
    inside, columns = _inside(targets, logits.shape[1])
    target = torch.where(inside, logits.gather(1, columns).squeeze(1), 0.0)
    highest = logits.amax(1)
    # Not torch.logsumexp, which makes one more copy.
    exps = (logits - highest[:, None]).exp_()
    log_sum = exps.sum(1).log_().add_(highest)
    if not collisions:
        return TileSums(target, log_sum, None)
    return TileSums(target, log_sum, exps.square_().sum(1).log_().add_(highest, alpha=2))


def tile_gradient(
    products: Tensor,
    bias: Tensor | None,
    targets: Tensor,
    normaliser: Tensor,
    gradient: Tensor,
    finish: Finish,
    dtype: torch.dtype,
) -> tuple[Tensor, Tensor | None]:
    """Gradients by the products (M, W) in `dtype`, and by the bias (W,), of log-probs weighed by `gradient` (M,).

    `normaliser` (M,) is the log-sum-exp over the whole vocabulary.
    """
    logits = finish.logits(products, bias)
    slope = finish.slope(logits)
    probabilities = (logits - normaliser[:, None]).exp_()
    to_products = _without_targets(probabilities, targets).mul_(-gradient[:, None])
    if slope is not None:
        to_products.mul_(slope)
    return to_products.to(dtype), None if bias is None else to_products.sum(0)


def _without_targets(probabilities: Tensor, targets: Tensor) -> Tensor:
    """1 less at the targets, in place."""
    if torch.compiler.is_compiling():  # a scatter would be a kernel of its own
        words = torch.arange(probabilities.shape[1], device=probabilities.device)
        return torch.where(words == targets[:, None], probabilities - 1, probabilities)
    inside, columns = _inside(targets, probabilities.shape[1])
    return probabilities.scatter_add_(1, columns, -inside.float()[:, None])


def _inside(targets: Tensor, n_words: int) -> tuple[Tensor, Tensor]:
    """Whether each row's target lies in the tile (M,), and its column there (M, 1), 0 where it does not."""
    inside = (targets >= 0) & (targets < n_words)
    return inside, torch.where(inside, targets, 0)[:, None]


class TileFunctions(NamedTuple):
    """The two functions of a tile."""

    sums: Callable[..., TileSums] = tile_sums
    gradient: Callable[..., tuple[Tensor, Tensor | None]] = tile_gradient


PLAIN = TileFunctions()


@cache
def compiled(backend: str | Callable[..., Any]) -> TileFunctions:
    """The same, compiled for any number of rows and words."""
    compiler = torch.compile(backend=backend, dynamic=True)
    return TileFunctions(compiler(tile_sums), compiler(tile_gradient))
