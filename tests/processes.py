"""The gradient of a step, by as many processes as torchrun starts: `torchrun --no-python gradients FILE` writes it."""

import sys
from typing import Any

import torch
from safetensors.torch import save_file
from torch.distributed.tensor import DTensor

import pipeline  # noqa: F401 - puts our own `stages` and `data` first
from pipeline.workers import shard_of
from stages.objectives.config import ObjectiveConfig
from stages.pair_losses import PairLosses
from stages.processes import Processes, working_together
from stages.scoring.scorer import Scorer
from stages.training.lora import LoraSettings
from stages.training.optimizer import MasterAdamW
from stages.training.policy import add_lora
from stages.training.sharding import shard
from stages.training.step import StepMaker, StepResult
from tests.stages.training.test_step_losses import make_pairs, nothing, reference_of
from tests.tiny import build_model

CASES = {
    "sigmoid": ({}, 10, 120),
    "one long pack": ({}, 10, 4000),
    "fewer pairs than processes": ({}, 2, 120),
    "aot": ({"objective": "aot"}, 10, 120),
    "aot and wpo over parts of responses": ({"objective": "aot", "ld_alpha": 0.3, "use_weighting": True}, 10, 120),
    "lora": ({}, 10, 120),
    "bfloat16": ({}, 10, 120),
}
"""Objective, pairs of the step, tokens of a pack."""


def build(case: str) -> Any:
    """The case's model."""
    model = build_model(dtype=torch.bfloat16 if case == "bfloat16" else torch.float32)
    if case == "lora":
        add_lora(model, LoraSettings(r=4), seed=0)
        for name, parameter in model.named_parameters():
            if "lora_B" in name:  # 0 at first, and then A has no gradient
                torch.nn.init.normal_(parameter, std=0.1, generator=torch.Generator().manual_seed(len(name)))
    return model


class NoBar:
    def advance(self, pairs: float, tokens: int) -> None: ...

    def show(self, figures: object) -> None: ...


def step_of(case: str, processes: Processes, *, sharded: bool) -> tuple[StepResult, dict[str, torch.Tensor]]:
    """What a step says, and its gradient, whole."""
    objective, n_pairs, pack_tokens = CASES[case]
    pairs, model = make_pairs(n_pairs), build(case)
    scorer = Scorer(model, pack_tokens)
    if sharded:
        shard(scorer, processes)
    optimizer, reference = MasterAdamW(model, 0.0), reference_of(pairs)
    losses = PairLosses(ObjectiveConfig(beta=0.05, **objective), reference)
    result = StepMaker(scorer, losses, reference, processes).gradients(pairs, nothing, NoBar())
    if not sharded:
        processes.add_up_gradients(list(optimizer.masters.values()))
    gradients = {name: m.grad for name, m in optimizer.masters.items() if m.grad is not None}
    return result, {n: g.full_tensor() if isinstance(g, DTensor) else g for n, g in gradients.items()}


def main() -> None:
    found = {}
    with working_together(shard_of(None), 60, "test") as processes:
        for sharded in (False, True):
            for case in CASES:
                result, gradients = step_of(case, processes, sharded=sharded)
                found |= {f"{sharded}/{case}/{name}": gradient for name, gradient in gradients.items()}
                found[f"{sharded}/{case}/losses"] = torch.tensor(result.losses, dtype=torch.float64)
        if processes.is_first:
            save_file(found, sys.argv[1])
