"""What a model's folder may not do: lead to files outside of it, to weights that can run code, or to other programs.

A folder comes from somebody else. transformers follows what its JSON says: an index of shards may name any path, and
weights in any format; a configuration may name an attention kernel, which is compiled code from the Hub.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from data.errors import ConfigError

_INDEX = "*.index.json"
_KERNELS = ("attn_implementation", "experts_implementation")


def check_folder_is_safe(folder: Path) -> None:
    """Refuse a model whose files would reach out of its folder, or run code.

    Raises:
        ConfigError: it would; the file and what it names are said.
    """
    for index in folder.glob(_INDEX):
        for name in _values(_read(index).get("weight_map", {})):
            if not _is_safe(name, ".safetensors"):
                raise _refused(index, name)
    config = _read(folder / "config.json")
    weights = config.get("transformers_weights")
    if weights is not None and not _is_safe(weights, ".safetensors", ".safetensors.index.json"):
        raise _refused(folder / "config.json", weights)
    for key, kernel in _kernels(config):
        raise ConfigError(
            f"{folder / 'config.json'} has {key}: {kernel}, which is a kernel on the Hub: compiled code of others, and "
            f"code that comes with a model is never run. Remove {key} from that file."
        )


def _refused(file: Path, named: Any) -> ConfigError:
    return ConfigError(
        f"{file} names {named} as a file of weights. Only safetensors files that lie beside it are read, because other "
        "formats can run code, and other places belong to other models. Copy the model again, or save it anew with "
        "`save_pretrained`."
    )


def _is_safe(name: Any, *endings: str) -> bool:
    return isinstance(name, str) and Path(name).name == name and name.endswith(endings)


def _kernels(config: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """Keys of a configuration, however deep, whose value is the id of something on the Hub rather than a name."""
    for key, value in config.items():
        if key.lstrip("_") in _KERNELS:
            yield from ((key, name) for name in _values(value) if "/" in str(name))
        elif isinstance(value, dict):
            yield from _kernels(value)


def _values(value: Any) -> list[Any]:
    return list(value.values()) if isinstance(value, dict) else [value]


def _read(file: Path) -> dict[str, Any]:
    """What a file says; nothing where it is no JSON object: then transformers cannot read it either, and says so."""
    try:
        return dict(json.loads(file.read_bytes()))
    except (OSError, ValueError, TypeError):
        return {}
