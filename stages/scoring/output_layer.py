"""Finds out how a model makes its logits from the decoder's output, by watching it do so once."""

from typing import Any

import torch
from torch.nn.functional import linear
from transformers import PreTrainedModel

from stages.scoring.head import OutputLayer

_PROBE_TOKENS = 8
_LARGE = 100.0  # what logits are brought up to in the probe, so that a cap shows


@torch.no_grad()
def find_output_layer(model: PreTrainedModel, decoder: torch.nn.Module) -> OutputLayer | None:
    """The output layer with the scale and soft cap that the model's configuration names, if these make its logits.

    None: they do not, and the model has to make its own logits.
    """
    head: Any = model.get_output_embeddings()  # type: ignore[no-untyped-call]
    if decoder is model or type(head) is not torch.nn.Linear:
        return None
    seen: dict[str, torch.Tensor] = {}

    def enlarge(_: torch.nn.Module, inputs: tuple[torch.Tensor, ...], output: torch.Tensor) -> torch.Tensor:
        seen["input"], seen["product"] = inputs[0], output
        seen["output"] = output * (_LARGE / output.abs().amax())
        return seen["output"]

    ids = torch.arange(_PROBE_TOKENS, device=model.device)[None] % len(head.weight)
    hidden = decoder(input_ids=ids, use_cache=False).last_hidden_state
    with head.register_forward_hook(enlarge):
        own = model(input_ids=ids, use_cache=False).logits
    layer = OutputLayer(head.weight, head.bias, _scale(model), _softcap(model))
    if "input" not in seen or not _close(seen["input"], hidden):
        return None
    if not _close(linear(hidden, head.weight, head.bias), seen["product"]):
        return None
    return layer if _close(layer.finish.logits(seen["output"], None), own) else None


def with_weights_of(model: PreTrainedModel, layer: OutputLayer) -> OutputLayer:
    """The layer with the weights as they are at this moment: a sharded model puts others in their place."""
    head: Any = model.get_output_embeddings()  # type: ignore[no-untyped-call]
    return layer._replace(weight=head.weight, bias=head.bias)


def _scale(model: PreTrainedModel) -> float:
    """Cohere multiplies its logits, Granite divides them, Falcon-H1 has a multiplier."""
    config: Any = model.config.get_text_config()
    times = _number(config, "logit_scale") or _number(config, "lm_head_multiplier") or 1.0
    return times / (_number(config, "logits_scaling") or 1.0)


def _softcap(model: PreTrainedModel) -> float | None:
    return _number(model.config.get_text_config(), "final_logit_softcapping")


def _number(config: Any, name: str) -> float | None:
    value = getattr(config, name, None)
    return float(value) if isinstance(value, int | float) else None  # MPT's logit_scale may be a word


def _close(ours: torch.Tensor, own: torch.Tensor) -> bool:
    tolerance = 1e-5 if own.dtype == torch.float32 else 2**-6
    return ours.shape == own.shape and torch.allclose(ours.float(), own.float(), rtol=tolerance, atol=tolerance)
