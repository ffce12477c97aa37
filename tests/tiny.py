"""A tiny tokenizer, a tiny random Llama and small data sets, all built in this process: no network, no downloads."""

import json
import os
import subprocess
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import polars as pl

ROOT = Path(__file__).resolve().parent.parent

CHATML = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
_LETTERS = "The quick brown fox jumps over the lazy dog, and asks: why? 0123456789 times!\nNobody answers him today."


def build_tokenizer() -> Any:
    """Byte-level BPE over two sentences, with a ChatML template; the pad token is the end token, as SmolLM2's."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    specials = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=320, special_tokens=specials, initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator([_LETTERS], trainer)
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token="<|im_start|>", eos_token="<|im_end|>", pad_token="<|im_end|>"
    )
    fast.chat_template = CHATML
    return fast


def build_model(seed: int = 0, vocab_size: int = 320, **changes: Any) -> Any:
    """A random Llama of two layers, in fp32."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    settings: dict[str, Any] = {
        "vocab_size": vocab_size,
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 512,
        "tie_word_embeddings": True,
        "initializer_range": 0.2,
        "eos_token_id": 2,
        "bos_token_id": 1,
        "pad_token_id": 2,
    }
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return LlamaForCausalLM(LlamaConfig(**settings | changes)).eval()


def save_model(folder: Path, seed: int = 0, **changes: Any) -> Path:
    """A model folder as `save_pretrained` leaves it."""
    build_model(seed, **changes).save_pretrained(folder)
    build_tokenizer().save_pretrained(folder)
    return folder


def save_adapter(folder: Path, base: Path, seed: int = 1, **settings: Any) -> Path:
    """An adapter to the model in `base` as peft leaves it, with random weights, so that it changes something."""
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    with torch.random.fork_rng(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # peft asks transformers under an old name, and likes no adapted output layer
        torch.manual_seed(seed)
        changes = {"r": 4, "target_modules": "all-linear", "init_lora_weights": False} | settings
        adapted = get_peft_model(AutoModelForCausalLM.from_pretrained(base), LoraConfig(**changes))
        adapted.save_pretrained(folder)
    return folder


def example_rows(n: int, start: int = 0) -> list[dict[str, str]]:
    """Rows with distinct prompts and short, distinct responses of many lengths."""
    return [
        {
            "prompt": f"Question {i}: how many times does the fox jump?",
            "chosen": f"It jumps {i % 7} times" + " over the dog" * (i % 4) + ".",
            "rejected": f"Nobody knows, {i % 5}" + ", why?" * (i % 3 + 1),
        }
        for i in range(start, start + n)
    ]


def write_jsonl(path: Path, rows: list[Any]) -> Path:
    """One JSON object a line; a row given as text is written as it is."""
    path.write_text("".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows))
    return path


class Work:
    """A folder with a model, data and a configuration, and the command run in it as users run it."""

    def __init__(self, folder: Path, model: Path) -> None:
        self.folder = folder
        self.model = model
        self.data = write_jsonl(folder / "prefs.jsonl", example_rows(40))
        self.config = folder / "pipeline.yaml"
        self.config.write_text(
            f"workdir: {folder / 'work'}\n"
            f"reference:\n  model: {model}\n  dtype: float32\n"
            f"data:\n  train: {self.data}\n  eval_fraction: 0.25\n  max_length: 128\n"
            "store:\n  unit_pairs: 8\n"
            "scoring:\n  pack_tokens: 512\n"
            "train:\n  learning_rate: 1.0e-3\n  pairs_per_step: 4\n  epochs: 2\n"
        )

    @property
    def root(self) -> Path:
        return self.folder / "work"

    def run(self, job: str, *options: str, expect: int | None = 0, **more: Any) -> dict[str, Any]:
        """Run a job in this process; returns its `--json` document. `expect` is its exit code (None: any)."""
        from pipeline.chain import Options, run_job_document

        assignments = [option for option in options if "=" in option]
        settings = Options(self.config, assignments, True, "--dry-run" in options, True, 0, **more)
        with unchanged_process():
            document = run_job_document(job, settings)
        assert expect is None or document["exit_code"] == expect, document
        return document

    def stored_rows(self, reference_id: str = "*") -> pl.DataFrame:
        """The rows of all parts as the files have them, in the order of pair keys."""
        parts = sorted((self.root / "store").glob(f"{reference_id}/parts/*.parquet"))
        frames = [pl.read_parquet(part) for part in parts]  # a torn one would not be read
        empty = pl.DataFrame({"pair_key": []}, schema={"pair_key": pl.String})
        return pl.concat(frames).sort("pair_key") if frames else empty

    def prepared(self) -> Any:
        """The prepared pairs, as the jobs load them."""
        from data.pairs.folder import PairsFolder
        from pipeline.config import load_config

        folder = PairsFolder(self.root / "pairs")
        return folder.load(folder.origin(), load_config(self.config).data)

    def command(self, *arguments: str, fresh: bool = False, **keywords: Any) -> subprocess.CompletedProcess[str]:
        """Run `pipeline` in a process; in a fresh one `python -m pipeline`, or other code, given as `module`."""
        from tests.jobs import Command

        if not fresh and not keywords:
            return Command(arguments, self.folder).finish()
        code = keywords.pop("module", None)
        return subprocess.run(
            [sys.executable, *(["-m", "pipeline"] if code is None else ["-c", code]), *arguments],
            cwd=keywords.pop("cwd", self.folder),
            env=os.environ | {"PYTHONPATH": str(ROOT)} | keywords.pop("env", {}),
            capture_output=True,
            text=True,
            timeout=120,
            **keywords,
        )


@contextmanager
def unchanged_process() -> Iterator[None]:
    """Signal handlers and logging as they were, after a job that ran in this process."""
    import logging
    import signal

    handlers = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    root = logging.getLogger()
    loggers = [logging.getLogger(package) for package in ("pipeline", "stages", "data")]
    before, levels = (root.handlers[:], root.level), [logger.level for logger in loggers]
    try:
        yield
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
        root.handlers[:], level = before
        root.setLevel(level)
        for logger, own in zip(loggers, levels, strict=True):
            logger.setLevel(own)
