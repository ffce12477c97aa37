"""A reference that is a dictionary: scores by key, without a model, so that thousands of jobs take seconds."""

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from data.identity import document_key
from data.schema import Response, TokenPair
from data.store.reference_store import ReferenceStore, StoreConfig
from data.store.storage import LocalStorage, Storage
from data.tokens.token_pairs import TokenPairs
from pipeline.control import ProcessControl
from stages.job import JobReport
from stages.precompute_ref import Precomputation, find_work, precompute_ref
from stages.reference import BoundReference, ReferenceConfig
from stages.scoring.config import Numerics
from stages.scoring.scorer import Batch
from stages.units import ALL, Shard


def true_logps(response: Response) -> np.ndarray:
    """What the reference gives for the scored tokens."""
    seed = int.from_bytes(hashlib.sha256(response.key.encode()).digest()[:8], "little")
    return -np.random.default_rng(seed).random(response.n_scored, np.float32)


class DictionaryScorer:
    """Stands where a Scorer stands; counts how often each response was scored."""

    attention = "packs"
    is_asynchronous = True  # the harder case: what is scored is read one batch later

    def __init__(self) -> None:
        self.scored: list[str] = []

    def stack(self) -> dict[str, str]:
        return {"device": "cpu dictionary", "pack_tokens": "1"}

    def plan(self, groups: Sequence[Sequence[Response]]) -> list[Batch]:
        return [Batch([response for group in groups for response in group], list(range(len(groups))))]

    def token_logps(self, responses: Sequence[Response]) -> torch.Tensor:
        self.scored += [response.key for response in responses]
        table = torch.zeros(len(responses), max(response.n_scored for response in responses))
        for row, response in zip(table, responses, strict=True):
            row[: response.n_scored] = torch.from_numpy(true_logps(response))
        return table

    def logps(self, responses: Sequence[Response]) -> torch.Tensor:
        return self.token_logps(responses).cumsum(1, dtype=torch.float64)[:, -1].float()


def make_pairs(numbers: Sequence[int], per_prompt: int = 2) -> list[TokenPair]:
    """Pairs by number; so many of them in a row share a prompt, and neighbours share a response."""
    pairs = []
    for number in numbers:
        prompt = np.array([1, 2, number // per_prompt], np.int32)
        sides = [_response(prompt, answer) for answer in (number, number + 1)]
        pairs.append(TokenPair(number, f"made:{number}", *sides))
    return pairs


def _response(prompt: np.ndarray, answer: int) -> Response:
    ids = np.array([answer, *range(answer % 3), 9], np.int32)
    return Response(prompt, ids, np.ones(len(ids), bool))


IDENTITY: dict[str, Any] = {"attention": "packs", "weights": ["dictionary"]}


def make_store(place: Path | Storage, identity: dict[str, Any] | None = None) -> ReferenceStore:
    """The rows of the dictionary (or of another identity) at a place."""
    storage = LocalStorage(place) if isinstance(place, Path) else place
    return ReferenceStore(storage, document_key(identity or IDENTITY))


def precompute(
    pairs: Sequence[TokenPair],
    store: ReferenceStore,
    scorer: DictionaryScorer | None = None,
    unit_pairs: int = 3,
    shard: Shard = ALL,
) -> JobReport:
    """The real job over these pairs."""
    config = ReferenceConfig(model="dictionary", dtype="float32")
    bound = BoundReference(config, store.reference_id, IDENTITY, Path("dictionary"))
    settings = StoreConfig(unit_pairs=unit_pairs)
    numerics = Numerics("float32", "auto", 1, "packs")
    job = Precomputation(TokenPairs.of(pairs), store, bound, numerics, settings, shard, {})
    return precompute_ref(job, find_work(job), ProcessControl(quiet=True), scorer or DictionaryScorer())  # type: ignore[arg-type]
