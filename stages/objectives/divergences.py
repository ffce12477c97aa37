"""f-divergences for the losses built on D: D = f'(u+) - f'(u-) at the ratios u = pi/ref (arXiv 2309.16240).

Each takes a log-ratio x (B,) in nats; constants that cancel in D are left as they are usually written.
"""

import math

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

_ALPHA = 0.5  # where none is given
_MOST = 80.0  # exp of it is finite in fp32


def divergence_score(x: Tensor, divergence: str | None, alpha: float | None) -> Tensor:
    """The derivative f'(exp x): x for reverse_kl, 1 - exp(-x) for forward_kl, log 2 + log s(x) for js_divergence.

    For alpha_divergence (exp((a-1)x) - 1) / (a-1), which tends to x as a tends to 1 (arXiv 2309.16240, table 1).
    """
    if divergence == "forward_kl":
        return 1 - torch.exp((-x).clamp(max=_MOST))
    if divergence == "js_divergence":
        return math.log(2) + logsigmoid(x)
    if divergence == "alpha_divergence":
        a = _ALPHA if alpha is None else alpha
        return x if a == 1 else torch.expm1(((a - 1) * x).clamp(max=_MOST)) / (a - 1)
    return x
