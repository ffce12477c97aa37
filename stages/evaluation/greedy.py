"""Greedy decoding with transformers' `generate`, with nothing in it that a model's own generation settings ask for.

Prompts are padded on the left, and a mask says so: the padding token is often the end token.
"""

import gc
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import GenerationConfig, PreTrainedModel, StoppingCriteria, StoppingCriteriaList

from data.errors import ConfigError, EnvironmentProblem, out_of_memory
from data.tokens.encoding import Ids
from stages.scoring.bf16_products import fast_bf16_products
from stages.scoring.config import Numerics
from stages.scoring.generators import own_generators
from stages.scoring.model import device, device_name, load_model

_PASSES = 8  # a batch holds the keys and values of so many forward passes at most


@dataclass(frozen=True)
class Decoding:
    """How a response is decoded, and how long."""

    max_new_tokens: int
    end_ids: list[int]
    """It ends with the first of these; none: when it is cut off."""
    stop_requested: Callable[[], bool]
    """Asked before every token."""


def greedy_responses(
    folder: Path, numerics: Numerics, prompts: Sequence[Ids], decoding: Decoding
) -> Iterator[dict[int, Ids]]:
    """Responses of the model in `folder` by the places of their prompts, a batch at a time, end token and all.

    The model is loaded for the first batch and gone after the last. Random numbers are left alone. After a request
    to stop the batch that was under way is dropped, and nothing more comes.

    Raises:
        ConfigError, EnvironmentProblem: the model cannot be loaded, cannot generate, or one prompt is too much for it.
    """
    with own_generators(device()):
        model = _load(folder, numerics)
        queue = _batches(prompts, numerics.pack_tokens, decoding.max_new_tokens)
        while queue and not decoding.stop_requested():
            places = queue.pop(0)
            responses = _try_decode(model, [prompts[place] for place in places], decoding)
            if responses is None:
                _free()
                queue[:0] = _halves(places, folder)
            elif not decoding.stop_requested():
                yield dict(zip(places, responses, strict=True))
        del model
        _free()


def _load(folder: Path, numerics: Numerics) -> PreTrainedModel:
    model = load_model(folder, numerics.dtype, numerics.quantization)
    if not model.can_generate():
        raise ConfigError(
            f"eval.generate: the model {folder} ({type(model).__name__}) cannot generate text. Take eval.generate out "
            "of the configuration."
        )
    model.generation_config = _settings()  # `generate` would fill what is open from the model's own
    return model


def _batches(prompts: Sequence[Ids], pack_tokens: int, max_new_tokens: int) -> list[list[int]]:
    """Places of prompts of like length: in one pass at most `pack_tokens` tokens are read, 8 times as many are kept."""
    batches: list[list[int]] = []
    for place in sorted(range(len(prompts)), key=lambda place: len(prompts[place])):
        longest, rows = len(prompts[place]), len(batches[-1]) + 1 if batches else 0
        fits = rows * longest <= pack_tokens and rows * (longest + max_new_tokens) <= _PASSES * pack_tokens
        if batches and fits:
            batches[-1].append(place)
        else:
            batches.append([place])
    return batches


def _try_decode(model: PreTrainedModel, prompts: Sequence[Ids], decoding: Decoding) -> list[Ids] | None:
    """The responses to these prompts; None where memory ran out."""
    try:
        return _decode(model, prompts, decoding)
    except (RuntimeError, MemoryError) as error:
        if not out_of_memory(error):
            raise
        return None


def _decode(model: PreTrainedModel, prompts: Sequence[Ids], decoding: Decoding) -> list[Ids]:
    longest = max(map(len, prompts))
    padding = [longest - len(prompt) for prompt in prompts]
    pad, where = next(iter(decoding.end_ids), 0), model.device
    ids = torch.tensor([[pad] * n + prompt for n, prompt in zip(padding, prompts, strict=True)], device=where)
    mask = torch.tensor([[0] * n + [1] * len(prompt) for n, prompt in zip(padding, prompts, strict=True)], device=where)
    settings = _settings(
        do_sample=False, max_new_tokens=decoding.max_new_tokens, use_cache=True,
        eos_token_id=decoding.end_ids or None, pad_token_id=pad,
    )  # fmt: skip
    criteria = StoppingCriteriaList([_OnRequest(decoding.stop_requested)])
    generate: Any = model.generate
    with fast_bf16_products(where):
        found = generate(input_ids=ids, attention_mask=mask, generation_config=settings, stopping_criteria=criteria)
    return [_to_end(row, decoding.end_ids) for row in found[:, longest:].tolist()]


def _settings(**settings: Any) -> GenerationConfig:
    return GenerationConfig(**settings)  # type: ignore[no-untyped-call]


def _to_end(ids: Ids, end_ids: Sequence[int]) -> Ids:
    """The response without what fills its row up."""
    ends = [place for place, token in enumerate(ids) if token in end_ids]
    return ids[: ends[0] + 1] if ends else ids


class _OnRequest(StoppingCriteria):
    """Ends a batch before its time."""

    def __init__(self, requested: Callable[[], bool]) -> None:
        self._requested = requested

    def __call__(self, input_ids: torch.Tensor, scores: Any, **_: Any) -> torch.Tensor:
        return torch.full((len(input_ids),), self._requested(), device=input_ids.device, dtype=torch.bool)


def _halves(places: list[int], folder: Path) -> list[list[int]]:
    if len(places) == 1:
        raise EnvironmentProblem(
            f"Memory ran out on {device_name()} while the model {folder} answered a single prompt. Lower "
            "eval.generate.max_new_tokens, use reference.dtype: bfloat16, or take a larger device."
        )
    return [places[: len(places) // 2], places[len(places) // 2 :]]


def _free() -> None:
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
