"""Checks of the GPU benchmark: each attention back-end, and the head, against the plainest arithmetic in fp64."""

import math
from collections.abc import Iterator
from typing import NamedTuple

import torch

import pipeline  # noqa: F401 - finds our packages
from data.errors import one_line
from stages.scoring.attention.contract import Segment, Terms, UnsupportedModel
from stages.scoring.backends import ATTENTIONS
from stages.scoring.head import OutputLayer, token_scores

BACKENDS = {"cuda": ("varlen", "flex", "segments"), "cpu": ("segments",)}
DTYPES = {"varlen": ("bfloat16",), "flex": ("float32", "bfloat16"), "segments": ("float32", "bfloat16")}
TOLERANCE = {"float32": 1e-4, "bfloat16": 2e-2}
CASES = {"as many key heads": (4, 4, None), "grouped heads": (8, 2, None), "grouped heads, window": (8, 2, 40)}
"""Query heads, key heads, and how many tokens back a token sees."""
WIDTH = 64
SEGMENTS = [
    Segment(0, 70, 0, 0),
    Segment(70, 150, 0, 70),
    Segment(150, 163, 0, 70),
    Segment(163, 180, 163, 163),
    Segment(180, 311, 163, 180),
]
"""Two prompts, of 70 and 17 tokens, with two responses and one."""
N_TOKENS = 384


class Check(NamedTuple):
    """One finding; `limit` is None where nothing is promised."""

    name: str
    value: float | str
    limit: float | str | None

    @property
    def ok(self) -> bool:
        """Whether it is as it has to be."""
        if isinstance(self.value, str) or isinstance(self.limit, str):
            return self.limit is None or self.value == self.limit
        return self.limit is None or self.value <= self.limit


def attention_checks(device: str) -> Iterator[Check]:
    """Values and gradients, for each back-end, dtype, number of heads and window."""
    for backend in BACKENDS[device]:
        for dtype in DTYPES[backend]:
            for case, (n_heads, n_key_heads, window) in CASES.items():
                name = f"{backend}, {dtype}, {case}"
                try:
                    errors = attention_errors(backend, device, dtype, (n_heads, n_key_heads), window)
                except (UnsupportedModel, RuntimeError) as problem:
                    yield Check(name, f"failed: {one_line(problem)[:150]}", "to run")
                    continue
                yield Check(f"{name}: values", errors[0], TOLERANCE[dtype])
                yield Check(f"{name}: gradients", max(errors[1:]), TOLERANCE[dtype])


def attention_errors(backend: str, device: str, dtype: str, heads: tuple[int, int], window: int | None) -> list[float]:
    """Distances of the output and of the gradients of q, k, v from plain attention, as shares of its norms."""
    generator = torch.Generator().manual_seed(0)
    shapes = [(1, n, N_TOKENS, WIDTH) for n in (heads[0], heads[1], heads[1])]
    drawn = [torch.randn(shape, generator=generator).to(getattr(torch, dtype)) for shape in shapes]
    upstream = torch.randn((1, N_TOKENS, heads[0], WIDTH), generator=generator).to(getattr(torch, dtype))
    upstream[:, SEGMENTS[-1].stop :] = 0
    terms = Terms(WIDTH**-0.5, window)
    kinds = getattr(torch, dtype), torch.double
    ours, plain = ([t.to(device, kind, copy=True).requires_grad_() for t in drawn] for kind in kinds)
    out = ATTENTIONS[backend](SEGMENTS, N_TOKENS, torch.device(device))(ours[0], ours[1], ours[2], terms)
    wanted = plain_attention(plain[0], plain[1], plain[2], terms)
    gradients = torch.autograd.grad(out, ours, upstream.to(device))
    wanted_gradients = torch.autograd.grad(wanted, plain, upstream.to(device, torch.double))
    live = slice(0, SEGMENTS[-1].stop)
    pairs = [(out[:, live], wanted[:, live])]
    pairs += [(a[:, :, live], b[:, :, live]) for a, b in zip(gradients, wanted_gradients, strict=True)]
    return [distance(a, b) for a, b in pairs]


def plain_attention(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, terms: Terms) -> torch.Tensor:
    """Softmax over all that a token may read, with the whole table of who reads whom."""
    table, position = torch.zeros(N_TOKENS, N_TOKENS, dtype=torch.bool), torch.zeros(N_TOKENS, dtype=torch.long)
    for start, stop, prefix_start, prefix_stop in SEGMENTS:
        table[start:stop, prefix_start:prefix_stop] = True
        table[start:stop, start:stop] = torch.ones(stop - start, stop - start).tril().bool()
        position[start:stop] = torch.arange(stop - start) + prefix_stop - prefix_start
    if terms.window is not None:
        table &= (position[:, None] - position[None]) < terms.window
    table[SEGMENTS[-1].stop :, -1] = True  # padding, so that every row reads something
    groups = q.shape[1] // k.shape[1]
    k, v = (states.repeat_interleave(groups, dim=1) for states in (k, v))
    scores = (q @ k.transpose(2, 3) * terms.scale).masked_fill(~table.to(q.device), -math.inf)
    return (scores.softmax(-1) @ v).transpose(1, 2)


def head_checks(device: str) -> Iterator[Check]:
    """Log-probs and gradients of the tiled head against a log-softmax in fp64 of the same numbers."""
    for dtype, most in (("float32", 1e-4), ("bfloat16", 2e-3)):
        generator = torch.Generator().manual_seed(0)
        kind = getattr(torch, dtype)
        hidden = torch.randn((192, 128), generator=generator).to(device, kind).requires_grad_()
        weight = (0.2 * torch.randn((5000, 128), generator=generator)).to(device, kind).requires_grad_()
        targets = torch.randint(0, 5000, (192,), generator=generator).to(device)
        upstream = torch.randn(192, generator=generator).to(device)
        ours = token_scores(hidden, targets, OutputLayer(weight)).logps
        wide = [t.detach().double().requires_grad_() for t in (hidden, weight)]
        plain = (wide[0] @ wide[1].T).log_softmax(-1).gather(1, targets[:, None])[:, 0]
        yield Check(f"head, {dtype}: largest distance of a log-prob (nats)", _most(ours - plain), most)
        gradients = torch.autograd.grad(ours, (hidden, weight), upstream)
        wanted = torch.autograd.grad(plain, wide, upstream.double())
        errors = [distance(a, b) for a, b in zip(gradients, wanted, strict=True)]
        yield Check(f"head, {dtype}: gradients", max(errors), TOLERANCE[dtype])


def distance(one: torch.Tensor, other: torch.Tensor) -> float:
    """As a share of the other's norm."""
    one, other = one.detach().double(), other.detach().double()
    return float((one - other).norm() / other.norm())


def _most(difference: torch.Tensor) -> float:
    return float(difference.detach().abs().max())
