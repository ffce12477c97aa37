"""LoRA adapters (arXiv 2106.09685) on a loaded model, in place: its class stays, and no adapter is ever merged.

The adapters' weights are in the model's compute dtype and require gradients, those of the base do not.
"""

import logging
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from transformers import PreTrainedModel

from data.errors import ConfigError, one_line
from stages.adapter_files import WEIGHTS
from stages.scoring.generators import own_generators

_NAME = "default"
_PREFIX = "base_model.model."  # of the names of tensors in a file, peft's


def load_adapter(model: PreTrainedModel, folder: Path) -> None:
    """Put the adapter in `folder` on its base.

    Raises:
        ConfigError: it does not fit, or peft is not installed.
    """
    peft = import_peft()
    try:
        config = peft.PeftConfig.from_pretrained(folder)
        config.inference_mode = False  # as saved it is true, and the adapter would be frozen
        inject(model, config, seed=0)
        loaded = peft.set_peft_model_state_dict(model, load_file(folder / WEIGHTS), adapter_name=_NAME)
    except (OSError, ValueError, RuntimeError, KeyError, TypeError, SafetensorError) as error:
        raise ConfigError(
            f"The adapter in {folder} cannot be put on the model that it changes: {one_line(error)} Check "
            "base_model_name_or_path in its adapter_config.json, and the version of peft."
        ) from error
    missing = sorted(set(loaded.missing_keys) & {name for name, p in model.named_parameters() if p.requires_grad})
    unexpected = sorted(loaded.unexpected_keys)
    if missing or unexpected:
        raise ConfigError(
            f"The adapter in {folder} does not fit the model that it changes: {len(missing)} of its tensors are "
            f"missing ({', '.join(missing[:3]) or 'none'}), {len(unexpected)} have no place in the model "
            f"({', '.join(unexpected[:3]) or 'none'}). Check base_model_name_or_path in its adapter_config.json."
        )


def inject(model: PreTrainedModel, config: Any, seed: int) -> None:
    """Put a new adapter on the model, with the random values of `seed`; the global generators stay where they are."""
    peft = import_peft()
    with own_generators(model.device):
        torch.manual_seed(seed)
        peft.inject_adapter_in_model(config, model, adapter_name=_NAME)
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.data = parameter.data.to(model.dtype)
    model.eval()  # type: ignore[no-untyped-call]  # peft's new modules are in training mode


def save_adapter(
    model: PreTrainedModel,
    folder: Path,
    base: str,
    revision: str | None,
    state: dict[str, torch.Tensor] | None = None,
) -> None:
    """Write the model's adapter as peft does, so that peft, transformers and we load it on `base`.

    `state` has the tensors of a sharded model.
    """
    peft = import_peft()
    config: Any = model.peft_config[_NAME]
    config.base_model_name_or_path, config.revision, config.inference_mode = base, revision, True
    for field, value in vars(config).items():
        if isinstance(value, set):  # which would come in another order each time
            setattr(config, field, sorted(value))
    config.save_pretrained(folder)
    tensors = peft.get_peft_model_state_dict(model, state, adapter_name=_NAME, save_embedding_layers=False)
    named = {f"{_PREFIX}{name}": tensor.contiguous() for name, tensor in tensors.items()}
    save_file(named, folder / WEIGHTS, metadata={"format": "pt"})


def is_adapted(model: PreTrainedModel) -> bool:
    """Whether the model has an adapter."""
    return hasattr(model, "peft_config")


def import_peft() -> Any:
    """The package that adapters come from.

    Raises:
        ConfigError: it is not installed.
    """
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)  # peft imports it; it warns of a kernel it does without
    try:
        import peft
    except ImportError as error:
        raise ConfigError(
            "Adapters (train.lora, or a model that is one) need the package peft. Install it: pip install "
            "'offline-preference-pipeline[lora]'."
        ) from error
    return peft
