"""Rows taken from a matrix and, for the gradient, summed back: by gathers alone, in an order that never changes.

A scatter-add would do the same with atomics on a GPU, in any order; here each row knows its sources beforehand.
"""

from typing import Any

import numpy as np
import torch
from torch.autograd.function import once_differentiable

from stages.scoring.transfer import on_device


class GatherPlan:
    """Which row of an (n_rows, d) matrix stands at each place of another; rows from `n_live` on are padding."""

    def __init__(self, index: np.ndarray, n_rows: int, n_live: int, device: torch.device) -> None:
        self.index = on_device(index, device)
        self.n_sources = len(index)
        order = np.argsort(index, kind="stable")
        order = order[: np.searchsorted(index[order], n_live)]
        rows, first, counts = np.unique(index[order], return_index=True, return_counts=True)
        primary = np.full(n_rows, self.n_sources)
        primary[rows] = order[first]
        self._primary = on_device(primary, device)
        self._further = []
        for rank in range(1, int(counts.max(initial=0))):
            more = counts > rank
            pair = (rows[more], order[first[more] + rank])
            self._further.append(tuple(on_device(part, device) for part in pair))

    def sum_back(self, sources: torch.Tensor) -> torch.Tensor:
        """For each row the sum of its sources: (n_sources + 1, d), whose last row is zero, -> (n_rows, d).

        Padding, and a row that was never gathered, get zeros.
        """
        total = sources.index_select(0, self._primary)
        for rows, places in self._further:
            total[rows] = total[rows] + sources[places]
        return total


def gather(rows: torch.Tensor, plan: GatherPlan) -> torch.Tensor:
    """Rows (n_rows, d) -> (n_sources, d); the gradient is summed in fp32."""
    gathered: torch.Tensor = _Gather.apply(rows, plan)  # type: ignore[no-untyped-call]
    return gathered


class _Gather(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, rows: torch.Tensor, plan: GatherPlan) -> torch.Tensor:
        ctx.plan = plan
        return rows.index_select(0, plan.index)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor, None]:
        sources = gradient.new_zeros((len(gradient) + 1, *gradient.shape[1:]), dtype=torch.float32)
        sources[:-1] = gradient
        return ctx.plan.sum_back(sources).to(gradient.dtype), None
