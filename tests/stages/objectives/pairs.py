"""Pairs to apply objectives to: one that is worked out by hand, and many that are random."""

from typing import Any, get_args

import torch

from stages.objectives.catalogue import OBJECTIVES
from stages.objectives.preference import preference_loss
from stages.objectives.terms import Divergence

HAND = {"policy": (-10.0, -15.0), "reference": (-12.0, -14.0), "tokens": (4, 2)}
"""c = 2, r = -1, D = 3; a token c/L+ = 0.5, r/L- = -0.5; policy margin 5, reference margin 2."""
VARIANTS: list[tuple[str, dict[str, Any]]] = [
    *((name, {}) for name in OBJECTIVES),
    *((name, {"label_smoothing": 0.2}) for name in ("sigmoid", "robust", "exo_pair", "aot", "aot_unpaired")),
    ("ipo", {"average": False}),
    ("bco_pair", {"bco_delta": 0.7}),
    ("discopop", {"discopop_tau": 0.5}),
    ("dpop", {"dpop_lambda": 3.0}),
    ("simpo", {"simpo_gamma": 1.5}),
    *(("sigmoid", {"f_divergence_type": name}) for name in get_args(Divergence)),
    ("hinge", {"f_divergence_type": "alpha_divergence", "f_alpha_divergence_coef": 1.5}),
    ("robust", {"f_divergence_type": "js_divergence"}),
]
"""Every objective with its defaults, and every parameter at least once."""
IDS = ["-".join([name, *(f"{key}={value}" for key, value in parameters.items())]) for name, parameters in VARIANTS]


def by_hand(
    name: Any, policy=HAND["policy"], reference=HAND["reference"], tokens=HAND["tokens"], **parameters
) -> float:
    """The loss of one pair."""
    sums = [torch.tensor([value], dtype=torch.float64) for value in (*policy, *reference)]
    return float(preference_loss(name, *sums, *(torch.tensor([n]) for n in tokens), **parameters))


def random_pairs(n: int = 7, dtype=torch.float64, seed: int = 0) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
    """Sums (policy chosen and rejected with gradients, then the reference's) and token counts."""
    generator = torch.Generator().manual_seed(seed)
    counts = [torch.randint(3, 30, (n,), generator=generator) for _ in range(2)]
    sums = [-2.0 * counts[i % 2] + 2 * torch.randn(n, generator=generator, dtype=dtype) for i in range(4)]
    return [values.to(dtype).requires_grad_(i < 2) for i, values in enumerate(sums)], counts
