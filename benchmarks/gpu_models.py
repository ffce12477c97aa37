"""The models of the benchmark: shapes of real models as numbers, with random weights made where they are needed.

Each shape is what the config.json of that model says on the Hugging Face Hub (`source`). Nothing is downloaded: speed
and memory do not depend on what the weights are, nor on what the tokens mean.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel

import pipeline  # noqa: F401 - finds our packages
from stages.training.model_sizes import Sizes


@dataclass(frozen=True)
class Shape:
    """A decoder built like Llama. D is `width`, F `mlp`, V `vocabulary`."""

    source: str
    family: str
    layers: int
    width: int
    mlp: int
    heads: int
    key_heads: int
    head: int
    """Width of a head."""
    vocabulary: int
    tied: bool
    """Whether the output layer is the embedding."""
    rope_theta: float

    def config(self) -> Any:
        """For transformers."""
        qwen2 = {"use_sliding_window": False} if self.family.startswith("qwen") else {}
        return AutoConfig.for_model(
            self.family,
            num_hidden_layers=self.layers,
            hidden_size=self.width,
            intermediate_size=self.mlp,
            num_attention_heads=self.heads,
            num_key_value_heads=self.key_heads,
            head_dim=self.head,
            vocab_size=self.vocabulary,
            tie_word_embeddings=self.tied,
            rope_parameters={"rope_type": "default", "rope_theta": self.rope_theta},
            max_position_embeddings=8192,
            rms_norm_eps=1e-6,
            pad_token_id=0,
            bos_token_id=1,
            eos_token_id=2,
            **qwen2,
        )

    def sizes(self) -> Sizes:
        """For the estimate of memory."""
        queries, keys = self.heads * self.head, self.key_heads * self.head
        return Sizes(self.family, self.layers, self.width, self.mlp, queries, keys, self.vocabulary)

    def weights(self) -> Iterator[tuple[str, tuple[int, ...]]]:
        """Names and shapes, biases and the norms of single heads aside."""
        queries, keys = self.heads * self.head, self.key_heads * self.head
        matrices = {
            "q_proj": (queries, self.width),
            "k_proj": (keys, self.width),
            "v_proj": (keys, self.width),
            "o_proj": (self.width, queries),
            "gate_proj": (self.mlp, self.width),
            "up_proj": (self.mlp, self.width),
            "down_proj": (self.width, self.mlp),
        }
        for layer in range(self.layers):
            yield from ((f"layers.{layer}.{name}.weight", shape) for name, shape in matrices.items())
            yield from ((f"layers.{layer}.{name}.weight", (self.width,)) for name in ("norm", "second_norm"))
        yield "norm.weight", (self.width,)
        for name in ("embed_tokens",) if self.tied else ("embed_tokens", "lm_head"):
            yield f"{name}.weight", (self.vocabulary, self.width)

    @property
    def body(self) -> int:
        """Parameters of matrices that every token goes through."""
        attention = 2 * self.width * (self.heads + self.key_heads) * self.head
        return self.layers * (attention + 3 * self.width * self.mlp)

    @property
    def head_size(self) -> int:
        """Parameters of the output layer."""
        return self.vocabulary * self.width


SHAPES = {
    "toy": Shape("none: a shape for tests", "llama", 2, 64, 128, 4, 2, 16, 512, True, 1e4),
    "135m": Shape("HuggingFaceTB/SmolLM2-135M", "llama", 30, 576, 1536, 9, 3, 64, 49_152, True, 1e5),
    "0.5b": Shape("Qwen/Qwen2.5-0.5B", "qwen2", 24, 896, 4864, 14, 2, 64, 151_936, True, 1e6),
    "1.7b": Shape("Qwen/Qwen3-1.7B", "qwen3", 28, 2048, 6144, 16, 8, 128, 151_936, True, 1e6),
    "3b": Shape("meta-llama/Llama-3.2-3B", "llama", 28, 3072, 8192, 24, 8, 128, 128_256, True, 5e5),
    "8b": Shape("meta-llama/Llama-3.1-8B", "llama", 32, 4096, 14_336, 32, 8, 128, 128_256, False, 5e5),
}
"""By the names that cells give them. Of Llama 3 the scaling of rotary frequencies is left out: it costs nothing."""


def random_model(shape: Shape, dtype: str, device: str, seed: int = 0, **changes: Any) -> PreTrainedModel:
    """A model of this shape, made on the device in its dtype, as the jobs hold theirs: eval mode, no cache."""
    config = shape.config()
    for name, value in changes.items():
        setattr(config, name, value)
    with torch.random.fork_rng(), torch.device(device):
        torch.manual_seed(seed)
        model: PreTrainedModel = AutoModelForCausalLM.from_config(  # type: ignore[no-untyped-call]
            config, dtype=getattr(torch, dtype)
        )
    embeddings: Any = model.get_input_embeddings()
    embeddings.padding_idx = None  # as in stages/scoring/model.py
    model.eval()  # type: ignore[no-untyped-call]
    model.config.use_cache = False
    return model
