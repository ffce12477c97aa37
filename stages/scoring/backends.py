"""Chooses how sequences go through a model, by trying it, and says why.

Packs are right for most decoders and silently wrong for some (a position bias made elsewhere, a state that runs along
the row). So no list of architectures is kept: each back-end has to make short packs agree with plain rows first.
"""

import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from transformers import PreTrainedModel

from data.errors import ConfigError, StoreError, one_line
from data.schema import Response
from stages.scoring.attention.contract import AttentionMaker, PackAttention, UnsupportedModel
from stages.scoring.attention.flex import FlexAttention
from stages.scoring.attention.registered import NAME, register
from stages.scoring.attention.segments import SegmentsAttention
from stages.scoring.attention.varlen import VarlenAttention
from stages.scoring.config import Attention, Backend
from stages.scoring.layout import Layout, token_multiple
from stages.scoring.model import vocabulary_rows
from stages.scoring.packs import lay_out_pack
from stages.scoring.rows import lay_out_rows

logger = logging.getLogger(__name__)

ATTENTIONS: dict[str, AttentionMaker] = {
    "segments": SegmentsAttention,
    "varlen": VarlenAttention,
    "flex": FlexAttention,
}
_BEST_FIRST = {"cuda": ("varlen", "flex", "segments")}
_OTHERWISE = ("segments",)

# Distance of a pack's hidden states from those of plain rows, as a share of their norm: the median over the tokens of a
# response (a single token may be turned far by bf16 rounding alone), at worst over the responses. The demo's model in
# bf16 shows 3 % where packs are right; what packs get wrong shows as tens of per cent (test_backends.py).
TOLERANCE = {torch.float32: 1e-4, torch.bfloat16: 0.15}

Forward = Callable[[Layout], torch.Tensor]
"""Hidden states (B, T, D) of a layout."""


def choose_backend(model: PreTrainedModel, forward: Forward, wanted: Backend, attention: Attention | None) -> str:
    """The back-end that scores this model; its attention function is in place afterwards.

    `attention`: "packs" or "rows" where stored values say which, None where either will do.

    Raises:
        ConfigError: `wanted` gives this model wrong values.
        StoreError: the stored reference was scored in packs, and here they do not work.
    """
    if wanted == "rows" or attention == "rows":
        why = "scoring.backend says so" if wanted == "rows" else "the stored reference was scored so"
        logger.info("attention: rows, because %s", why)
        return "rows"
    candidates = _BEST_FIRST.get(model.device.type, _OTHERWISE) if wanted == "auto" else (wanted,)
    own = model.config._attn_implementation
    reasons = []
    for name in candidates:
        try:
            error = _try(model, forward, ATTENTIONS[name])
        except UnsupportedModel as reason:
            reasons.append(f"{name}: {reason}")
            model.set_attn_implementation(own)
            continue
        logger.info("attention: %s (packs differ from plain rows by %.1e of their norm)", name, error)
        return name
    why = f"{type(model).__name__} cannot be scored in packs ({'; '.join(reasons)})"
    if wanted != "auto":
        raise ConfigError(
            f"scoring.backend: {wanted} does not work here: {why}. Set scoring.backend: auto, which finds one that "
            "does."
        )
    if attention == "packs":
        raise StoreError(
            f"The reference log-probs in the store were scored in packs, and here {why}. Train and evaluate with the "
            "versions of torch and transformers that scored them, or set scoring.backend: rows and run "
            "`pipeline precompute-ref` to score them again."
        )
    logger.info("attention: rows, because %s", why)
    return "rows"


@torch.no_grad()
def _try(model: PreTrainedModel, forward: Forward, maker: AttentionMaker) -> float:
    """How far a pack is from plain rows, relative to their norm.

    Raises:
        UnsupportedModel: it is too large, or the model does not attend through the registered function in every layer.
    """
    responses = probe_responses(model)
    plain = scored_states(forward, [lay_out_rows([response], model.device) for response in responses])
    register()
    model.set_attn_implementation(NAME)
    if model.config._attn_implementation != NAME:
        raise UnsupportedModel("its attention cannot be replaced")
    counting = _Counting(maker)
    layout = lay_out_pack(responses, counting, model.device, token_multiple())
    try:
        packed = scored_states(forward, [layout])
    except UnsupportedModel:
        raise
    except Exception as problem:  # a model's own code, given arguments that its authors may not have thought of
        raise UnsupportedModel(one_line(problem)) from problem
    n_layers = model.config.get_text_config().num_hidden_layers
    if counting.calls < n_layers:
        raise UnsupportedModel(f"{counting.calls} of its {n_layers} layers attend through the common interface")
    errors = (packed - plain).norm(dim=1) / plain.norm(dim=1)
    error = max(float(part.median()) for part in errors.split([response.n_scored for response in responses]))
    if not error <= TOLERANCE[model.dtype]:
        raise UnsupportedModel(f"packs differ from plain rows by {error:.1e} of their norm")
    return error


@dataclass
class _Counting:
    """Makes a pack's attention as `maker` does, and counts its calls."""

    maker: AttentionMaker
    calls: int = 0

    def __call__(self, *pack: Any) -> PackAttention:
        attention = self.maker(*pack)

        def counted(*call: Any) -> torch.Tensor:
            self.calls += 1
            return attention(*call)

        return counted


def scored_states(forward: Forward, layouts: list[Layout]) -> torch.Tensor:
    """Hidden states that predict the scored tokens, response by response: (M, D) fp32."""
    states = [forward(layout).flatten(0, 1)[layout.positions[: len(layout.owners)]] for layout in layouts]
    return torch.cat(states).float()


def probe_responses(model: PreTrainedModel) -> list[Response]:
    """Two prompts with two responses each, of unlike lengths, out of tokens from the whole vocabulary."""
    generator = np.random.default_rng(0)
    n_tokens = vocabulary_rows(model)

    def tokens(n: int) -> np.ndarray:
        return generator.integers(0, n_tokens, n).astype(np.int32)

    prompts = [tokens(13), tokens(5)]
    lengths = [(0, 9), (0, 17), (1, 6), (1, 11)]
    return [Response(prompts[prompt], tokens(n), np.ones(n, dtype=bool)) for prompt, n in lengths]
