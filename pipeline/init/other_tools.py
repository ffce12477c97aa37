"""Whose a configuration file is, and its translation into one of ours."""

from collections.abc import Callable, Mapping
from pathlib import Path

from pydantic import ValidationError

from data.errors import ConfigError
from pipeline.config import PipelineConfig
from pipeline.init import axolotl, llama_factory, trl
from pipeline.init.translation import Translation
from pipeline.yaml_source import load_yaml

_KEYS = {
    "TRL": """
        model_name_or_path dataset_name loss_type loss_weights beta per_device_train_batch_size max_length use_peft
        max_prompt_length precompute_ref_log_probs lora_target_modules dtype torch_dtype reference_free rpo_alpha
        accelerate_config num_train_epochs""",
    "axolotl": """
        base_model rl sequence_len micro_batch_size num_epochs val_set_size lora_target_linear rl_beta adapter dpo_beta
        dataset_prepared_path sample_packing lr_scheduler optimizer test_datasets""",
    "LLaMA-Factory": """
        model_name_or_path stage finetuning_type dataset dataset_dir cutoff_len template pref_beta pref_loss pref_ftx
        lora_rank lora_target val_size do_train per_device_train_batch_size num_train_epochs""",
}
"""By which files are told."""
_TRANSLATE: Mapping[str, Callable[[Translation], None]] = {
    "TRL": trl.translate,
    "axolotl": axolotl.translate,
    "LLaMA-Factory": llama_factory.translate,
}
_REQUIRED = {
    "TRL": ("model_name_or_path", "dataset_name"),
    "axolotl": ("base_model", "datasets"),
    "LLaMA-Factory": ("model_name_or_path", "dataset"),
}
"""Their keys of model and data."""
_NOT_OVER_PAIRS = {
    "reward_funcs": "GRPO", "num_generations": "GRPO", "dataset_text_field": "SFT", "completion_only_loss": "SFT",
    "assistant_only_loss": "SFT", "packing": "SFT", "center_rewards_coefficient": "a reward model",
    "desirable_weight": "KTO", "undesirable_weight": "KTO", "reward_model_path": "online training",
}  # fmt: skip
"""Keys of TRL's other trainers."""


def translated(file: Path) -> Translation:
    """The file of another tool as ours.

    Raises:
        ConfigError: it cannot be read, is nobody's that is known, trains no preferences, or has values that cannot be.
    """
    if not file.exists():
        raise ConfigError(f"There is no file {file} to translate. Correct the path behind --from.")
    document, origins = load_yaml(file)
    tool = _recognised(file, set(document))
    t = Translation(file, tool, document, origins)
    if tool == "TRL":
        _refuse_other_trainers(t)
    _TRANSLATE[tool](t)
    model, data = _REQUIRED[tool]
    if t.settings["reference.model"].value is None:
        raise ConfigError(f"{file} is {tool}'s, but names no model. Add {model}, and try again.")
    if "data.train" not in t.settings:
        raise ConfigError(f"{file} is {tool}'s, but names no data set. Add {data}, and try again.")
    t.finish()
    _check(t)
    return t


def _recognised(file: Path, keys: set[str]) -> str:
    """The tool most of whose keys stand in the file."""
    if "reference" in keys and keys & {"data", "train"}:
        raise ConfigError(f"{file} is a configuration of this program already. Use it with --config {file}.")
    found = {tool: len(keys & set(known.split())) for tool, known in _KEYS.items()}
    best = max(found, key=lambda tool: found[tool])
    if found[best] < 2:
        raise ConfigError(
            f"{file} is of no tool that is known: TRL (model_name_or_path, dataset_name, loss_type), axolotl "
            "(base_model, rl, micro_batch_size) and LLaMA-Factory (stage, pref_loss, finetuning_type) are told by "
            "their keys. Begin with pipeline init --task full instead."
        )
    return best


def _refuse_other_trainers(t: Translation) -> None:
    found = [name for name in _NOT_OVER_PAIRS if t.has(name)]
    if found and not t.first("loss_type", "beta", "precompute_ref_log_probs"):
        raise ConfigError(
            f"{t.file} is TRL's, for {_NOT_OVER_PAIRS[found[0]]} ({found[0]}): that is not offline preference training "
            "over pairs, which is all that is done here. What `trl dpo` reads can be translated; pipeline init --task "
            "full writes a configuration to begin with."
        )


def _check(t: Translation) -> None:
    """Refuse values that no configuration can have, by the keys that they come from."""
    try:
        PipelineConfig.model_validate(t.document())
    except ValidationError as error:
        detail = error.errors()[0]
        key = ".".join(str(part) for part in detail["loc"])
        setting = next((setting for ours, setting in t.settings.items() if key.startswith(ours)), None)
        names = " and ".join(setting.sources) if setting else key
        where = t.origins.of((setting.sources[0],)) if setting and setting.sources else str(t.file)
        said = detail["msg"].removeprefix("Value error, ")
        raise ConfigError(
            f"{where}: {names or key} cannot become {key or 'a configuration'}: {said[:1].lower()}{said[1:]} (got "
            f"{detail['input'] if setting is None else setting.value!r}). Correct it there, and try again."
        ) from None
