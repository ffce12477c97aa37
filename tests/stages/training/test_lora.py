"""What of LoRA is configured, how it enters a run's identity, and what cannot be trained."""

import json

import pytest

from data.errors import ConfigError
from stages.training.config import TrainConfig
from stages.training.lora import LoraSettings, check_start
from tests.tiny import save_adapter


def test_runs_without_it_keep_the_identity_that_they_had():
    assert "lora" not in TrainConfig().identity()
    ranks = [TrainConfig(lora={"r": r}).identity()["lora"] for r in (4, 8)]
    assert ranks[0] == {"r": 4, "lora_alpha": 32, "target_modules": "all-linear", "use_rslora": False} != ranks[1]


def test_every_setting_is_a_field_of_pefts_own_configuration():
    from peft import LoraConfig

    settings = LoraSettings(r=4, lora_alpha=7, target_modules=["q_proj"], use_rslora=True).model_dump()
    config = LoraConfig(**settings)
    assert {name: getattr(config, name) for name in settings} == settings | {"target_modules": {"q_proj"}}
    assert config.lora_dropout == 0


def test_an_adapter_is_trained_further_and_no_other_put_on_top(model_folder, tmp_path):
    adapter = save_adapter(tmp_path / "adapter", model_folder)
    own = json.loads((adapter / "adapter_config.json").read_text())
    same = LoraSettings(**{name: own[name] for name in ("r", "lora_alpha", "use_rslora")})
    check_start(adapter, None, "nf4")
    check_start(adapter, same, None)
    check_start(adapter, same.model_copy(update={"target_modules": own["target_modules"][::-1]}), None)
    check_start(model_folder, LoraSettings(), "nf4")
    with pytest.raises(ConfigError) as error:
        check_start(adapter, same.model_copy(update={"r": own["r"] + 1}), None)
    assert f"another adapter than the one that training starts from ({adapter}): r: {own['r']} -> " in str(error.value)
    assert "Take train.lora out of the configuration to train that adapter further, or merge it" in str(error.value)


def test_all_of_a_quantised_model_cannot_be_trained(model_folder):
    check_start(model_folder, None, None)
    with pytest.raises(
        ConfigError, match=r"reference.quantization: int8 leaves weights.*set train.lora \(`lora: \{\}`"
    ):
        check_start(model_folder, None, "int8")
