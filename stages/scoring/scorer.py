"""Scores responses under a model: the only code in this project that turns logits into log-probs.

Precompute, training and evaluation differ in what they do with a score, never in how it is made. Stages hand over
groups of responses that belong together (the sides of a pair), get batches back, and ask for each batch's sums.
"""

import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from inspect import signature
from pathlib import Path
from typing import Any

import torch
import transformers
from transformers import PreTrainedModel

from data.errors import ConfigError
from data.schema import Response
from stages.scoring.attention.registered import NAME
from stages.scoring.backends import ATTENTIONS, choose_backend, probe_responses
from stages.scoring.bf16_products import fast_bf16_products
from stages.scoring.config import Attention, Backend, Numerics, same_stack
from stages.scoring.head import TokenScores, logits_collisions, logits_logps, token_scores
from stages.scoring.layout import Layout, token_multiple
from stages.scoring.model import check_vocabulary, device_name, load_model
from stages.scoring.output_layer import find_output_layer, with_weights_of
from stages.scoring.packs import lay_out_pack, plan_packs
from stages.scoring.rows import lay_out_rows, plan_rows
from stages.scoring.transfer import on_device

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Batch:
    """Responses that go through the model together, and the groups (by index) that they make up."""

    responses: list[Response]
    groups: list[int]

    @property
    def n_tokens(self) -> int:
        """Tokens of prompts and responses, padding aside."""
        return sum(len(response) for response in self.responses)


def load_scorer(folder: Path, numerics: Numerics, responses: Iterable[Response]) -> "Scorer":
    """A scorer for the model in `folder`, once it is known to have an embedding for every token of `responses`.

    Raises:
        ConfigError, EnvironmentProblem: the model cannot be loaded, or not be scored so.
        DataError: a token is beyond its vocabulary.
    """
    return scorer_of(load_model(folder, numerics.dtype, numerics.quantization), numerics, responses)


def scorer_of(model: PreTrainedModel, numerics: Numerics, responses: Iterable[Response]) -> "Scorer":
    """The same for a loaded model."""
    check_vocabulary(model, responses)
    return Scorer(model, numerics.pack_tokens, numerics.backend, numerics.attention, compiled=numerics.compile)


class Scorer:
    """Sums of log-probs of responses under one model, differentiable where gradients are enabled.

    It takes the model over: where packs are right for it, its attention computes nothing else afterwards.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        pack_tokens: int,
        backend: Backend = "auto",
        attention: Attention | None = None,
        *,
        compiled: bool = False,
    ) -> None:
        assert model.config._attn_implementation != NAME, "this model has a scorer already"
        self.model = model
        self._pack_tokens = pack_tokens
        self._decoder: Any = model.get_decoder()  # type: ignore[no-untyped-call]
        self._head = find_output_layer(model, self._decoder)
        if self._head is None:
            logger.info("%s is scored by its own logits: they are more than its output layer", type(model).__name__)
        self.backend = choose_backend(model, self._hidden_states, backend, attention)
        self.network = _Network(model, self._scored_tokens)
        self._compiled = compiled
        if compiled:
            self._compile()

    @property
    def attention(self) -> Attention:
        """`packs` or `rows`: what of the back-end belongs to a reference's identity."""
        return "rows" if self.backend == "rows" else "packs"

    @property
    def is_asynchronous(self) -> bool:
        """Whether a score is only asked for when it is returned, and computed while the program goes on."""
        return self.model.device.type == "cuda"

    def stack(self) -> dict[str, str]:
        """What made the scores, kept with them as provenance: versions, device, back-end, pack length."""
        return {
            "torch": torch.__version__,
            "transformers": transformers.__version__,
            "device": device_name(),
            "backend": self.backend,
            "pack_tokens": str(self._pack_tokens),
            **({"compile": "layers and head"} if self._compiled else {}),
        }

    def reproduces(self, stack: Mapping[str, str]) -> bool:
        """Whether values that were scored under `stack` should come out of this scorer bit for bit."""
        # Promised for no GPU before it has been seen on one. Compiled layers round otherwise for gradients.
        exact = self.attention == "packs" and self.model.device.type == "cpu" and not self._compiled
        return exact and same_stack(stack, self.stack())

    def shrink(self, responses: Sequence[Response]) -> bool:
        """Score in passes of half the size from now on; False where each of these responses is alone in one already."""
        if self._pack_tokens <= min(len(response) for response in responses):
            return False
        self._pack_tokens //= 2
        if self.model.device.type == "cuda":
            torch.cuda.empty_cache()
        return True

    def plan(self, groups: Sequence[Sequence[Response]]) -> list[Batch]:
        """Batches of whole groups, each response once, at most `pack_tokens` a batch."""
        plan = (
            plan_rows(groups, self._pack_tokens)
            if self.backend == "rows"
            else plan_packs(groups, self._pack_tokens - 1)
        )
        batches = []
        for members in plan:
            unique = {response.key: response for index in members for response in groups[index]}
            batches.append(Batch(list(unique.values()), members))
        return batches

    def logps(self, responses: Sequence[Response]) -> torch.Tensor:
        """Summed log-probs of the scored tokens of each response: (N,) float32, in nats."""
        return prefix_sums(self.token_logps(responses))[:, -1]

    def token_logps(self, responses: Sequence[Response]) -> torch.Tensor:
        """Log-probs of the scored tokens of each response: (N, most scored) float32, in nats, 0 behind the last."""
        return self._tables(responses, collisions=False)[0]

    def aligned_token_logps(self, responses: Sequence[Response]) -> tuple[torch.Tensor, torch.Tensor]:
        """The same, and the mean over a response's tokens of log pi_t - log sum_v pi_v^2 (WPO): (N,), detached."""
        tokens, collisions = self._tables(responses, collisions=True)
        assert collisions is not None
        counts = on_device([response.n_scored for response in responses], tokens.device)
        return tokens, prefix_sums(tokens.detach() - collisions)[:, -1] / counts

    def _tables(self, responses: Sequence[Response], *, collisions: bool) -> tuple[torch.Tensor, torch.Tensor | None]:
        layout = self._lay_out(responses)
        scores: TokenScores = self.network(layout, collisions)
        table, squares = (None if values is None else _table(values, layout) for values in scores)
        assert table is not None
        return table, squares

    def _compile(self) -> None:
        if self.backend == "rows":
            raise ConfigError(
                f"scoring.compile: {type(self.model).__name__} is scored in rows, of too many shapes to compile. "
                "Set scoring.compile: false."
            )
        from stages.scoring.compiled import compile_head, compile_layers  # and the compiler with it

        pack = self._lay_out(probe_responses(self.model))
        compile_layers(self.model, self._hidden_states, pack)
        if self._head is not None:
            layer = with_weights_of(self.model, self._head)
            self._head = compile_head(self.model, layer, self._hidden_states, pack)

    def _lay_out(self, responses: Sequence[Response]) -> Layout:
        device = self.model.device
        if self.backend == "rows":
            return lay_out_rows(responses, device)
        # On a GPU the matrix library picks its kernel by shape, so there every pack has the same one.
        length = self._pack_tokens if device.type == "cuda" else None
        return lay_out_pack(responses, ATTENTIONS[self.backend], device, token_multiple(), length)

    def _scored_tokens(self, layout: Layout, collisions: bool) -> TokenScores:
        if self._head is None:
            logits = self._own_logits(layout)
            return TokenScores(logits_logps(logits, layout.targets), logits_collisions(logits) if collisions else None)
        hidden = self._hidden_states(layout).flatten(0, 1)[layout.positions]
        return token_scores(hidden, layout.targets, with_weights_of(self.model, self._head), collisions=collisions)

    def _own_logits(self, layout: Layout) -> torch.Tensor:
        """(M, V): the model's logits at the scored positions; of a pack it is asked for no others, if it can be."""
        inputs = _inputs(layout)
        if len(layout.input_ids) > 1 or "logits_to_keep" not in signature(self.model.forward).parameters:
            return self._run(self.model, inputs, "logits").flatten(0, 1)[layout.positions]
        return self._run(self.model, inputs | {"logits_to_keep": layout.positions}, "logits")[0]

    def _hidden_states(self, layout: Layout) -> torch.Tensor:
        """(B, T, D), of the decoder, or where the model has none of its own, its logits."""
        output = "logits" if self._decoder is self.model else "last_hidden_state"
        return self._run(self._decoder, _inputs(layout), output)

    def _run(self, module: torch.nn.Module, inputs: dict[str, Any], output: str) -> torch.Tensor:
        with fast_bf16_products(self.model.device):
            result: torch.Tensor = getattr(module(**inputs), output)
        return result


class _Network(torch.nn.Module):
    """The whole way from a layout to scores as one module: what hangs itself on modules (FSDP2) sees all of it."""

    def __init__(self, model: PreTrainedModel, scored_tokens: Callable[[Layout, bool], TokenScores]) -> None:
        super().__init__()
        self.model = model
        self._scored_tokens = scored_tokens

    def forward(self, layout: Layout, collisions: bool) -> TokenScores:
        return self._scored_tokens(layout, collisions)


def _inputs(layout: Layout) -> dict[str, Any]:
    """What the model is called with; `pack` reaches its attention layers as a keyword that they hand down."""
    inputs: dict[str, Any] = {"input_ids": layout.input_ids, "use_cache": False}
    if layout.attention is not None:
        inputs |= {"position_ids": layout.position_ids, "pack": layout.attention}
    return inputs


def prefix_sums(tokens: torch.Tensor) -> torch.Tensor:
    """Sums over the first 1, 2, ... of the tokens (N, most): (N, most) float32; the last is the whole response's."""
    # One after the other, so that no sum depends on how long other responses are.
    if tokens.is_cuda and torch.are_deterministic_algorithms_enabled():
        return doubling_sums(tokens.double()).float()
    return tokens.cumsum(dim=1, dtype=torch.float64).float()


def doubling_sums(values: torch.Tensor) -> torch.Tensor:
    """The sums of `cumsum(dim=1)` by additions of whole tables: torch refuses its own on a GPU as not deterministic."""
    reach = 1
    while reach < values.shape[1]:
        values = torch.cat([values[:, :reach], values[:, reach:] + values[:, :-reach]], dim=1)
        reach *= 2
    return values


def _table(values: torch.Tensor, layout: Layout) -> torch.Tensor:
    """Values of scored tokens (M rounded up,) as (N, most scored), 0 behind each response's last."""
    table = values.new_zeros((layout.n_responses, layout.most_scored))
    return table.index_put((layout.owners, layout.places), values[: len(layout.owners)])
