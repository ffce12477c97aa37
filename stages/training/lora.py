"""LoRA (arXiv 2106.09685): what of it is configured, and from what it can start."""

from pathlib import Path

from pydantic import Field

from data.errors import ConfigError
from data.settings import Settings
from stages.adapter_files import is_adapter
from stages.scoring.config import Quantization


class LoraSettings(Settings):
    """Section `train.lora`: an adapter to the start policy, which itself stays as it is. Names are peft's."""

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
    if lora is not None and is_adapter(start):
        raise ConfigError(
            f"train.lora asks for a new adapter, and the model that training starts from ({start}) is an adapter "
            "already; one on top of another is not supported. Take train.lora out of the configuration to train that "
            "adapter further, or merge it into its base with peft (`merge_and_unload`) and start from the result."
        )
    if quantization is not None and lora is None and not is_adapter(start):
        raise ConfigError(
            f"reference.quantization: {quantization} leaves weights that cannot be trained, so an adapter is needed: "
            "set train.lora (`lora: {}` takes its defaults), or take reference.quantization out of the configuration."
        )
