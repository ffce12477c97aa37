"""What transformers calls instead of its own attention while a pack goes through a model.

A pack's plan travels as a keyword of the model's call down to here, so that it also survives gradient checkpointing.
The name must not contain "sdpa", "flash" or "flex": transformers would take it for one of its own.
"""

from typing import Any

import torch
from transformers import AttentionInterface
from transformers.masking_utils import AttentionMaskInterface

from stages.scoring.attention.contract import PackAttention, Terms, UnsupportedModel

NAME = "prefix_packs"


def register(*, within_graphs: bool = True) -> None:
    """Make the name known to transformers; unless it is `within_graphs`, torch.compile leaves the function as it is."""
    function = pack_attention if within_graphs else torch.compiler.disable(pack_attention)  # type: ignore[no-untyped-call]
    AttentionInterface.register(NAME, function)
    AttentionMaskInterface.register(NAME, window_marker)


def pack_attention(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    *,
    pack: PackAttention | None = None,
    scaling: float | None = None,
    dropout: float = 0.0,
    sliding_window: int | None = None,
    softcap: float | None = None,
    s_aux: torch.Tensor | None = None,
    **others: Any,
) -> tuple[torch.Tensor, None]:
    """The attention function of every layer; an argument that it does not know is never ignored.

    Raises:
        UnsupportedModel: the model wants something of its attention that packs do not give.
    """
    if pack is None:
        raise UnsupportedModel("the model does not hand the pack down to its attention")
    unknown = sorted(name for name, value in others.items() if not _harmless(name, value))
    if unknown:
        raise UnsupportedModel(f"its attention takes {', '.join(unknown)}")
    if dropout:
        raise UnsupportedModel(f"dropout is on ({dropout})")
    if not getattr(module, "is_causal", True):
        raise UnsupportedModel("its attention is not causal")
    if _marked_window(attention_mask) != sliding_window:
        raise UnsupportedModel("its mask asks for another window than its attention")
    scale = query.shape[-1] ** -0.5 if scaling is None else scaling
    return pack(query, key, value, Terms(scale, sliding_window, softcap, s_aux)), None


def window_marker(*, use_vmap: bool, device: torch.device, local_size: int | None = None, **_: Any) -> torch.Tensor:
    """The mask function: no mask, but an empty tensor whose shape says which window the model wants for its layer.

    So a layer whose window stands in its mask alone, and not in its call, is found out.

    Raises:
        UnsupportedModel: the model adds rules of its own to the causal one.
    """
    if use_vmap:
        raise UnsupportedModel("its mask has rules of its own")
    return torch.empty((1, 1 + (local_size or 0), 0, 0), device=device)


def _marked_window(mask: torch.Tensor | None) -> int | None:
    if mask is None or mask.dim() != 4 or mask.numel():
        raise UnsupportedModel("the model does not make its masks the common way")
    return mask.shape[1] - 1 or None


def _harmless(name: str, value: Any) -> bool:
    """Whether packs are right with it: what is off, and positions, which queries and keys have in them already."""
    if name == "is_causal":
        return value is not False
    return name == "position_ids" or value is None or value is False
