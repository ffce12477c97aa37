"""What an objective reads of pairs under the policy: from a batch in training, from kept scores in evaluation."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from data.schema import Response, TokenPair
from data.store.reference_store import TokenLogps
from stages.metrics.pairwise import PairScores
from stages.objectives.config import ObjectiveConfig
from stages.reference_rows import ReferenceLogps
from stages.scoring.scorer import Batch, Scorer, prefix_sums
from stages.scoring.transfer import on_device
from stages.units import prefix_sums as kept_prefix_sums


class Side(NamedTuple):
    """One side of B pairs under one model: (B,) nats each."""

    whole: Tensor
    shared: Tensor | None = None
    """Sum over the first min(L+, L-) scored tokens; LD-DPO asks for it."""
    alignment: Tensor | None = None
    """Mean over the tokens of log pi_t - log sum_v pi_v^2, detached; WPO asks for it."""


class PolicySums(NamedTuple):
    """Both sides of B pairs under the policy."""

    chosen: Side
    rejected: Side

    def differentiable(self) -> list[Tensor]:
        """The sums that a loss has a gradient by, always in the same order."""
        sums = (self.chosen.whole, self.rejected.whole, self.chosen.shared, self.rejected.shared)
        return [tensor for tensor in sums if tensor is not None]


class ResponseScore(NamedTuple):
    """One response under the policy."""

    token_logps: TokenLogps
    """Of its scored tokens: (L,) float32, in nats."""
    alignment: float | None


def sums_of_batch(pairs: Sequence[TokenPair], batch: Batch, scorer: Scorer, config: ObjectiveConfig) -> PolicySums:
    """The pairs of a batch, scored now; differentiable where gradients are enabled."""
    tokens, alignment = _scored(batch, scorer, config)
    prefix = prefix_sums(tokens)
    place = {response.key: i for i, response in enumerate(batch.responses)}
    ends = None if config.ld_alpha is None else _tensor([_shared_tokens(pair) - 1 for pair in pairs], prefix)

    def side(keys: Sequence[str]) -> Side:
        at = _tensor([place[key] for key in keys], prefix)
        shared = None if ends is None else prefix[at, ends]
        return Side(prefix[at, -1], shared, None if alignment is None else alignment[at])

    return PolicySums(side([pair.chosen.key for pair in pairs]), side([pair.rejected.key for pair in pairs]))


def score_table(batch: Batch, scorer: Scorer, config: ObjectiveConfig) -> Tensor:
    """A row for each response of a batch: alignment (or 0), then log-probs of tokens; (N, 1 + most scored) float32."""
    tokens, alignment = _scored(batch, scorer, config)
    first = tokens.new_zeros(len(tokens)) if alignment is None else alignment
    return torch.cat([first[:, None], tokens], dim=1)


def kept_scores(responses: Sequence[Response], table: np.ndarray, config: ObjectiveConfig) -> dict[str, ResponseScore]:
    """What is kept of responses, by key, until all pairs can be put together, from rows like those of `score_table`."""
    return {
        response.key: ResponseScore(
            row[1 : 1 + response.n_scored].copy(), float(row[0]) if config.use_weighting else None
        )
        for response, row in zip(responses, table, strict=True)
    }


def sums_of_kept(pairs: Sequence[TokenPair], kept: Mapping[str, ResponseScore], config: ObjectiveConfig) -> PolicySums:
    """The pairs, from what was kept: float64."""

    def side(keys: Sequence[str]) -> Side:
        scores = [kept[key] for key in keys]
        sums = [kept_prefix_sums(score.token_logps) for score in scores]
        shared = None
        if config.ld_alpha is not None:
            shared = [float(prefix[_shared_tokens(pair) - 1]) for pair, prefix in zip(pairs, sums, strict=True)]
        aligned = [score.alignment for score in scores] if config.use_weighting else None
        whole = torch.tensor([float(prefix[-1]) for prefix in sums], dtype=torch.float64)
        return Side(whole, _double(shared), _double(aligned))

    return PolicySums(side([pair.chosen.key for pair in pairs]), side([pair.rejected.key for pair in pairs]))


def _scored(batch: Batch, scorer: Scorer, config: ObjectiveConfig) -> tuple[Tensor, Tensor | None]:
    """Token log-probs (N, most scored) of the batch's responses and, for WPO, their alignment (N,)."""
    if not config.use_weighting:
        return scorer.token_logps(batch.responses), None
    return scorer.aligned_token_logps(batch.responses)


def pair_scores(
    pairs: Sequence[TokenPair], policy: PolicySums, reference: Mapping[str, ReferenceLogps] | None
) -> list[PairScores]:
    """The sums of each pair under policy and, if there is one, reference; for metrics."""
    sums = zip(policy.chosen.whole.tolist(), policy.rejected.whole.tolist(), pairs, strict=True)
    if reference is None:
        return [PairScores(chosen, rejected) for chosen, rejected, _ in sums]
    stored = ((chosen, rejected, reference[pair.key]) for chosen, rejected, pair in sums)
    return [PairScores(chosen, rejected, ref.chosen, ref.rejected) for chosen, rejected, ref in stored]


def _shared_tokens(pair: TokenPair) -> int:
    return min(pair.chosen.n_scored, pair.rejected.n_scored)


def _tensor(places: Sequence[int], like: Tensor) -> Tensor:
    return on_device(places, like.device)


def _double(values: Sequence[float | None] | None) -> Tensor | None:
    return None if values is None else torch.tensor(values, dtype=torch.float64)
