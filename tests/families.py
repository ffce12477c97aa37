"""Tiny random models of many families, built in this process."""

from typing import Any

import torch
from transformers import AutoConfig, AutoModelForCausalLM

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
    },
    "gemma3_text": {"sliding_window": 8, "layer_types": ["sliding_attention", "full_attention"] * 2},
    "phi3": {},
    "gpt2": {"n_embd": 32, "n_layer": 4, "n_head": 4, "n_inner": 64, "n_positions": 512},
    "gpt_neox": {},
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
    "gptj": {"n_embd": 32, "n_layer": 4, "n_head": 4, "n_positions": 512, "rotary_dim": 4, "n_inner": 64},
    "mamba2": {"num_heads": 8, "head_dim": 8, "state_size": 16, "n_groups": 1, "expand": 2, "chunk_size": 16},
}


def build(family: str, seed: int = 0, **changes: Any) -> Any:
    """A random model in fp32, in eval mode, without dropout."""
    settings = COMMON | (PACKED | ROWS)[family] | changes
    settings |= dict.fromkeys(("attn_pdrop", "embd_pdrop", "resid_pdrop", "attention_dropout", "hidden_dropout", "resid_dropout"), 0.0)
    settings |= {"embd_pdrop": 0.0, "embedding_dropout": 0.0, "residual_dropout": 0.0}
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return AutoModelForCausalLM.from_config(AutoConfig.for_model(family, **settings)).eval()
