"""Compiled layers (`scoring.compile`) beside plain ones on a CPU: `python benchmarks/compiled.py --model FOLDER`.

Packs of made-up tokens, two lengths in turn, scored and, with gradients, trained; the two models take turns. Medians of
CPU seconds, which other programs disturb less than the clock. A GPU: `python benchmarks/gpu.py --only ours`.
"""

import argparse
import statistics
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import torch

import pipeline  # noqa: F401 - finds our packages
from data.schema import Response
from stages.scoring.config import Numerics
from stages.scoring.model import vocabulary_rows
from stages.scoring.scorer import Scorer, load_scorer

ROUNDS = 8
LENGTHS = (900, 700)  # tokens of a pack, about


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--model", type=Path, required=True)
    model = parser.parse_args().model
    print(f"{torch.backends.cpu.get_cpu_capability()}, {torch.get_num_threads()} threads, torch {torch.__version__}")
    print(f"{'CPU seconds a pack':<26}{'plain':>10}{'compiled':>10}{'ratio':>8}")
    for dtype in ("float32", "bfloat16"):
        plain, fast = (load_scorer(model, Numerics(dtype, "auto", 2048, compile=each), ()) for each in (False, True))
        packs = [made_up_pack(length, vocabulary_rows(plain.model)) for length in LENGTHS]
        for name, work in (("scoring", score), ("training", train)):
            one, other = compared(partial(work, plain), partial(work, fast), packs)
            print(f"{name + ', ' + dtype:<26}{one:>10.2f}{other:>10.2f}{one / other:>8.2f}")


def made_up_pack(length: int, vocabulary: int) -> list[Response]:
    """Prompts of 60 to 200 tokens with two responses of 30 to 120 each, until there are so many tokens."""
    generator, responses, tokens = np.random.default_rng(length), [], 0
    while tokens < length:
        parts = [int(generator.integers(*bounds)) for bounds in ((60, 200), (30, 120), (30, 120))]
        prompt, *sides = (generator.integers(0, vocabulary, n).astype(np.int32) for n in parts)
        responses += [Response(prompt, ids, np.ones(len(ids), bool)) for ids in sides]
        tokens += sum(parts)
    return responses


def compared(
    one: Callable[[list[Response]], None], other: Callable[[list[Response]], None], packs: list[list[Response]]
) -> tuple[float, float]:
    """Median CPU seconds of each, taking turns, once both have seen every length."""
    rounds = []
    for number in range(len(packs) + ROUNDS):
        pack = packs[number % len(packs)]
        rounds.append((seconds(partial(one, pack)), seconds(partial(other, pack))))
    first, second = zip(*rounds[len(packs) :], strict=True)
    return statistics.median(first), statistics.median(second)


def seconds(work: Callable[[], None]) -> float:
    """Of all cores."""
    started = time.process_time()
    work()
    return time.process_time() - started


def score(scorer: Scorer, pack: list[Response]) -> None:
    """As job one does."""
    with torch.inference_mode():
        scorer.logps(pack)


def train(scorer: Scorer, pack: list[Response]) -> None:
    """A pass and its gradient."""
    scorer.logps(pack).sum().backward()  # type: ignore[no-untyped-call]
    scorer.model.zero_grad(set_to_none=True)


if __name__ == "__main__":
    main()
