"""TRL's DPOTrainer, measured: its pre-computation of reference log-probs, and its training on stored ones."""

import tempfile
import time
from collections.abc import Sequence
from importlib import import_module
from typing import Any

from transformers import TrainerCallback

import pipeline  # noqa: F401 - finds our packages
from data.schema import PreferencePair
from measurement import MAX_LENGTH, TRAIN, WARM_UP, Pairs, Spec, longest_rows, measured


def trl_scoring(spec: Spec, pairs: Pairs) -> dict[str, Any]:
    """The pre-computation of reference log-probs; the trainer has done the same for a few rows when it is made."""
    trainer = trl_trainer(spec, pairs)
    dataset = trl_dataset(trainer, spec, pairs)
    size = trainer.args.precompute_ref_batch_size or trainer.args.per_device_train_batch_size
    with measured(trainer.model, spec, pairs) as report:
        scored = trainer._precompute_ref_logps(dataset, "train", size)
    logps = [*scored["ref_chosen_logps"], *scored["ref_rejected_logps"]]
    return report | trl_account(spec, trainer, dataset) | {"mean_logps": sum(logps) / len(logps)}


def trl_training(spec: Spec, pairs: Pairs) -> dict[str, Any]:
    """One epoch, from the first batch to the end of the last step."""
    trainer = trl_trainer(spec, pairs)
    dataset = trl_dataset(trainer, spec, pairs)
    nothing = [0.0] * len(dataset)
    trainer.train_dataset = dataset.add_column("ref_chosen_logps", nothing).add_column("ref_rejected_logps", nothing)
    clock = StepClock(trainer, longest_rows(pairs.tokens))
    trainer.add_callback(clock)
    with measured(trainer.model, spec, pairs) as report:
        trainer.train()
        report["seconds"] = clock.stopped - clock.started
    return report | trl_account(spec, trainer, dataset)


class StepClock(TrainerCallback):
    """Makes a step on some rows before the first one, and times all others."""

    def __init__(self, trainer: Any, rows: Sequence[int]) -> None:
        self._trainer, self._rows = trainer, rows
        self.started = self.stopped = 0.0

    def on_train_begin(self, *_: Any, **training: Any) -> None:
        """Warm up, then start."""
        size = self._trainer.args.per_device_train_batch_size
        self._trainer.current_gradient_accumulation_steps = self._trainer.args.gradient_accumulation_steps
        for start in range(0, len(self._rows), size):
            rows = [self._trainer.train_dataset[row] for row in self._rows[start : start + size]]
            self._trainer.training_step(training["model"], self._trainer.data_collator(rows))
        training["optimizer"].step()
        training["model"].zero_grad()
        self.started = time.perf_counter()

    def on_step_end(self, *_: Any, **training: Any) -> None:
        """Stop, until there is another step."""
        self.stopped = time.perf_counter()


def trl_trainer(spec: Spec, pairs: Pairs) -> Any:
    """A DPOTrainer; the few rows that it is made with are its warm-up."""
    trl: Any = import_module("trl")  # only where the extra `bench` is installed
    settings = spec.trl or {}
    size = settings.get("per_device_train_batch_size", trl.DPOConfig.per_device_train_batch_size)
    arguments = trl.DPOConfig(
        output_dir=tempfile.gettempdir(),  # nothing is saved
        use_cpu=True,
        report_to="none",
        save_strategy="no",
        disable_tqdm=True,
        precompute_ref_log_probs=True,
        max_length=MAX_LENGTH,
        learning_rate=TRAIN.learning_rate,
        num_train_epochs=TRAIN.epochs,
        gradient_accumulation_steps=TRAIN.pairs_per_step // size,
        **settings,
    )
    return trl.DPOTrainer(spec.model, args=arguments, train_dataset=conversations(pairs.texts[:WARM_UP]))


def trl_dataset(trainer: Any, spec: Spec, pairs: Pairs) -> Any:
    """All rows, tokenised by TRL, with the length of each pair's longer side."""
    lengths = [max(len(pair.chosen), len(pair.rejected)) for pair in pairs.tokens]
    dataset = conversations(pairs.texts).add_column("length", lengths)
    if spec.sort:
        dataset = dataset.sort("length", reverse=True)
    prepared = trainer._prepare_dataset(dataset, trainer.processing_class, trainer.args, "train")
    assert len(prepared) == len(dataset)
    return prepared


def conversations(pairs: Sequence[PreferencePair]) -> Any:
    """Rows of messages, so that TRL applies the chat template."""
    from datasets import Dataset  # 50 MiB that are not ours

    names = ("prompt", "chosen", "rejected")
    return Dataset.from_list([{name: [m._asdict() for m in getattr(pair, name)] for name in names} for pair in pairs])


def trl_account(spec: Spec, trainer: Any, dataset: Any) -> dict[str, Any]:
    """How it turned out to be configured, and the scored tokens of each side of each pair."""
    settings = ["bf16", "gradient_checkpointing", "train_sampling_strategy", "optim"]
    settings += ["precompute_ref_batch_size", "per_device_train_batch_size", "gradient_accumulation_steps"]
    configuration = {name: getattr(trainer.args, name) for name in settings}
    configuration |= {"weights": str(trainer.model.dtype), "attention": trainer.model.config._attn_implementation}
    configuration["rows_sorted"] = spec.sort
    scored = sum(
        min(MAX_LENGTH, len(row["prompt_ids"]) + len(row[side])) - len(row["prompt_ids"])
        for row in dataset
        for side in ("chosen_ids", "rejected_ids")
    )
    return {"configuration": configuration, "scored_tokens": scored}
