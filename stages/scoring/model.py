"""Loads a causal language model the same way in every job: one dtype policy, no dropout, no cache."""

import logging
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from transformers import AutoModelForCausalLM, PreTrainedModel
from transformers.utils.logging import disable_progress_bar

from data.errors import OWN_CODE, ConfigError, DataError, EnvironmentProblem, one_line, wants_its_own_code
from data.schema import Response
from stages.adapter_files import is_adapter
from stages.model_files import weights_folder
from stages.model_safety import check_folder_is_safe
from stages.scoring.adapter import load_adapter
from stages.scoring.allocator import keep_freed_memory
from stages.scoring.config import Quantization
from stages.scoring.quantization import keep_differentiable, quantization_config

logger = logging.getLogger(__name__)

disable_progress_bar()  # type: ignore[no-untyped-call]  # transformers' own bars: the jobs have theirs


def device() -> torch.device:
    """Where this process computes: its own of the visible GPUs (torchrun numbers processes), otherwise the CPU."""
    if not torch.cuda.is_available():
        return torch.device("cpu")
    torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")) % torch.cuda.device_count())
    return torch.device("cuda", torch.cuda.current_device())


def device_name() -> str:
    """The device as people call it."""
    if torch.cuda.is_available():
        return torch.cuda.get_device_name()
    return f"cpu {torch.backends.cpu.get_cpu_capability()}"


def load_model(folder: Path, dtype: str, quantization: Quantization | None = None) -> PreTrainedModel:
    """The model in `folder`, in `dtype`, on this process's device, in eval mode.

    Eval mode is for good, in training too: dropout off is what makes training and scoring the same function.
    All of it requires gradients, but of an adapter on its base the adapter alone, of a quantised model no linear layer.

    Raises:
        ConfigError: the weights do not fit the configuration. EnvironmentProblem: no memory for them.
    """
    keep_freed_memory()
    model = _load_whole(weights_folder(folder), dtype, quantization)
    if is_adapter(folder):
        load_adapter(model, folder)
    _no_padding_token(model)
    _heed_soft_caps(model)
    model.eval()  # type: ignore[no-untyped-call]
    model.config.use_cache = False
    return model


def _load_whole(folder: Path, dtype: str, quantization: Quantization | None) -> PreTrainedModel:
    check_folder_is_safe(folder)
    options: dict[str, Any] = {"dtype": getattr(torch, dtype), "trust_remote_code": False}  # left open, it would ask
    if quantization is not None:
        options["quantization_config"] = quantization_config(quantization, options["dtype"])
        options["device_map"] = {"": device()}  # quantised as it is loaded, and not to be moved
    # from_pretrained(dtype=...), never .to(dtype): the latter also casts rotary frequencies.
    try:
        loaded: Any = AutoModelForCausalLM.from_pretrained(
            folder, **options, local_files_only=True, use_safetensors=True, output_loading_info=True
        )
        model: PreTrainedModel = loaded[0]
        if quantization is None:
            model.to(device())  # type: ignore[arg-type]  # transformers annotates this method for tensors
    except torch.OutOfMemoryError as error:
        raise EnvironmentProblem(
            f"The model {folder} does not fit into the memory of {device_name()} in {dtype}. Use reference.dtype: "
            "bfloat16, or a larger device."
        ) from error
    except (OSError, ValueError, RuntimeError, KeyError, SafetensorError) as error:
        if wants_its_own_code(error):
            raise ConfigError(f"The model {folder} {OWN_CODE}") from error
        raise ConfigError(
            f"The model {folder} cannot be loaded: {one_line(error)} A causal language model with "
            "safetensors weights is needed, of an architecture that the installed transformers knows."
        ) from error
    _check_complete(folder, loaded[1])
    keep_differentiable(model)
    return model


def check_vocabulary(model: PreTrainedModel, responses: Iterable[Response]) -> None:
    """Refuse token ids that the model has no embedding for.

    Raises:
        DataError: with the first such id.
    """
    rows = vocabulary_rows(model)
    for response in responses:
        highest = max(int(response.prompt_ids.max()), int(response.ids.max()))
        if highest >= rows:
            raise DataError(
                f"The data hold token id {highest}, and the model has embeddings for {rows} tokens. The tokenizer is "
                "not this model's: check reference.model (its folder's tokenizer made the pairs) and train.model."
            )


def repeated_layers(model: Any) -> list[torch.nn.Module]:
    """The repeated layers, as the model itself names them; of some models none."""
    names = set(model._no_split_modules or ())
    return [module for module in model.modules() if type(module).__name__ in names]


def vocabulary_rows(model: PreTrainedModel) -> int:
    """Number of tokens that the model has an embedding for."""
    weight = model.get_input_embeddings().weight
    assert isinstance(weight, torch.Tensor)
    return weight.shape[0]


def _no_padding_token(model: PreTrainedModel) -> None:
    """Give every token its gradient: an embedding's padding token has none, and it is often the end token, too."""
    embeddings: Any = model.get_input_embeddings()
    if getattr(embeddings, "padding_idx", None) is not None:
        embeddings.padding_idx = None


def _heed_soft_caps(model: PreTrainedModel) -> None:
    """Keep torch's own attention, which knows no soft caps, from models with some; transformers does from 5.21 on."""
    capped = getattr(model.config.get_text_config(), "attn_logit_softcapping", None) is not None
    if capped and model.config._attn_implementation == "sdpa":
        model.set_attn_implementation("eager")


def _check_complete(folder: Path, info: dict[str, Any]) -> None:
    missing = sorted(info["missing_keys"])
    mismatched = sorted(str(entry) for entry in info["mismatched_keys"])
    if missing or mismatched:
        raise ConfigError(
            f"The weights in {folder} do not fit its config.json: {len(missing)} tensors are missing "
            f"({', '.join(missing[:3]) or 'none'}), {len(mismatched)} have another shape "
            f"({', '.join(mismatched[:3]) or 'none'}). They would be random numbers; copy the folder again."
        )
    if info["unexpected_keys"]:
        logger.warning("%s: %d tensors are not used by the model", folder, len(info["unexpected_keys"]))
