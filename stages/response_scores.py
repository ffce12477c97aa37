"""Scores pairs that are looked at, not trained on: held-out ones by the eval job, dev pairs in the middle of a run.

Either way each response is scored once, and the numbers of a pair are the same, whatever it is scored beside and by
how many processes.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
import torch

from data.schema import Response, TokenPair, unique_responses
from data.store.reference_store import TokenLogps
from data.tokens.token_pairs import TokenPairs
from stages.metrics.records import PairRecord
from stages.objectives.config import ObjectiveConfig
from stages.pair_losses import PairLosses, mean_chosen_tokens
from stages.policy_sums import ResponseScore, kept_scores, pair_scores, score_table, sums_of_kept
from stages.processes import ALONE, Processes
from stages.reference_rows import ReferenceLogps
from stages.scoring.scorer import Batch, Scorer
from stages.scoring.transfer import ReadBehind
from stages.shares import response_shares, rounds


def score_pairs(
    pairs: TokenPairs,
    reference: Mapping[str, ReferenceLogps] | None,
    scorer: Scorer,
    config: ObjectiveConfig,
    scored: Callable[[Batch], None],
    processes: Processes = ALONE,
    keep: Callable[[Mapping[str, TokenLogps]], None] = lambda _: None,
) -> list[PairRecord]:
    """The pairs' records, in an order of their own (pair_key, row): no number depends on the source's order.

    `scored` is called after each batch of this process: it may raise what stops the job. `keep` gets the token
    log-probs of all responses, by key. Without `reference` an objective that reads one gives no losses.
    """
    responses = unique_responses(pairs)
    kept: dict[str, ResponseScore] = {}
    reader = ReadBehind(behind=scorer.is_asynchronous)

    def note(batch: Batch, table: np.ndarray) -> None:
        kept.update(kept_scores(batch.responses, table, config))
        scored(batch)

    with torch.no_grad():
        for batch, own in rounds(response_shares(responses, scorer, processes.size), processes):
            table = score_table(batch, scorer, config)
            if own:
                reader.read(table, partial(note, batch))
        reader.finish()
    kept_of_all = _of_all(kept, responses, config, processes)
    keep({key: score.token_logps for key, score in kept_of_all.items()})
    return _records(pairs, reference, config, kept_of_all)


def _records(
    pairs: TokenPairs,
    reference: Mapping[str, ReferenceLogps] | None,
    config: ObjectiveConfig,
    kept: Mapping[str, ResponseScore],
) -> list[PairRecord]:
    ordered = sorted(pairs, key=lambda pair: (pair.key, pair.row))
    policy = sums_of_kept(ordered, kept, config)
    losses: list[float | None] = [None] * len(ordered)
    if reference is not None or not config.reads_reference:
        losses = PairLosses(config, reference)(ordered, policy, mean_chosen_tokens(ordered)).tolist()
    scores = pair_scores(ordered, policy, reference)
    return [_record(*each) for each in zip(ordered, scores, losses, strict=True)]


def _record(pair: TokenPair, score: Any, loss: float | None) -> PairRecord:
    return PairRecord(pair.row, pair.key, pair.prompt_key, score, pair.chosen.n_scored, pair.rejected.n_scored, loss)


def _of_all(
    kept: Mapping[str, ResponseScore], responses: Sequence[Response], config: ObjectiveConfig, processes: Processes
) -> Mapping[str, ResponseScore]:
    """What all processes have kept, in each of them."""
    if processes.size == 1:
        return kept
    table = torch.zeros((len(responses), 1 + max(response.n_scored for response in responses)))
    for row, response in enumerate(responses):
        if response.key in kept:
            token_logps, alignment = kept[response.key]
            table[row, 0] = 0.0 if alignment is None else alignment
            table[row, 1 : 1 + len(token_logps)] = torch.from_numpy(token_logps)
    return kept_scores(responses, processes.add_up(table).numpy(), config)
