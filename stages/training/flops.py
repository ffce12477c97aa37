"""Model FLOPs utilisation: the share of a device's matrix rate that the arithmetic of training comes to.

As in PaLM (arXiv 2204.02311, appendix B): only what training cannot do without is counted. A product of a token with a
matrix of N parameters takes 2N operations forward, 2N for the gradient of its input, and 2N for that of its
parameters, where they are trained (of LoRA's frozen matrices they are not). Not counted: embedding look-ups, norms, the
optimiser, what gradient checkpointing computes again, the first look at a step that aot takes.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

from data.schema import TokenPair, unique_responses

PEAK_FLOPS = {
    "A100": 312e12,
    "A100 PCIE": 312e12,
    "A10": 125e12,
    "A10G": 70e12,
    "A40": 149.7e12,
    "RTX 3090": 71e12,
    "RTX A6000": 154.8e12,
    "L4": 121e12,
    "L40S": 362e12,
    "RTX 4090": 165.2e12,
    "H100": 989.5e12,
    "H100 PCIE": 756.5e12,
    "H100 NVL": 835.5e12,
    "H200": 989.5e12,
    "GH200": 989.5e12,
    "B200": 2250e12,
}
"""Operations a second in bf16 with fp32 sums, dense: NVIDIA's data sheets, half of what they give with sparsity."""
_KINDS = {"full_attention", "sliding_attention", "chunked_attention"}
_NOT_IN_KEYS = ("NVIDIA", "TESLA", "GEFORCE", "HBM", "SXM")


class Work(NamedTuple):
    """What a model has to compute of some pairs: each prompt once, and each response."""

    tokens: int
    context: int
    """Tokens that attention reads, itself included, summed over tokens."""
    scored: int
    """Positions whose logits are needed."""

    @classmethod
    def of(cls, pairs: Sequence[TokenPair]) -> "Work":
        """Of the pairs of a step."""
        responses = unique_responses(pairs)
        prompts = {response.prompt_ids.tobytes(): len(response.prompt_ids) for response in responses}.values()
        own = [len(response.ids) for response in responses]
        return cls(
            tokens=sum(prompts) + sum(own),
            context=sum(p * (p + 1) // 2 for p in prompts)
            + sum(len(r.prompt_ids) * n + n * (n + 1) // 2 for r, n in zip(responses, own, strict=True)),
            scored=sum(response.n_scored for response in responses),
        )


class ModelCost(NamedTuple):
    """What a model multiplies with, in parameters; `trained` ones are part of the others."""

    body: int
    """Of matrices that every token goes through."""
    body_trained: int
    head: int
    """Of the output layer, which only scored positions go through."""
    head_trained: int
    attention: int
    """Width of queries and keys, summed over layers."""

    def flops(self, work: Work) -> int:
        """Operations of a forward and backward pass: 6 a parameter and token, 4 where it is frozen, and attention.

        Attention: 2 for a query's product with a key and 2 for the value's sum, an element, and twice that backwards.
        """
        body = work.tokens * (4 * self.body + 2 * self.body_trained)
        head = work.scored * (4 * self.head + 2 * self.head_trained)
        return body + head + 12 * self.attention * work.context


class Utilisation:
    """Of a model on `devices` devices of one name."""

    def __init__(self, model: Any, device: str, dtype: str, devices: int) -> None:
        peak = peak_flops(device, dtype)
        self._cost = None if peak is None else model_cost(model)
        self._peak = (peak or 0.0) * devices

    def of(self, pairs: Sequence[TokenPair], seconds: float) -> dict[str, float]:
        """`mfu` of a step over these pairs, between 0 and 1; empty where it is not known."""
        return {} if self._cost is None else {"mfu": self._cost.flops(Work.of(pairs)) / (seconds * self._peak)}


def model_cost(model: Any) -> ModelCost | None:
    """Of a transformers model; None where its parameters do not tell: packed ones, experts, layers without attention.

    Layers whose attention has a window count with their matrices only.
    """
    config = model.config.get_text_config()
    kinds = getattr(config, "layer_types", None) or ["full_attention"] * config.num_hidden_layers
    heads = getattr(config, "num_attention_heads", None)
    experts = any("expert" in name and not name.startswith("_") for name in vars(config))
    if experts or not _KINDS.issuperset(kinds) or not isinstance(heads, int):
        return None
    decoder, output = model.get_decoder(), model.get_output_embeddings()
    head = _matrices(output) if output is not None else []
    not_in_body = {id(table) for table in _embeddings(decoder)} | {id(matrix) for matrix in head}
    body = [matrix for matrix in _matrices(decoder) if id(matrix) not in not_in_body]
    if not all(matrix.is_floating_point() for matrix in body):
        return None
    head_width = getattr(config, "head_dim", None) or config.hidden_size // heads
    return ModelCost(
        *(_parameters(body), _parameters(p for p in body if p.requires_grad)),
        *(_parameters(head), _parameters(p for p in head if p.requires_grad)),
        attention=kinds.count("full_attention") * heads * head_width,
    )


def peak_flops(device: str, dtype: str) -> float | None:
    """Of a GPU by its name, computing in `dtype`; None where it is not known: a CPU, a slice of a GPU, fp32."""
    if dtype != "bfloat16":
        return None
    words = [word for word in device.upper().replace("-", " ").split() if not _is_noise(word)]
    return PEAK_FLOPS.get(" ".join(words))


def _is_noise(word: str) -> bool:
    return word.startswith(_NOT_IN_KEYS) or (word.endswith("GB") and word[:-2].isdigit())


def _matrices(module: Any) -> list[Any]:
    return [parameter for parameter in module.parameters() if parameter.dim() >= 2]


def _embeddings(decoder: Any) -> list[Any]:
    from torch import nn

    return [module.weight for module in decoder.modules() if isinstance(module, nn.Embedding)]


def _parameters(tensors: Any) -> int:
    return sum(tensor.numel() for tensor in tensors)
