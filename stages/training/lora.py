"""LoRA (arXiv 2106.09685): what of it is configured, and from what it can start."""

from pathlib import Path
from typing import Any

from pydantic import Field

from data.errors import ConfigError
from data.field_diff import field_diff
from data.settings import Settings
from stages.adapter_files import adapter_config, is_adapter
from stages.scoring.config import Quantization


class LoraSettings(Settings):
    """Section `train.lora`: an adapter to the start policy, which itself stays as it is. Names are peft's.

    A start policy that is such an adapter already is trained further.
    """

    r: int = Field(default=16, ge=1)
    """Rank: columns of A and rows of B in W + s A B, whose B is 0 in the beginning."""
    lora_alpha: int = Field(default=32, ge=1)
    """s is lora_alpha / r, or with use_rslora lora_alpha / sqrt(r)."""
    target_modules: str | list[str] = "all-linear"
    """The layers that get an adapter: `all-linear` (all but the output layer), or names such as [q_proj, v_proj]."""
    use_rslora: bool = False
    """Divide by the square root of the rank (arXiv 2312.03732), so that a higher one does not learn more slowly."""


def check_start(start: Path, lora: LoraSettings | None, quantization: Quantization | None) -> None:
    """Refuse what cannot be trained.

    Raises:
        ConfigError: a second adapter on top of one, or all of a quantised model.
    """
    if lora is not None and is_adapter(start) and (differences := _differences(lora, start)):
        raise ConfigError(
            f"train.lora asks for another adapter than the one that training starts from ({start}): "
            f"{'; '.join(differences)}. One on top of another is not supported. Take train.lora out of the "
            "configuration to train that adapter further, or merge it into its base with peft (`merge_and_unload`) and "
            "start from the result."
        )
    if quantization is not None and lora is None and not is_adapter(start):
        raise ConfigError(
            f"reference.quantization: {quantization} leaves weights that cannot be trained, so an adapter is needed: "
            "set train.lora (`lora: {}` takes its defaults), or take reference.quantization out of the configuration."
        )


def _differences(lora: LoraSettings, adapter: Path) -> list[str]:
    """What of the settings an adapter does not have; which layers `all-linear` are, only a model could say."""
    held, wanted = adapter_config(adapter), lora.model_dump()
    if lora.target_modules == "all-linear":
        del wanted["target_modules"]
    else:
        held = held | {"target_modules": _sorted(held.get("target_modules"))}
        wanted["target_modules"] = _sorted(lora.target_modules)
    return field_diff({name: held.get(name) for name in wanted}, wanted)


def _sorted(names: Any) -> Any:
    return sorted(names) if isinstance(names, list) else names
