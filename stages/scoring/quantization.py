"""Models whose linear layers are kept in 4 or 8 bits, by bitsandbytes; all else stays in the compute dtype."""

import logging
from collections.abc import Iterable
from typing import Any

import torch
from transformers import BitsAndBytesConfig, PreTrainedModel

from data.errors import ConfigError
from stages.scoring.config import Quantization


def quantization_config(quantization: Quantization, dtype: torch.dtype) -> BitsAndBytesConfig:
    """What transformers needs to know to load a model so.

    Raises:
        ConfigError: bitsandbytes is not installed.
    """
    _require_bitsandbytes()
    if quantization == "nf4":  # QLoRA (arXiv 2305.14314)
        return BitsAndBytesConfig(  # type: ignore[no-untyped-call]
            load_in_4bit=True,
            bnb_4bit_quant_type="nf4",
            bnb_4bit_use_double_quant=True,
            bnb_4bit_compute_dtype=dtype,
        )
    # No outlier columns: which ones LLM.int8 (arXiv 2208.07339) leaves in 16 bits depends on what else is in the pass.
    return BitsAndBytesConfig(load_in_8bit=True, llm_int8_threshold=0.0)  # type: ignore[no-untyped-call]


def keep_differentiable(model: PreTrainedModel) -> None:
    """Keep 4-bit weights as gradients need them.

    On some CPUs bitsandbytes lays them out anew for inference at the first pass without gradients, and no gradient
    gets through them from then on, without a word.
    """
    modules: Iterable[Any] = model.modules()
    for module in modules:
        if hasattr(module, "support_avx512bf16_for_cpu"):
            module.support_avx512bf16_for_cpu = False


def _require_bitsandbytes() -> None:
    # It warns of a kernel that it does without, and at each call that int8 has a cast to 16 bits in it.
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)
    try:
        import bitsandbytes  # noqa: F401
    except ImportError as error:
        raise ConfigError(
            "reference.quantization needs the packages bitsandbytes and peft. Install them: pip install "
            "'offline-preference-pipeline[qlora]'. Or take reference.quantization out of the configuration."
        ) from error
