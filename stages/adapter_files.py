"""Adapter folders, as peft writes them: a few weights (LoRA), and the name of the base that they change.

adapter_config.json         what the adapter is, and under `base_model_name_or_path` what it changes
adapter_model.safetensors   its weights
"""

import json
from pathlib import Path
from typing import Any

from data.errors import ConfigError
from data.identity import DigestMemo

CONFIG = "adapter_config.json"
WEIGHTS = "adapter_model.safetensors"

# No part of what an adapter computes: where the base lies, who wrote the file, how it was trained.
_IRRELEVANT = {
    "base_model_name_or_path", "revision", "auto_mapping", "peft_version", "task_type", "inference_mode",
    "lora_dropout",
}  # fmt: skip


def is_adapter(folder: Path) -> bool:
    """Whether the folder holds an adapter rather than a whole model."""
    return (folder / CONFIG).is_file()


def check_adapter(folder: Path, *, weights: bool = True) -> None:
    """Refuse an adapter that cannot be used; without `weights` these need not be there.

    Raises:
        ConfigError: it cannot.
    """
    config = adapter_config(folder)
    if (folder / "config.json").is_file():
        raise ConfigError(
            f"{folder} holds config.json and {CONFIG}: a whole model and an adapter, and which is meant cannot be "
            "told. Move one of them to a folder of its own."
        )
    if config.get("peft_type") != "LORA":
        raise ConfigError(
            f"{folder / CONFIG} says peft_type: {config.get('peft_type')}. Of adapters only LORA can be used; merge "
            "another kind into its base with peft (`merge_and_unload`) and name the merged model."
        )
    if weights and not (folder / WEIGHTS).is_file():
        raise ConfigError(
            f"{folder} holds an adapter but no {WEIGHTS}. Only safetensors weights are read, because other formats can "
            "run code; load it with peft and save it again with `save_pretrained`."
        )
    if not config.get("base_model_name_or_path"):
        raise ConfigError(
            f"{folder / CONFIG} does not say which model the adapter changes. Put the base's Hub id or folder under "
            "base_model_name_or_path."
        )


def base_of(folder: Path) -> tuple[str, str | None]:
    """Hub id or folder of the base that the adapter in `folder` changes, and its revision."""
    config = adapter_config(folder)
    return str(config["base_model_name_or_path"]), config.get("revision")


def adapter_identity(folder: Path, memo: DigestMemo) -> dict[str, Any]:
    """What belongs to a model's identity because of the adapter in `folder`; its base is identified by itself."""
    return {"weights": memo.digest(folder / WEIGHTS), "config": _relevant(adapter_config(folder))}


def _relevant(config: dict[str, Any]) -> dict[str, Any]:
    """Of its configuration what may change a log-prob; a field that is off is as one that peft does not know yet."""
    return {
        key: sorted(value) if isinstance(value, list) and all(isinstance(item, str) for item in value) else value
        for key, value in config.items()
        if value and key not in _IRRELEVANT
    }


def adapter_config(folder: Path) -> dict[str, Any]:
    """What adapter_config.json says."""
    try:
        return dict(json.loads((folder / CONFIG).read_bytes()))
    except (ValueError, TypeError) as error:
        raise ConfigError(f"{folder / CONFIG} is not a JSON object ({error}). Copy the adapter again.") from error
