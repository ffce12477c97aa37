"""Section `train`, and which of its fields make a run what it is."""

import difflib
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, model_validator

from stages.metrics.names import METRIC_NAMES, RANKING_NAMES
from stages.objectives.config import ObjectiveConfig
from stages.training.lora import LoraSettings
from stages.training.schedule import ScheduleName
from stages.training.trackers import TrackerName

OptimizerName = Literal["adamw", "adamw_8bit"]
ReportTo = Annotated[
    list[TrackerName],
    BeforeValidator(
        lambda value: [value] if isinstance(value, str) else value,
        json_schema_input_type=TrackerName | list[TrackerName],
    ),
]

PASSED = "passed"
"""As `train.model`: the policy of the newest run that passed."""

_NO_PART_OF_A_RUN = {
    "checkpoint_every", "keep", "gradient_checkpointing", "fsdp", "ddp_timeout", "deterministic", "report_to",
}  # fmt: skip
_ADDED = ("optim", "lora", "eval_every", "metric_for_best_model", "early_stopping_patience")


class TrainConfig(ObjectiveConfig):
    """Section `train`: the objective and how it is optimised. Names are TRL's where TRL has one."""

    model: str | None = None
    """Hub id or folder that the policy starts from; `passed`: the newest that passed (./passed is a folder); none: the
    reference."""
    lora: LoraSettings | None = None
    """Train an adapter instead of the model's own weights (docs/adapters.md); none: train all of it."""
    learning_rate: float = Field(default=1e-6, gt=0.0)
    """Peak learning rate of AdamW."""
    optim: OptimizerName = "adamw"
    """What updates the fp32 masters: `adamw`, or `adamw_8bit`, whose moments take 2 bytes a parameter instead of 8."""
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
    gradient_checkpointing: bool = False
    """Keep only the input of each layer for the backward pass and compute the rest again: less memory, more time."""
    checkpoint_every: int = Field(default=200, ge=1)
    """Optimiser steps between checkpoints (12 bytes a parameter each, with adamw_8bit 6)."""
    keep: int = Field(default=1, ge=1)
    """Newest checkpoints that are kept, besides that of the best step; older ones go when a new one is durable."""
    eval_every: int = Field(default=0, ge=0)
    """Optimiser steps between evaluations on the dev pairs (data.dev_fraction), which also follow the last; 0: none."""
    metric_for_best_model: str | None = None
    """Metric of the dev pairs (as eval reports it) whose best step becomes the policy; none: the last step does."""
    early_stopping_patience: int = Field(default=0, ge=0)
    """Evaluations in a row without a better metric_for_best_model that end training; 0: it goes on to the last step."""
    fsdp: bool = False
    """Shard weights, gradients and optimiser states over torchrun's processes (FSDP2); false: each has all (DDP)."""
    ddp_timeout: float = Field(default=600.0, gt=0.0)
    """Seconds after which a process that does not answer ends the others."""
    deterministic: bool = False
    """Refuse operations whose result varies from run to run on the same GPU; slower. On a CPU none does."""
    seed: int = Field(default=0, ge=0)
    """Decides the order of pairs, and the first values of an adapter."""
    report_to: ReportTo = Field(default_factory=list)
    """Trackers that get the figures too, one or a list: `trackio`, `wandb`, `tensorboard`; none: only metrics.jsonl."""

    @model_validator(mode="after")
    def _known_metric(self) -> "TrainConfig":
        name, known = self.metric_for_best_model, METRIC_NAMES if self.reads_reference else RANKING_NAMES
        if name is not None and name not in known:
            of = "" if self.reads_reference else f" of {self.objective_name()}, which reads no reference"
            close = difflib.get_close_matches(name, known, n=1)
            hint = f"did you mean {close[0]}?" if close else f"known: {', '.join(known)}"
            raise ValueError(f"train.metric_for_best_model: no such metric{of}: {name}; {hint}")
        return self

    @model_validator(mode="after")
    def _no_choice_without_evaluations(self) -> "TrainConfig":
        if self.metric_for_best_model is not None and self.eval_every == 0:
            raise ValueError("train.metric_for_best_model needs evaluations to choose by: set train.eval_every")
        if self.early_stopping_patience and self.metric_for_best_model is None:
            raise ValueError("train.early_stopping_patience needs train.metric_for_best_model, to know what is better")
        return self

    @model_validator(mode="after")
    def _no_shards_of_8_bits(self) -> "TrainConfig":
        if self.fsdp and self.optim == "adamw_8bit":
            raise ValueError(
                "train.optim: adamw_8bit updates whole weights, train.fsdp shards them: set train.optim: adamw, whose "
                "moments are sharded, too, or train.fsdp: false"
            )
        return self

    def identity(self) -> dict[str, Any]:
        """The fields that decide what comes out: another value is another run."""
        fields = self.model_dump(mode="json", exclude={"model", *_NO_PART_OF_A_RUN})
        if self.metric_for_best_model is None:
            del fields["eval_every"]  # looking changes nothing
        # Those that came later count where they are used: older runs keep their names.
        added = {name: type(self).model_fields[name].get_default() for name in _ADDED}
        return {name: value for name, value in fields.items() if name not in added or value != added[name]}
