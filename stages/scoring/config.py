"""Section `scoring`, and the numerics that all jobs share."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from pydantic import Field

from data.settings import Settings

Backend = Literal["auto", "segments", "varlen", "flex", "rows"]
Attention = Literal["packs", "rows"]
"""What of the back-end belongs to a reference's identity."""

Quantization = Literal["nf4", "int8"]

KEPT_LOGITS = 2**26
"""Logits of a pass that are kept for the backward pass (256 MiB in fp32); of a larger one they are computed again."""


# The head takes so many rows and words of the vocabulary at a time. On a CPU the fastest of the sizes tried
# (docs/experiments.md; tiles of few rows are slow). On a GPU a tile is a dozen calls, and has to be worth them.
TILE_ROWS = 2048
TILE_TOKENS = 1024
GPU_TILE_TOKENS = 16_384


class ScoringConfig(Settings):
    """Section `scoring`: how sequences are put through a model."""

    backend: Backend = "auto"
    """How attention is computed: `auto` takes the fastest that gives this model right values, and says which."""
    pack_tokens: int = Field(default=2048, ge=1)
    """Most tokens in one forward pass (of packs: before the last few of padding); a longer pair is scored alone."""
    compile: bool = False
    """Compile layers and head (torch.compile), bar attention: fewer and larger kernels, and a slower start.
    Scores move in their last bits, so the step-0 check allows for that; values that are stored stay valid."""


@dataclass(frozen=True)
class Numerics:
    """One policy for reference and policy, scoring and training: compute dtype, back-end, size of a pass, compilation.

    `attention` is how the stored reference was scored; None before anything is stored.
    """

    dtype: str
    backend: Backend
    pack_tokens: int
    attention: Attention | None = None
    quantization: Quantization | None = None
    compile: bool = False


def same_stack(one: Mapping[str, str], other: Mapping[str, str]) -> bool:
    """Whether two stacks (`Scorer.stack`) should score alike; on a CPU the length of packs changes no value."""
    aside = {"pack_tokens": ""} if one.get("device", "").startswith("cpu") else {}
    return {**one, **aside} == {**other, **aside}
