"""One measurement of against_trl.py, in a process of its own: `python benchmarks/workloads.py SPEC`, SPEC being JSON.

The last line on standard output is a JSON object: seconds, useful work, peak memory, the matrix-product rates of this
machine right before and right after, and how it was configured. Loading, tokenisation, start-up and a small warm-up
come before the timed part.
"""

import json
import platform
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module
from importlib.metadata import version
from itertools import combinations, count, islice
from pathlib import Path
from random import Random
from typing import Any, NamedTuple

import torch
from torch.nn.functional import linear
from transformers import TrainerCallback

import pipeline  # noqa: F401 - finds our packages
from data.canonical import BadRow, canonical_pair
from data.schema import PreferencePair, SourceRow, TokenPair, unique_responses
from data.sources import Source, read_rows
from data.tokenization import PairTokenizer, end_ids, load_tokenizer
from pipeline.control import ProcessControl
from stages.reference_rows import ReferenceLogps
from stages.scoring.config import ScoringConfig
from stages.scoring.model import load_model
from stages.scoring.scorer import Scorer
from stages.training.config import TrainConfig
from stages.training.loop import Trainer
from stages.training.memory import peak_memory_bytes
from stages.training.order import StepOrder, steps_per_epoch

MAX_LENGTH = 1024
TRAIN = TrainConfig(learning_rate=1e-6, pairs_per_step=16, epochs=1)
WARM_UP = 2  # pairs
RATE_SECONDS = 0.5
CUBE = 2048
WORDS = """time people way water day man thing woman life child world school state family student group country problem
hand part place case week company system program question work government number night point home room mother area"""


@dataclass(frozen=True)
class Spec:
    """What to measure; `trl` holds arguments of DPOConfig, None where the contender is ours."""

    model: str
    file: str | None
    """Of the rows; None for the synthetic ones."""
    task: str
    dtype: str
    pairs: int
    pack_tokens: int | None = None
    trl: dict[str, Any] | None = None
    sort: bool = False
    """Hand TRL the rows by length: its pre-computation keeps their order."""


class Pairs(NamedTuple):
    """The same pairs as text and in tokens."""

    texts: tuple[PreferencePair, ...]
    tokens: tuple[TokenPair, ...]


def main() -> None:
    """Measure and print."""
    spec = Spec(**json.loads(sys.argv[1]))
    pairs = load_pairs(spec)
    if spec.trl is not None:
        report = trl_training(spec, pairs) if spec.task == "training" else trl_scoring(spec, pairs)
    else:
        report = our_training(spec, pairs) if spec.task == "training" else our_scoring(spec, pairs)
    print(json.dumps(report | {"facts": facts(spec)}))


def load_pairs(spec: Spec) -> Pairs:
    """The first usable rows."""
    folder = Path(spec.model)
    tokenizer = load_tokenizer(folder)
    generation = folder / "generation_config.json"
    eos = json.loads(generation.read_bytes()).get("eos_token_id") if generation.is_file() else None
    rows = shared_rows() if spec.file is None else read_rows(Source(path=spec.file))
    outcomes = PairTokenizer(tokenizer, end_ids(tokenizer, eos), MAX_LENGTH).tokenize(canonical_pairs(rows))
    usable = ((text, tokens) for text, tokens in outcomes if isinstance(tokens, TokenPair))
    first = list(islice(usable, spec.pairs))
    if len(first) < spec.pairs:
        raise SystemExit(f"Only {len(first)} of the {spec.pairs} pairs asked for are there; lower --pairs.")
    return Pairs(*zip(*first, strict=True))


def canonical_pairs(rows: Iterable[SourceRow]) -> Iterator[PreferencePair]:
    """The rows that have a normal form."""
    for row in rows:
        try:
            yield canonical_pair(row)
        except BadRow:
            continue


def shared_rows() -> Iterator[SourceRow]:
    """Four answers a prompt, every two of them a pair; prompts of about 60 tokens, answers of 40 to 120."""
    random, words = Random(0), WORDS.split()
    for number in count():
        prompt = f"{' '.join(random.choices(words, k=28))}?"  # the template adds about 30 tokens
        answers = [" ".join(random.choices(words, k=random.randint(38, 118))) for _ in range(4)]
        for chosen, rejected in combinations(answers, 2):
            content = {"prompt": prompt, "chosen": chosen, "rejected": rejected}
            yield SourceRow(number, f"synthetic:{number}", content)


def our_scoring(spec: Spec, pairs: Pairs) -> dict[str, Any]:
    """Every unique response once, as `precompute-ref` does it."""
    scorer = our_scorer(spec)
    with torch.inference_mode():
        score(scorer, pairs.tokens[:WARM_UP])
        with measured(scorer.model, spec, pairs) as report:
            sums = score(scorer, pairs.tokens)
    logps = [sums[side.key] for pair in pairs.tokens for side in (pair.chosen, pair.rejected)]
    return report | our_account(scorer, pairs) | {"mean_logps": sum(logps) / len(logps)}


def score(scorer: Scorer, pairs: Sequence[TokenPair]) -> dict[str, float]:
    """Sums by response."""
    sums: dict[str, float] = {}
    for batch in scorer.plan([[response] for response in unique_responses(pairs)]):
        keys = [response.key for response in batch.responses]
        sums |= zip(keys, scorer.logps(batch.responses).tolist(), strict=True)
    return sums


def our_training(spec: Spec, pairs: Pairs) -> dict[str, Any]:
    """One epoch of the real loop; what the reference says changes nothing about the time."""
    scorer = our_scorer(spec)
    reference = {pair.key: ReferenceLogps(0.0, 0.0) for pair in pairs.tokens}
    with tempfile.TemporaryDirectory() as folder:
        control = ProcessControl(quiet=True)
        trainer = Trainer(pairs.tokens, reference, scorer, TRAIN, Path(folder), "benchmark", control)
        few = scorer.plan([(pair.chosen, pair.rejected) for pair in pairs.tokens[:WARM_UP]])[0]
        scorer.logps(few.responses).mean().backward()  # type: ignore[no-untyped-call]
        trainer._optimizer.step(TRAIN.learning_rate, TRAIN.max_grad_norm)
        with measured(scorer.model, spec, pairs) as report:
            trainer.run()
            report["seconds"] = trainer.progress.seconds
    return report | our_account(scorer, pairs)


def our_scorer(spec: Spec) -> Scorer:
    """The model behind our scorer."""
    return Scorer(load_model(Path(spec.model), spec.dtype), spec.pack_tokens or ScoringConfig().pack_tokens)


def our_account(scorer: Scorer, pairs: Pairs) -> dict[str, Any]:
    """How it was configured, and the scored tokens of each side of each pair."""
    scored = sum(side.n_scored for pair in pairs.tokens for side in (pair.chosen, pair.rejected))
    return {"configuration": scorer.stack(), "scored_tokens": scored}


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
    clock = StepClock(trainer)
    trainer.add_callback(clock)
    with measured(trainer.model, spec, pairs) as report:
        trainer.train()
        report["seconds"] = clock.stopped - clock.started
    return report | trl_account(spec, trainer, dataset)


class StepClock(TrainerCallback):
    """Makes a small step before the first one, and times all others."""

    def __init__(self, trainer: Any) -> None:
        self._trainer = trainer
        self.started = self.stopped = 0.0

    def on_train_begin(self, *_: Any, **training: Any) -> None:
        """Warm up, then start."""
        few = self._trainer.data_collator([self._trainer.train_dataset[i] for i in range(WARM_UP)])
        self._trainer.current_gradient_accumulation_steps = 1
        self._trainer.training_step(training["model"], few)
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


@contextmanager
def measured(model: Any, spec: Spec, pairs: Pairs) -> Iterator[dict[str, Any]]:
    """A report of what happens inside: its seconds (unless it sets them itself), its work, memory and rates."""
    report = useful_work(model, spec, pairs.tokens)
    report["rates_before"] = matrix_rates(model, spec.dtype)
    started = time.perf_counter()
    yield report
    report.setdefault("seconds", time.perf_counter() - started)
    report["peak_bytes"] = peak_memory_bytes()
    report["rates_after"] = matrix_rates(model, spec.dtype)


def useful_work(model: Any, spec: Spec, pairs: Sequence[TokenPair]) -> dict[str, Any]:
    """Tokens and FLOPs with each prompt and each response once (in training: once a step of ours)."""
    groups = [pairs]
    if spec.task == "training":
        order = StepOrder(pairs, TRAIN.seed, TRAIN.pairs_per_step)
        groups = [order.step(step) for step in range(steps_per_epoch(len(pairs), TRAIN.pairs_per_step))]
    tokens = scored = 0
    for group in groups:
        responses = unique_responses(group)
        prompts = {response.prompt_ids.tobytes(): len(response.prompt_ids) for response in responses}
        tokens += sum(prompts.values()) + sum(len(response.ids) for response in responses)
        scored += sum(response.n_scored for response in responses)
    embeddings, head = model.get_input_embeddings().weight, model.get_output_embeddings().weight
    body = sum(p.numel() for p in model.parameters() if p is not embeddings and p is not head)
    flops = 2 * body * tokens + 2 * head.numel() * scored
    flops *= 3 if spec.task == "training" else 1
    return {"pairs": len(pairs), "useful_tokens": tokens, "useful_flops": flops}


def matrix_rates(model: Any, dtype: str) -> dict[str, float]:
    """FLOP/s of fp32 and of `dtype`: the better of a cube and the model's MLP."""
    config = model.config.get_text_config()
    shapes = [(CUBE, CUBE, CUBE), (CUBE, config.intermediate_size, config.hidden_size)]
    return {name: max(matrix_rate(shape, name) for shape in shapes) for name in dict.fromkeys(["float32", dtype])}


def matrix_rate(shape: tuple[int, int, int], dtype: str) -> float:
    """FLOP/s of x (M, K) times w (N, K) transposed."""
    m, n, k = shape
    x, w = torch.ones(m, k, dtype=getattr(torch, dtype)), torch.ones(n, k, dtype=getattr(torch, dtype))
    linear(x[:64], w)
    calls, started = 0, time.perf_counter()
    while (seconds := time.perf_counter() - started) < RATE_SECONDS:
        linear(x, w)
        calls += 1
    return 2 * m * n * k * calls / seconds


def facts(spec: Spec) -> dict[str, Any]:
    """Versions and machine, as this process sees them."""
    packages = ["torch", "transformers"] if spec.trl is None else ["torch", "transformers", "trl", "accelerate"]
    versions = {name: version(name) for name in packages} | {"python": platform.python_version()}
    return versions | {"capability": torch.backends.cpu.get_cpu_capability(), "threads": torch.get_num_threads()}


if __name__ == "__main__":
    main()
