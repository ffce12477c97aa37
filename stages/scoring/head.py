"""Log-probs of given tokens from hidden states, in fp32, with a backward pass of its own.

The projection to the vocabulary is cut into tiles. A tile's logits are used for the running log-sum-exp and dropped;
for the backward pass those of a whole call are kept where they are few, and computed again where they are many.

Legend: M scored tokens, V vocabulary, D width.
"""

from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
from torch.autograd.function import once_differentiable

from stages.scoring.config import GPU_TILE_TOKENS, KEPT_LOGITS, TILE_ROWS, TILE_TOKENS
from stages.scoring.tile import PLAIN, Finish, TileFunctions


class OutputLayer(NamedTuple):
    """From hidden states to logits: weight (V, D), bias (V,) or none; then times `scale`, then capped."""

    weight: torch.Tensor
    bias: torch.Tensor | None = None
    scale: float = 1.0
    softcap: float | None = None
    functions: TileFunctions = PLAIN

    @property
    def finish(self) -> Finish:
        """What follows the matrix product and its bias."""
        return Finish(self.scale, self.softcap)


class TokenScores(NamedTuple):
    """Of M rows: log p(target), and if asked for log sum_v p(v)^2, which has no gradient; (M,) float32, nats."""

    logps: torch.Tensor
    collisions: torch.Tensor | None


def token_scores(
    hidden: torch.Tensor, targets: torch.Tensor, layer: OutputLayer, *, collisions: bool = False
) -> TokenScores:
    """The scores of hidden states (M, D) and targets (M,)."""
    differentiable = torch.is_grad_enabled()  # inside of `apply` it never is
    return TokenScores(
        *_TokenLogps.apply(hidden, layer.weight, layer.bias, targets, layer, differentiable, collisions)  # type: ignore[no-untyped-call]
    )


def logits_logps(logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """Log p(target) of each row of the model's own logits (M, V) -> (M,) float32, in nats."""
    logits = logits.float()
    # Not log_softmax: on a CPU its error has a sign, and a sum over tokens adds it up (docs/experiments.md).
    return logits.gather(-1, targets[:, None]).squeeze(-1) - logits.logsumexp(-1)


@torch.no_grad()
def logits_collisions(logits: torch.Tensor) -> torch.Tensor:
    """Log sum_v p(v)^2 of each row of the model's own logits (M, V) -> (M,) float32, in nats."""
    logits = logits.float()
    return (2 * logits).logsumexp(-1) - 2 * logits.logsumexp(-1)


class _TokenLogps(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        hidden: torch.Tensor,
        weight: torch.Tensor,
        bias: torch.Tensor | None,
        targets: torch.Tensor,
        layer: OutputLayer,
        differentiable: bool,
        collisions: bool,
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        keep = differentiable and any(ctx.needs_input_grad[:3]) and len(hidden) * len(weight) <= KEPT_LOGITS
        head = _Tiles(hidden, targets, layer)
        chosen = hidden.new_zeros(len(hidden), dtype=torch.float32)
        partial: list[list[torch.Tensor]] = [[] for _ in head.rows]
        squares: list[list[torch.Tensor]] = [[] for _ in head.rows]
        kept = []
        for tile in head.tiles():
            products = head.products(tile)
            if keep:
                kept.append(products)
            sums = layer.functions.sums(products, tile.bias, tile.targets, layer.finish, collisions)
            chosen[tile.rows] += sums.target
            partial[tile.row_number].append(sums.log_sum)
            if sums.log_squares is not None:
                squares[tile.row_number].append(sums.log_squares)
        normaliser = _log_of_sums(partial)
        ctx.save_for_backward(hidden, weight, bias, targets, normaliser, *kept)
        ctx.layer = layer
        if not collisions:
            return chosen - normaliser, None
        of_squares = _log_of_sums(squares) - 2 * normaliser
        ctx.mark_non_differentiable(of_squares)
        return chosen - normaliser, of_squares

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: torch.Tensor, _: torch.Tensor | None) -> tuple[torch.Tensor | None, ...]:
        hidden, weight, bias, targets, normaliser, *kept = ctx.saved_tensors
        head = _Tiles(hidden, targets, ctx.layer)
        to_hidden = torch.empty_like(hidden, dtype=torch.float32) if ctx.needs_input_grad[0] else None
        to_weight = torch.empty_like(weight, dtype=torch.float32) if ctx.needs_input_grad[1] else None
        to_bias = torch.zeros_like(bias, dtype=torch.float32) if bias is not None else None
        for number, tile in enumerate(head.tiles()):
            products = kept[number] if kept else head.products(tile)
            to_products, to_tile_bias = ctx.layer.functions.gradient(
                products,
                tile.bias,
                tile.targets,
                normaliser[tile.rows],
                gradient[tile.rows],
                ctx.layer.finish,
                head.product_dtype,
            )
            head.add_gradients(tile, to_products, to_hidden, to_weight)
            if to_bias is not None:
                to_bias[tile.tokens] += to_tile_bias
        return (
            None if to_hidden is None else to_hidden.to(hidden.dtype),
            None if to_weight is None else to_weight.to(weight.dtype),
            None if to_bias is None or bias is None else to_bias.to(bias.dtype),
            *[None] * 4,
        )


def _log_of_sums(tiles: list[list[torch.Tensor]]) -> torch.Tensor:
    """(M,): the logarithm of what the tiles of each row add up to."""
    return torch.cat([torch.stack(parts).logsumexp(0) for parts in tiles])


class _Tile(NamedTuple):
    rows: slice
    row_number: int
    tokens: slice
    targets: torch.Tensor
    """As columns of the tile (rows,), or beyond it."""
    bias: torch.Tensor | None


class _Tiles:
    """The projection, tile by tile; of the vocabulary outside, so that each part of the weight is converted once."""

    def __init__(self, hidden: torch.Tensor, targets: torch.Tensor, layer: OutputLayer) -> None:
        self._targets, self._layer = targets, layer
        self.rows = [slice(start, start + TILE_ROWS) for start in range(0, len(hidden), TILE_ROWS)]
        # bf16 inputs multiply exactly in fp32; a GPU does that, and adds up in fp32, without converting them first.
        self._native = hidden.is_cuda and hidden.dtype != torch.float32
        self.product_dtype = hidden.dtype if self._native else torch.float32
        self._wide_hidden = hidden.to(self.product_dtype)
        self._wide_weight = layer.weight
        self._tokens = GPU_TILE_TOKENS if hidden.is_cuda else TILE_TOKENS

    def tiles(self) -> Iterator[_Tile]:
        """All tiles, always in the same order."""
        weight, bias = self._layer.weight, self._layer.bias
        for start in range(0, len(weight), self._tokens):
            tokens = slice(start, start + self._tokens)
            self._wide_weight = weight[tokens].to(self.product_dtype)
            part = None if bias is None else bias[tokens].float()
            for number, rows in enumerate(self.rows):
                yield _Tile(rows, number, tokens, self._targets[rows] - start, part)

    def products(self, tile: _Tile) -> torch.Tensor:
        """(rows, tokens) float32."""
        hidden, weight = self._wide_hidden[tile.rows], self._wide_weight.t()
        return torch.mm(hidden, weight, out_dtype=torch.float32) if self._native else torch.mm(hidden, weight)

    def add_gradients(
        self, tile: _Tile, to_products: torch.Tensor, to_hidden: torch.Tensor | None, to_weight: torch.Tensor | None
    ) -> None:
        """Add up in fp32 what the gradient of this tile's products is worth to hidden states and weight."""
        hidden, weight = self._wide_hidden[tile.rows], self._wide_weight
        if to_hidden is not None:
            self._add_product(to_hidden[tile.rows], to_products, weight, first=tile.tokens.start == 0)
        if to_weight is not None:
            self._add_product(to_weight[tile.tokens], to_products.t(), hidden, first=tile.row_number == 0)

    def _add_product(self, total: torch.Tensor, left: torch.Tensor, right: torch.Tensor, *, first: bool) -> None:
        if self._native:
            product = torch.mm(left, right, out_dtype=torch.float32)
            total.copy_(product) if first else total.add_(product)
        elif first:
            torch.mm(left, right, out=total)
        else:
            total.addmm_(left, right)
