"""Section `train`, and which of its fields make a run what it is."""

from typing import Any

from pydantic import Field

from stages.objectives.config import ObjectiveConfig
from stages.training.lora import LoraSettings
from stages.training.schedule import ScheduleName


class TrainConfig(ObjectiveConfig):
    """Section `train`: the objective and how it is optimised. Names are TRL's where TRL has one."""

    model: str | None = None
    """Hub id or folder that the policy starts from; none: the reference."""
    lora: LoraSettings | None = None
    """Train an adapter instead of the model's own weights (docs/adapters.md); none: train all of it."""
    learning_rate: float = Field(default=1e-6, gt=0.0)
    """Peak learning rate of AdamW."""
    lr_scheduler_type: ScheduleName = "linear"
    """How the rate falls after warm-up: `linear` or `cosine` to 0, or `constant`."""
    warmup_steps: float = Field(default=0.0, ge=0.0)
    """Optimiser steps of linear warm-up; below 1 a share of all steps; 0: none."""
    weight_decay: float = Field(default=0.0, ge=0.0)
    """Decoupled weight decay of matrices (norms and biases have none); 0: none."""
    max_grad_norm: float = Field(default=1.0, ge=0.0)
    """Gradient norm above which a step's gradient is scaled down; 0: never."""
    epochs: int = Field(default=1, ge=1)
    """Visits of each training pair."""
    pairs_per_step: int = Field(default=16, ge=1)
    """Pairs of one optimiser step, whatever the memory: they go through the model in batches of scoring.pack_tokens."""
    checkpoint_every: int = Field(default=200, ge=1)
    """Optimiser steps between checkpoints (12 bytes a parameter each; only the newest is kept)."""
    seed: int = Field(default=0, ge=0)
    """Decides the order of pairs, and the first values of an adapter."""

    def identity(self) -> dict[str, Any]:
        """The fields that decide what comes out: another value is another run."""
        fields = self.model_dump(mode="json", exclude={"checkpoint_every", "model"})
        if fields["lora"] is None:
            del fields["lora"]  # as before there was a choice: older runs keep their names
        return fields
