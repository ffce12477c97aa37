"""Where the time of our scoring or training goes, operation by operation (torch's profiler, a second pass).

python benchmarks/time_spent.py --model FOLDER [--data FOLDER --set gsm8k] [--task training] [--pairs 16]
"""

import argparse
from pathlib import Path

import torch
from torch.profiler import profile

import pipeline  # noqa: F401 - finds our packages
from against_trl import DTYPES, FILES, SETS
from data.schema import TokenPair
from measurement import TRAIN, Spec
from our_side import our_scorer, score
from stages.scoring.scorer import Scorer
from stages.training.optimizer import MasterAdamW
from workloads import load_pairs


def main() -> None:
    """Print the profiler's table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--data", type=Path)
    parser.add_argument("--set", choices=SETS, default="shared")
    parser.add_argument("--task", choices=("scoring", "training"), default="scoring")
    parser.add_argument("--dtype", choices=DTYPES, default="float32")
    parser.add_argument("--pairs", type=int, default=16)
    arguments = parser.parse_args()
    file = FILES.get(arguments.set)
    if file and not arguments.data:
        parser.error(f"--data has to name the folder of {file}")
    path = str(arguments.data / file) if file else None
    spec = Spec(str(arguments.model), path, arguments.task, arguments.dtype, arguments.pairs)
    pairs, scorer = load_pairs(spec).tokens, our_scorer(spec)
    optimizer = MasterAdamW(scorer.model, 0.0) if arguments.task == "training" else None
    once(scorer, optimizer, pairs)
    with profile() as seen:
        once(scorer, optimizer, pairs)
    print(seen.key_averages().table(sort_by="self_cpu_time_total", row_limit=25, max_name_column_width=40))


def once(scorer: Scorer, optimizer: MasterAdamW | None, pairs: tuple[TokenPair, ...]) -> None:
    """All pairs scored, or a training step on them."""
    if optimizer is None:
        with torch.inference_mode():
            score(scorer, pairs)
        return
    for batch in scorer.plan([(pair.chosen, pair.rejected) for pair in pairs]):
        scorer.logps(batch.responses).mean().backward()  # type: ignore[no-untyped-call]
    optimizer.step(TRAIN.learning_rate, TRAIN.max_grad_norm)


if __name__ == "__main__":
    main()
