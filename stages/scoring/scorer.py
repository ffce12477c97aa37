"""Scores responses under a model: the only code in this project that turns logits into log-probs.

Precompute, training and evaluation differ in what they do with a score, never in how it is made. Stages hand over
groups of responses that belong together (the sides of a pair), get batches back, and ask for each batch's sums.
"""

import logging
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch
import transformers
from torch.nn.functional import linear
from transformers import PreTrainedModel

from data.schema import Response
from stages.scoring.bf16_products import fast_bf16_products
from stages.scoring.config import Numerics
from stages.scoring.head import logits_logps, token_logps
from stages.scoring.model import check_vocabulary, device_name, load_model, vocabulary_rows
from stages.scoring.rows import Layout, lay_out, plan_rows

logger = logging.getLogger(__name__)

_PROBE_TOKENS = 8


class OutputLayer(NamedTuple):
    """The projection to the vocabulary: weight (V, D), bias (V,) or none."""

    weight: torch.Tensor
    bias: torch.Tensor | None


@dataclass(frozen=True)
class Batch:
    """Responses that go through the model together, and the groups (by index) that they make up."""

    responses: list[Response]
    groups: list[int]

    @property
    def n_tokens(self) -> int:
        """Tokens read, padding aside."""
        return sum(len(response) for response in self.responses)


def load_scorer(folder: Path, numerics: Numerics, responses: Iterable[Response]) -> "Scorer":
    """A scorer for the model in `folder`, once it is known to have an embedding for every token of `responses`.

    Raises:
        ConfigError, EnvironmentProblem: the model cannot be loaded. DataError: a token is beyond its vocabulary.
    """
    model = load_model(folder, numerics.dtype)
    check_vocabulary(model, responses)
    return Scorer(model, numerics.pack_tokens)


class Scorer:
    """Sums of log-probs of responses under one model, differentiable where gradients are enabled."""

    def __init__(self, model: PreTrainedModel, pack_tokens: int) -> None:
        self.model = model
        self._pack_tokens = pack_tokens
        self._decoder: Any = model.get_decoder()  # type: ignore[no-untyped-call]
        self._head = self._probe_head()

    def stack(self) -> dict[str, str]:
        """What made the scores, kept with them as provenance: versions, device, back-end, pack length."""
        return {
            "torch": torch.__version__,
            "transformers": transformers.__version__,
            "device": device_name(),
            "backend": "rows",
            "pack_tokens": str(self._pack_tokens),
        }

    def plan(self, groups: Sequence[Sequence[Response]]) -> list[Batch]:
        """Batches of whole groups, each response once, at most `pack_tokens` a batch."""
        batches = []
        for members in plan_rows(groups, self._pack_tokens):
            unique = {response.key: response for index in members for response in groups[index]}
            batches.append(Batch(list(unique.values()), members))
        return batches

    def logps(self, responses: Sequence[Response]) -> torch.Tensor:
        """Summed log-probs of the scored tokens of each response: (N,) float32, in nats."""
        layout = lay_out(responses, self.model.device)
        with fast_bf16_products(self.model.device):
            tokens = self._token_logps(layout)
        table = tokens.new_zeros((layout.n_responses, layout.most_scored))
        table = table.index_put((layout.owners, layout.places), tokens)
        return table.sum(dim=1, dtype=torch.float64).float()

    def _token_logps(self, layout: Layout) -> torch.Tensor:
        if self._head is None:
            logits = self.model(input_ids=layout.input_ids, use_cache=False).logits
            return logits_logps(logits.flatten(0, 1)[layout.positions], layout.targets)
        hidden = self._decoder(input_ids=layout.input_ids, use_cache=False).last_hidden_state
        return token_logps(hidden.flatten(0, 1)[layout.positions], layout.targets, *self._head)

    @torch.no_grad()
    def _probe_head(self) -> OutputLayer | None:
        """The output layer, where it makes the model's own logits out of the decoder's output; otherwise None.

        Models that scale or cap their logits after the layer are served by their own logits instead.
        """
        head: Any = self.model.get_output_embeddings()  # type: ignore[no-untyped-call]
        if self._decoder is not self.model and isinstance(getattr(head, "weight", None), torch.Tensor):
            layer = OutputLayer(head.weight, getattr(head, "bias", None))
            ids = torch.arange(_PROBE_TOKENS, device=self.model.device)[None] % vocabulary_rows(self.model)
            own = self.model(input_ids=ids, use_cache=False).logits
            hidden = self._decoder(input_ids=ids, use_cache=False).last_hidden_state
            # The same product, so the same bits; a tolerance would let a soft cap pass where logits are small.
            if hidden.shape[-1] == layer.weight.shape[-1] and torch.equal(linear(hidden, *layer).float(), own.float()):
                return layer
        logger.info(
            "%s makes its logits otherwise than by its output layer alone; scoring by its own logits",
            type(self.model).__name__,
        )
        return None
