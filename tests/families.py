"""Tiny random models of many families, random responses, and the plain computation that scores are held against."""

from collections.abc import Iterable
from typing import Any

import numpy as np
import torch
import transformers
from packaging.version import Version
from transformers import AutoConfig, AutoModelForCausalLM

from data.schema import Response

COMMON: dict[str, Any] = {
    "vocab_size": 320,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "max_position_embeddings": 512,
    "initializer_range": 0.2,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 2,
}
# Windows of 8 tokens, so that they matter for sequences of tens.
PACKED: dict[str, dict[str, Any]] = {
    "llama": {},
    "qwen2": {},
    "qwen3": {},
    "mistral": {"sliding_window": 8},
    "gemma2": {
        "sliding_window": 8,
        "attn_logit_softcapping": 2.0,
        "final_logit_softcapping": 3.0,
        "query_pre_attn_scalar": 8,
        "attn_implementation": "eager",  # transformers before 5.21 takes one that knows no soft caps
    },
    "gemma3_text": {"sliding_window": 8, "layer_types": ["sliding_attention", "full_attention"] * 2},
    "phi3": {},
    "gpt2": {"n_embd": 32, "n_layer": 4, "n_head": 4, "n_inner": 64, "n_positions": 512},
    "gpt_neox": {},
    "gptj": {"n_embd": 32, "n_layer": 4, "n_head": 4, "n_positions": 512, "rotary_dim": 4, "n_inner": 64},
    "olmo2": {},
    "cohere2": {"sliding_window": 8, "logit_scale": 0.5, "layer_types": ["sliding_attention", "full_attention"] * 2},
    "granite": {
        "logits_scaling": 4.0,
        "residual_multiplier": 0.7,
        "embedding_multiplier": 2.0,
        "attention_multiplier": 0.3,
    },
    "smollm3": {},
    "starcoder2": {"sliding_window": 8},
    "gpt_oss": {"sliding_window": 8, "num_local_experts": 4, "num_experts_per_tok": 2},
    "mixtral": {"num_local_experts": 4, "num_experts_per_tok": 2, "sliding_window": None},
}
ROWS: dict[str, dict[str, Any]] = {
    "falcon": {"alibi": False, "new_decoder_architecture": False, "multi_query": True},
    "bloom": {"n_layer": 4, "n_head": 4},
    "mpt": {"d_model": 32, "n_heads": 4, "n_layers": 4, "max_seq_len": 512, "expansion_ratio": 2},
    "mamba2": {"num_heads": 8, "head_dim": 8, "state_size": 16, "n_groups": 1, "expand": 2, "chunk_size": 16},
}
if Version(transformers.__version__) < Version("5.24"):  # where its attention cannot be replaced
    ROWS["gptj"] = PACKED.pop("gptj")


def build(family: str, seed: int = 0, **changes: Any) -> Any:
    """A random model in fp32, in eval mode, without dropout."""
    dropouts = ("attn_pdrop", "embd_pdrop", "resid_pdrop", "attention_dropout", "hidden_dropout")
    more = ("resid_dropout", "embedding_dropout", "residual_dropout")
    settings = COMMON | (PACKED | ROWS)[family] | dict.fromkeys(dropouts + more, 0.0) | changes
    if family == "falcon":
        del settings["head_dim"]  # it has no such setting
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = AutoModelForCausalLM.from_config(AutoConfig.for_model(family, **settings)).eval()
    if family == "gpt_oss":
        for layer in model.model.layers:
            layer.self_attn.sinks.data = torch.linspace(-1, 2, layer.self_attn.sinks.numel())
    return model


def random_responses(
    n: int, vocab: int = 320, seed: int = 0, siblings: int = 1, longest: tuple[int, int] = (29, 39)
) -> list[Response]:
    """Responses of many lengths, `siblings` to each prompt; not all of their tokens are scored.

    Some hold the padding id and the end id. `longest`: tokens of prompt and response.
    """
    rng = np.random.default_rng(seed)
    responses: list[Response] = []
    for index in range(n):
        if index % siblings == 0:
            prompt = rng.integers(0, vocab, rng.integers(1, longest[0] + 1)).astype(np.int32)
        else:
            prompt = responses[-1].prompt_ids
        ids = rng.integers(0, vocab, rng.integers(1, longest[1] + 1)).astype(np.int32)
        mask = rng.random(len(ids)) < 0.8
        mask[len(ids) // 2] = True
        responses.append(Response(prompt, ids, mask))
    return responses


def make_response(prompt: Iterable[int], ids: Iterable[int], mask: Iterable[int] | None = None) -> Response:
    """A response out of numbers; every token is scored unless a mask of zeros and ones says otherwise."""
    tokens = np.array(list(ids), dtype=np.int32)
    scored = np.ones(len(tokens), dtype=bool) if mask is None else np.array(list(mask), dtype=bool)
    return Response(np.array(list(prompt), dtype=np.int32), tokens, scored)


def naive_sum(model: Any, response: Response) -> torch.Tensor:
    """Sum of log p of the scored tokens, from the model's own logits over the unpadded sequence."""
    ids = torch.tensor(np.concatenate([response.prompt_ids, response.ids]), dtype=torch.long)
    logps = torch.log_softmax(model(input_ids=ids[None]).logits[0].double(), dim=-1)
    start = len(response.prompt_ids)
    scored = [logps[start + i - 1, response.ids[i]] for i in range(len(response.ids)) if response.mask[i]]
    return torch.stack(scored).sum()


def gradients(model: Any, loss: torch.Tensor) -> torch.Tensor:
    """All gradients of a loss in one vector; none are left behind."""
    loss.backward()
    flat = [(torch.zeros_like(p) if p.grad is None else p.grad).flatten() for p in model.parameters()]
    model.zero_grad()
    return torch.cat(flat)


def relative_difference(ours: torch.Tensor, theirs: torch.Tensor) -> float:
    """L2, as a share of theirs."""
    return float((ours - theirs).norm() / theirs.norm())
