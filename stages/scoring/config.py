"""Section `scoring`, and the numerics that all jobs share."""

from dataclasses import dataclass

from pydantic import Field

from data.settings import Settings


class ScoringConfig(Settings):
    """Section `scoring`: how sequences are put through a model."""

    pack_tokens: int = Field(default=4096, ge=1)
    """Most tokens, padding included, in one forward pass; a longer pair is still scored, alone."""


@dataclass(frozen=True)
class Numerics:
    """One policy for reference and policy, scoring and training: the compute dtype and the size of a pass."""

    dtype: str
    pack_tokens: int
