"""TRL's DPOTrainer, measured on random weights and tokens: its pre-computation and its training."""

import os
import tempfile
import time
from collections.abc import Sequence
from importlib import import_module
from typing import Any

import pipeline  # noqa: F401 - finds our packages
from data.schema import TokenPair
from gpu_measure import measured, now, useful_work
from gpu_models import SHAPES, random_model
from gpu_plan import Cell
from trl_side import StepClock

WARM_UP = 2  # batches


def trl_scoring(cell: Cell, pairs: Sequence[TokenPair]) -> dict[str, Any]:
    """The pre-computation of reference log-probs."""
    report: dict[str, Any] = {}
    size = cell.number("bs") or 8
    if "sorted" in cell.parts():
        pairs = sorted(pairs, key=_length, reverse=True)
    trainer = trl_trainer(cell, pairs)
    report["ready_at"] = now()
    trainer._precompute_ref_logps(token_rows(pairs[:1]), "train", 1)
    report["first_at"] = now()
    trainer._precompute_ref_logps(token_rows(pairs[: WARM_UP * size]), "train", size)
    dataset = token_rows(pairs)
    with measured(report, cell.dtype):
        scored = trainer._precompute_ref_logps(dataset, "train", size)
    total = sum(scored["ref_chosen_logps"]) + sum(scored["ref_rejected_logps"])
    report["mean_logp"] = total / sum(len(pair.chosen.ids) + len(pair.rejected.ids) for pair in pairs)
    return report | useful_work(trainer.model, "scoring", [pairs]) | {"configuration": configuration(trainer)}


def trl_training(cell: Cell, pairs: Sequence[TokenPair]) -> dict[str, Any]:
    """One epoch behind a step on its longest pairs; log-probs that are stored are zeros."""
    report: dict[str, Any] = {}
    trainer = trl_trainer(cell, pairs)
    longest = sorted(range(len(pairs)), key=lambda row: -_length(pairs[row]))[: cell.pairs_per_step]
    clock = StepClock(trainer, longest)
    trainer.add_callback(clock)
    report["ready_at"] = now()
    with measured(report, cell.dtype):
        trainer.train()
        report["seconds"] = now() - clock.started
    report["first_at"] = clock.started
    steps = [pairs[at : at + cell.pairs_per_step] for at in range(0, len(pairs), cell.pairs_per_step)]
    return report | useful_work(trainer.model, "training", steps) | {"configuration": configuration(trainer)}


def trl_trainer(cell: Cell, pairs: Sequence[TokenPair]) -> Any:
    """A DPOTrainer of the contender's settings on rows that are tokens already."""
    trl: Any = import_module("trl")  # only where the extra `bench` is installed
    module: Any = import_module("trl.trainer.dpo_trainer")
    # Names the file that keeps log-probs: of random weights nothing may be found again, and nobody waits for a hash.
    module.hash_module = lambda _: f"{os.getpid()} {time.time_ns()}"

    class TokensTrainer(trl.DPOTrainer):  # type: ignore[misc]
        def _prepare_dataset(self, dataset: Any, *_: Any) -> Any:
            return dataset

    in_memory = "memory" in cell.parts()
    stored = cell.task == "training" and not in_memory
    dtype = "bfloat16" if "bf16weights" in cell.parts() else "float32"
    model, reference = (
        random_model(SHAPES[cell.model], dtype, cell.device, seed) if seed == 0 or in_memory else None
        for seed in (0, 1)
    )
    trainer = TokensTrainer(
        model,
        reference,
        args=trl.DPOConfig(**settings(cell)),
        train_dataset=token_rows(pairs[:1]),
        processing_class=tokenizer(),
    )
    trainer.train_dataset = token_rows(pairs, stored=stored)
    return trainer


def settings(cell: Cell) -> dict[str, Any]:
    """Arguments of DPOConfig that are not its defaults."""
    parts = cell.parts()
    size = cell.number("bs") or 8
    best = {
        "gradient_checkpointing": False,
        "train_sampling_strategy": "group_by_length",
        "remove_unused_columns": False,  # its own choice drops the lengths before the sampler sees them
    }
    return {
        "output_dir": tempfile.gettempdir(),  # nothing is saved
        "use_cpu": cell.device == "cpu",
        "bf16": cell.dtype == "bfloat16",
        "report_to": "none",
        "save_strategy": "no",
        "disable_tqdm": True,
        "precompute_ref_log_probs": "memory" not in parts,
        "max_length": cell.cap,
        "num_train_epochs": 1,
        "per_device_train_batch_size": min(size, cell.pairs_per_step),
        "gradient_accumulation_steps": max(1, cell.pairs_per_step // size),
        **({"optim": "adamw_bnb_8bit"} if "8bit" in parts else {}),
        **(best if "best" in parts else {}),
    }


def token_rows(pairs: Sequence[TokenPair], *, stored: bool = False) -> Any:
    """As TRL has them after its tokenisation, with the length of the longer side."""
    from datasets import Dataset

    rows = [
        {
            "prompt_ids": pair.chosen.prompt_ids.tolist(),
            "chosen_ids": pair.chosen.ids.tolist(),
            "rejected_ids": pair.rejected.ids.tolist(),
            "length": _length(pair),
            **({"ref_chosen_logps": 0.0, "ref_rejected_logps": 0.0} if stored else {}),
        }
        for pair in pairs
    ]
    return Dataset.from_list(rows)


def tokenizer() -> Any:
    """The least that a trainer asks for: a token to pad with."""
    from tokenizers import Tokenizer, models
    from transformers import PreTrainedTokenizerFast

    words = Tokenizer(models.WordLevel({"<pad>": 0, "<start>": 1, "<end>": 2}, unk_token="<pad>"))
    fast: Any = PreTrainedTokenizerFast
    return fast(tokenizer_object=words, pad_token="<pad>", eos_token="<end>")


def configuration(trainer: Any) -> dict[str, Any]:
    """How it turned out to be set."""
    names = ["bf16", "gradient_checkpointing", "train_sampling_strategy", "optim", "precompute_ref_log_probs"]
    names += ["per_device_train_batch_size", "gradient_accumulation_steps"]
    settings = {name: str(getattr(trainer.args, name)) for name in names}
    return settings | {
        "weights": str(trainer.model.dtype),
        "attention": str(trainer.model.config._attn_implementation),
    }


def _length(pair: TokenPair) -> int:
    return max(len(pair.chosen), len(pair.rejected))
