"""The files of a model: where they lie, and what they are.

Identity is content and numerics: digests of the weights, the configuration that shapes the forward pass, dtypes, and
how attention is computed. Paths, names, batch sizes, devices, beta and learning rates are not in it.
"""

import json
from pathlib import Path
from typing import Any

from data.errors import ConfigError, one_line
from data.identity import DigestMemo
from stages.adapter_files import CONFIG, adapter_identity, base_of, check_adapter, is_adapter
from stages.scoring.config import Attention, Quantization

SCORING_VERSION = 3  # raised by hand when scoring code changes results
ENGINE = "pipeline"

_IRRELEVANT = {"_name_or_path", "_model_name_or_path", "transformers_version", "dtype", "torch_dtype", "use_cache"}
_TOKENIZER_FILES = (
    "tokenizer*", "special_tokens_map.json", "added_tokens.json", "vocab*", "merges.txt", "*.model",
    "chat_template*", "additional_chat_templates/*", "generation_config.json",
)  # fmt: skip
_SMALL_HUB_FILES = ["*.json", "*.model", "*.txt", "*.jinja"]
_WEIGHT_FILES = ["*.safetensors"]


def locate(model: str, revision: str | None, *, download: bool, weights: bool = True) -> Path | None:
    """The local folder of a model, or None where it is out of reach; without `weights` all but these is fetched.

    The folder may hold an adapter; its base is located, too.

    Raises:
        ConfigError: the folder holds no usable model, its base is out of reach, or the download failed.
    """
    folder = _find(model, revision, download=download, weights=weights)
    if folder is not None and is_adapter(folder):
        check_adapter(folder, weights=weights)
        _find_base(folder, download=download, weights=weights)
    return folder


def weights_folder(folder: Path) -> Path:
    """Where the whole model lies whose folder this is: there, or for an adapter where its base does.

    Raises:
        ConfigError: the base is out of reach.
    """
    return _find_base(folder, download=False, weights=True) if is_adapter(folder) else folder


def tokenizer_folder(folder: Path) -> Path:
    """Where the tokenizer of the model in `folder` lies: there, or for an adapter without one beside its base."""
    return folder if (folder / "tokenizer_config.json").is_file() else weights_folder(folder)


def _find_base(adapter: Path, *, download: bool, weights: bool) -> Path:
    model, revision = base_of(adapter)
    base = _find(model, revision, download=download, weights=weights)
    if base is None:
        raise ConfigError(
            f"{adapter} holds an adapter, and the model that it changes is out of reach: {adapter / CONFIG} calls it "
            f"{model}, which is neither a folder on this machine nor a model that the Hub (or its local cache, "
            "offline) has. Make it reachable, or correct base_model_name_or_path there."
        )
    if is_adapter(base):
        raise ConfigError(
            f"{adapter} holds an adapter to {base}, which is an adapter itself. Merge that one into its base with peft "
            f"(`merge_and_unload`), save the result, and name it under base_model_name_or_path in {adapter / CONFIG}."
        )
    return base


def _find(model: str, revision: str | None, *, download: bool, weights: bool) -> Path | None:
    folder = Path(model)
    if folder.is_dir():
        _check_folder(folder, weights=weights)
        return folder
    if model.startswith((".", "/", "~")) or model.count("/") > 1:
        return None
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HFValidationError, LocalEntryNotFoundError

    wanted = _SMALL_HUB_FILES + (_WEIGHT_FILES if weights else [])
    try:
        return Path(snapshot_download(model, revision=revision, allow_patterns=wanted, local_files_only=not download))
    except (LocalEntryNotFoundError, HFValidationError):
        return None
    except Exception as error:  # the hub client raises network, permission and id errors of many classes
        raise ConfigError(
            f"The model {model} is not a folder here and cannot be fetched from the Hub: {one_line(error)} "
            "Check the id, its revision, the network and your access."
        ) from error


def unreachable(key: str, model: str) -> ConfigError:
    """The error of a job that needs a model which is neither a folder nor to be had from the Hub."""
    return ConfigError(
        f"{key}: {model} is neither a folder on this machine nor a model that the Hub (or its local cache, offline) "
        f"has. Correct {key}, or make the model reachable, and run the same command again."
    )


def model_identity(
    folder: Path, dtype: str, attention: Attention, memo: DigestMemo, quantization: Quantization | None = None
) -> dict[str, Any]:
    """The full preimage of the id of the model in `folder`, computing in `dtype`.

    Raises:
        ConfigError: it is an adapter whose base is out of reach.
    """
    whole = weights_folder(folder)
    return {
        "engine": ENGINE,
        "scoring_version": SCORING_VERSION,
        "attention": attention,
        "compute_dtype": dtype,
        "head_dtype": "float32",
        "weights": sorted(memo.digest(path) for path in whole.glob("*.safetensors")),
        "config": _relevant(json.loads((whole / "config.json").read_bytes())),
        "adapter": adapter_identity(folder, memo) if is_adapter(folder) else None,
        "quantization": quantization,
    }


def tokenizer_digests(folder: Path, memo: DigestMemo) -> dict[str, str]:
    """Digests of the files that decide how text becomes tokens, of the model in `folder`."""
    folder = tokenizer_folder(folder)
    files = {path for pattern in _TOKENIZER_FILES for path in folder.glob(pattern) if path.is_file()}
    return {str(path.relative_to(folder)): memo.digest(path) for path in sorted(files)}


def _relevant(config: Any) -> Any:
    """A model configuration without what cannot change a log-prob; what is not known to be harmless stays."""
    if not isinstance(config, dict):
        return config
    return {
        key: _relevant(value)
        for key, value in config.items()
        if key not in _IRRELEVANT and not key.endswith("_token_id") and not key.startswith("output_")
    }


def _check_folder(folder: Path, *, weights: bool) -> None:
    if is_adapter(folder):
        return
    if not (folder / "config.json").is_file():
        raise ConfigError(
            f"{folder} is a folder but holds no config.json, so it is no Hugging Face model. Name the folder that "
            "`save_pretrained` wrote, or a Hub id."
        )
    if weights and not any(folder.glob("*.safetensors")):
        raise ConfigError(
            f"{folder} holds no *.safetensors file. Only safetensors weights are read, because other "
            "formats can run code; convert them with `AutoModelForCausalLM.from_pretrained(...).save_pretrained(...)`."
        )
