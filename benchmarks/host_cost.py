"""What the program takes beside the model: planning, laying out, reading, writing, a pair.

    python benchmarks/host_cost.py [--pairs 8000] [--pack-tokens 2048]

Job one over random pairs of the two mixes of gpu_lengths.py, with a network in the model's place that gives constants.
The attention is planned as for CUDA (varlen). One core. On a GPU it happens while the GPU works; that the program also
has to ask for each of the model's kernels is not in it.
"""

import argparse
import tempfile
import time
from pathlib import Path
from typing import Any

import torch

import pipeline  # noqa: F401 - finds our packages
from data.identity import document_key
from data.schema import TokenPair
from data.store.reference_store import ReferenceStore, StoreConfig
from data.store.storage import LocalStorage
from data.tokens.token_pairs import TokenPairs
from gpu_lengths import MIXES, random_pairs
from gpu_models import SHAPES, random_model
from pipeline.control import ProcessControl
from stages.precompute_ref import Precomputation, find_work, precompute_ref
from stages.reference import BoundReference, ReferenceConfig
from stages.scoring.attention.varlen import VarlenAttention
from stages.scoring.backends import ATTENTIONS
from stages.scoring.config import Numerics
from stages.scoring.head import TokenScores
from stages.scoring.scorer import Scorer
from stages.units import ALL

WARM_UP = 64  # pairs


class Constant(torch.nn.Module):
    """Stands where a model and its head stand."""

    def forward(self, layout: Any, collisions: bool) -> TokenScores:
        """The same log-prob for every token."""
        return TokenScores(torch.full((len(layout.targets),), -1.0), None)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--pairs", type=int, default=8000)
    parser.add_argument("--pack-tokens", type=int, default=2048)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    print(f"{arguments.pairs} pairs, packs of {arguments.pack_tokens} tokens, one core")
    print(f"{'lengths':<16}{'us a pair':>12}{'pairs/s':>12}{'tokens/s':>14}")
    score(random_pairs(MIXES["hh"], WARM_UP, SHAPES["toy"].vocabulary), constant_scorer(arguments.pack_tokens))
    for name, mix in MIXES.items():
        pairs = random_pairs(mix, arguments.pairs, SHAPES["toy"].vocabulary)
        seconds = score(pairs, constant_scorer(arguments.pack_tokens))
        tokens = sum(len(pair.chosen.prompt_ids) + len(pair.chosen.ids) + len(pair.rejected.ids) for pair in pairs)
        each = seconds / len(pairs)
        print(f"{name:<16}{1e6 * each:>12.0f}{1 / each:>12,.0f}{tokens / seconds:>14,.0f}")


def constant_scorer(pack_tokens: int) -> Scorer:
    """A scorer whose network gives constants, and whose packs are planned as for CUDA."""
    scorer = Scorer(random_model(SHAPES["toy"], "float32", "cpu"), pack_tokens)
    ATTENTIONS[scorer.backend] = VarlenAttention
    scorer.network = Constant()  # type: ignore[assignment]
    return scorer


def score(pairs: list[TokenPair], scorer: Scorer) -> float:
    """Seconds of job one, the store in a folder of its own."""
    identity = {"attention": "packs"}
    bound = BoundReference(ReferenceConfig(model="none"), document_key(identity), identity, None)
    with tempfile.TemporaryDirectory() as folder:
        store = ReferenceStore(LocalStorage(Path(folder)), bound.reference_id)
        numerics = Numerics("float32", "auto", 0)
        job = Precomputation(TokenPairs.of(pairs), store, bound, numerics, StoreConfig(), ALL, {})
        todo, started = find_work(job), time.perf_counter()
        report = precompute_ref(job, todo, ProcessControl(quiet=True), scorer)
        assert report.pairs_scored == len(pairs)
        return time.perf_counter() - started


if __name__ == "__main__":
    main()
