"""One policy trained here and one by TRL's DPOTrainer, from the same pairs in the same steps (needs the extra `bench`).

    python benchmarks/trl_parity.py --model FOLDER --data FILE --out RESULTS.parquet    trains both
    python benchmarks/trl_parity.py --out RESULTS.parquet                               prints the table

`--data`: the politeness rows of docs/benchmarks.md. The jobs score, train and export; TRL trains on the export, rows in
the order of our steps. Its token ids are compared with ours before its first step. Both in fp32, DPO with beta 0.1,
AdamW at 1e-5 with four steps of warm-up and linear decay, no weight decay, gradients clipped at 1.

TRL trains twice. As it comes, torch gives the padding token's embedding no gradient from the input, and SmolLM2 pads
with its end token, which stands in every prompt; ours trains it like any other, and so does TRL's other policy.
"""

import argparse
import math
import os
from collections.abc import Sequence
from importlib import import_module
from itertools import islice
from pathlib import Path
from typing import Any

import polars as pl

import pipeline  # noqa: F401 - finds our packages
from data.durable import write_bytes
from data.pairs.folder import PairsFolder
from data.parquet import parquet_bytes
from data.schema import TokenPair
from data.sources.source import Source, read_rows
from data.tokens.token_pairs import TokenPairs
from pipeline.chain import Options, run_job_document
from pipeline.config import load_config
from stages.training.order import epoch_order

STEPS, PAIRS_PER_STEP = 32, 4
TRAINING = {"beta": 0.1, "learning_rate": 1e-5, "lr_scheduler_type": "linear", "warmup_steps": 4, "max_grad_norm": 1.0}
"""Under names that both configurations have."""
MAX_LENGTH = 1024
FIGURES = ("loss", "grad_norm", "rewards/margins", "learning_rate")
PADDING = ("trained", "frozen")
"""What becomes of the padding token's embedding at TRL: trained like ours, or as it comes."""
QUIET = {"HF_HUB_OFFLINE": "1", "TQDM_DISABLE": "1", "CUDA_VISIBLE_DEVICES": ""}


def main() -> None:
    """Train what is asked for, and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--model", type=Path)
    parser.add_argument("--data", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--workdir", type=Path, default=Path("trl-parity-work"))
    arguments = parser.parse_args()
    if arguments.model is not None:
        os.environ |= QUIET
        arguments.workdir.mkdir(parents=True)  # of an earlier comparison nothing is taken over
        rows = first_rows(arguments.data, arguments.workdir / "pairs.jsonl", STEPS * PAIRS_PER_STEP)
        found = parity(arguments.model, rows, arguments.workdir)
        write_bytes(arguments.out, parquet_bytes(found.to_arrow()))
    print_table(pl.read_parquet(arguments.out))


def first_rows(data: Path, to: Path, n: int) -> Path:
    """A file of the first rows whose sides differ, each with a prompt of its own."""
    contents = (row.content for row in read_rows(Source(path=str(data))) if isinstance(row.content, dict))
    rows = {row["prompt"]: row for row in contents if row["chosen"] != row["rejected"]}
    pl.DataFrame(list(islice(rows.values(), n))).write_ndjson(to)
    return to


def parity(model: Path, rows: Path, workdir: Path, **changes: Any) -> pl.DataFrame:
    """Both curves, a row a step, and how far apart the policies end; `changes` are of TRAINING."""
    training = TRAINING | changes
    settings = {
        "workdir": workdir / "work",
        "reference.model": model,
        "reference.dtype": "float32",
        "data.train": rows,
        "data.eval_fraction": 0,
        "data.max_length": MAX_LENGTH,
        "train.pairs_per_step": PAIRS_PER_STEP,
    } | {f"train.{name}": value for name, value in training.items()}
    assignments = [f"{name}={value}" for name, value in settings.items()]
    run_job("precompute-ref", assignments)
    run = Path(run_job("train", assignments)["outputs"]["run"])
    exported = Path(run_job("export", assignments, out=workdir / "export")["outputs"]["train"])
    ours = pl.read_ndjson(run / "metrics.jsonl").select(FIGURES).with_row_index("step", 1)
    curves = []
    for padding in PADDING:
        trainer = trl_trainer(model, exported, in_our_order(assignments), workdir / "trl", training)
        if padding == "trained":
            trainer.model.get_input_embeddings().padding_idx = None
        trainer.train()
        theirs = pl.DataFrame([entry for entry in trainer.state.log_history if "loss" in entry]).select(FIGURES)
        apart, moved = distances(trainer.model, run / "policy", model)
        ends = {"weights_apart": pl.lit(apart), "weights_moved": pl.lit(moved), "padding": pl.lit(padding)}
        curves.append(ours.hstack(theirs.select(pl.all().name.prefix("trl_"))).with_columns(**ends))
    return pl.concat(curves)


def run_job(job: str, assignments: Sequence[str], **arguments: Any) -> dict[str, Any]:
    """The document of a job that was done."""
    document = run_job_document(job, Options(None, assignments, True, False, True, 0, arguments))
    if document["exit_code"]:
        raise SystemExit(f"{job}: {document['message']}")
    return document


def in_our_order(assignments: Sequence[str]) -> list[TokenPair]:
    """The pairs as our steps visit them."""
    config = load_config(None, assignments)
    folder = PairsFolder(config.workdir / "pairs")
    prepared = folder.load(folder.origin() or {}, config.data)
    assert prepared is not None
    pairs: TokenPairs = prepared.splits["train"]
    return [pairs[place] for place in epoch_order(pairs.keys.to_list(), config.train.seed, 0)]


def trl_trainer(model: Path, exported: Path, pairs: Sequence[TokenPair], out: Path, training: dict[str, Any]) -> Any:
    """A DPOTrainer that visits these pairs, one after the other, with their stored reference log-probs."""
    trl: Any = import_module("trl")  # only where the extra `bench` is installed

    class StoredReferenceTrainer(trl.DPOTrainer):  # type: ignore[misc]
        def _precompute_ref_logps(self, dataset: Any, name: str, batch_size: int) -> Any:
            return dataset

    arguments = trl.DPOConfig(
        output_dir=str(out),
        use_cpu=True,
        bf16=False,
        model_init_kwargs={"dtype": "float32"},
        gradient_checkpointing=False,  # the same values, later
        precompute_ref_log_probs=True,
        max_length=MAX_LENGTH,
        num_train_epochs=1,
        per_device_train_batch_size=PAIRS_PER_STEP,
        train_sampling_strategy="sequential",
        logging_steps=1,
        save_strategy="no",
        report_to="none",
        disable_tqdm=True,
        **training,
    )
    trainer = StoredReferenceTrainer(str(model), args=arguments, train_dataset=ordered_rows(exported, pairs))
    check_tokens(trainer.train_dataset, pairs)
    return trainer


def ordered_rows(exported: Path, pairs: Sequence[TokenPair]) -> Any:
    """The rows of an export in the order of these pairs."""
    from datasets import Dataset  # 50 MiB that are not ours

    by_key = {row["pair_key"]: row for row in pl.read_parquet(exported).to_dicts()}
    rows = [by_key[pair.key] for pair in pairs]
    return Dataset.from_list(rows).remove_columns("pair_key")


def check_tokens(dataset: Any, pairs: Sequence[TokenPair]) -> None:
    """Nothing is compared unless both train on the very same tokens, in the same order."""
    theirs = [[row[name] for name in ("prompt_ids", "chosen_ids", "rejected_ids")] for row in dataset]
    ours = [[ids.tolist() for ids in (p.chosen.prompt_ids, p.chosen.ids, p.rejected.ids)] for p in pairs]
    if theirs != ours:
        raise SystemExit("TRL made other tokens of the exported texts, so the two trainings cannot be compared.")


def distances(theirs: Any, ours: Path, start: Path) -> tuple[float, float]:
    """L2 norms over all weights: between the two policies, and of the way of ours from its start."""
    from safetensors.torch import load_file

    policy, before = (load_file(folder / "model.safetensors") for folder in (ours, start))
    other = {name: parameter.detach() for name, parameter in theirs.named_parameters()}
    apart = sum(float((policy[name] - other[name]).double().square().sum()) for name in policy)
    moved = sum(float((policy[name].double() - before[name].double()).square().sum()) for name in policy)
    return math.sqrt(apart), math.sqrt(moved)


def print_table(found: pl.DataFrame) -> None:
    """A row a step, and the largest differences."""
    trained, frozen = (found.filter(pl.col("padding") == padding).to_dicts() for padding in PADDING)
    print("| step | learning rate | loss | of TRL | difference | as it comes | gradient norm | of TRL | as it comes |")
    print("|---|---|---|---|---|---|---|---|---|")
    for row, other in zip(trained, frozen, strict=True):
        losses = [f"{row['loss']:.6f}", f"{row['trl_loss']:.6f}"]
        losses += [f"{row['loss'] - each['trl_loss']:+.1e}" for each in (row, other)]
        norms = [f"{value:.4f}" for value in (row["grad_norm"], row["trl_grad_norm"], other["trl_grad_norm"])]
        print(f"| {' | '.join([str(row['step']), format(row['learning_rate'], '.2e'), *losses, *norms])} |")
    for padding in PADDING:
        figures = largest_differences(found.filter(pl.col("padding") == padding))
        print(
            f"\nTRL with its padding token {padding}: losses at most {figures['loss']:.1e} apart, gradient norms "
            f"{figures['grad_norm']:.1e} of their size, rates {figures['learning_rate']:.1e}; the policies end apart "
            f"by {figures['weights']:.1e} of the way that they went (L2)."
        )


def largest_differences(curve: pl.DataFrame) -> dict[str, float]:
    """Of losses and rates as they are, of gradient norms relative to ours, of weights relative to their way."""
    loss, norm, rate = (curve[name] - curve[f"trl_{name}"] for name in ("loss", "grad_norm", "learning_rate"))
    steps = {"loss": loss, "grad_norm": norm / curve["grad_norm"], "learning_rate": rate}
    figures = {name: max(map(abs, series.to_list())) for name, series in steps.items()}
    return figures | {"weights": curve["weights_apart"][0] / curve["weights_moved"][0]}


if __name__ == "__main__":
    main()
