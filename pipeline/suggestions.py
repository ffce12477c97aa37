"""What was probably meant: by a key that does not exist, a value that is none, a variable that names no key."""

import difflib
import re
from collections.abc import Iterable, Mapping, Sequence

from pydantic import BaseModel

from pipeline.keys import all_keys, field_at, item_of, section_at

_SWEEP = "sweep."  # its axes have the names of other keys
_OTHER_TOOLS = {
    "train.epochs": "num_train_epochs num_epochs n_epochs max_epochs",
    "train.pairs_per_step": (
        "per_device_train_batch_size train_batch_size batch_size micro_batch_size global_batch_size "
        "gradient_accumulation_steps"
    ),
    "train.objective": "loss_type loss loss_fn loss_weights pref_loss rlhf_loss rpo_alpha rl",
    "train.beta": "dpo_beta pref_beta rl_beta kl_beta",
    "train.label_smoothing": "dpo_label_smoothing",
    "train.learning_rate": "lr peak_lr",
    "train.lr_scheduler_type": "lr_scheduler scheduler schedule",
    "train.warmup_steps": "warmup_ratio num_warmup_steps lr_warmup_steps warmup",
    "train.max_grad_norm": "grad_clip gradient_clipping gradient_clip_val clip_grad_norm",
    "train.optim": "optimizer",
    "train.gradient_checkpointing": "activation_checkpointing grad_checkpointing",
    "train.checkpoint_every": "save_steps save_interval save_freq checkpoint_steps",
    "train.keep": "save_total_limit max_to_keep",
    "train.eval_every": "eval_steps eval_interval val_every",
    "train.metric_for_best_model": "load_best_model_at_end",
    "train.lora": "use_peft use_lora peft peft_config adapter finetuning_type",
    "train.lora.r": "lora_r lora_rank rank",
    "train.lora.target_modules": "lora_target lora_target_modules",
    "train.report_to": "logger loggers",
    "reference.model": "model_name_or_path base_model model_name ref_model ref_model_path pretrained",
    "reference.dtype": "torch_dtype bf16 fp16 precision mixed_precision",
    "reference.quantization": "load_in_4bit load_in_8bit quantization_bit",
    "data.train": "dataset_name dataset dataset_mixer dataset_path datasets train_file train_dataset",
    "data.eval": "eval_dataset eval_file validation_file",
    "data.eval_fraction": "test_size val_size val_set_size validation_split",
    "data.max_length": "max_seq_length max_seq_len max_prompt_length cutoff_len sequence_len seq_len model_max_length",
    "data.workers": "num_proc dataset_num_proc preprocessing_num_workers num_workers",
    "scoring.pack_tokens": "per_device_eval_batch_size eval_batch_size precompute_ref_batch_size tokens_per_batch",
    "scoring.backend": "attn_implementation flash_attn attention_implementation",
    "workdir": "output_dir save_dir out_dir work_dir",
    "run": "run_name exp_name experiment_name",
}
"""Our key for what TRL, transformers and other trainers call the same thing."""
_BY_OTHER_NAME = {name: key for key, names in _OTHER_TOOLS.items() for name in names.split()}
_VALUES = {
    "bf16": "bfloat16", "fp16": "bfloat16", "half": "bfloat16", "float16": "bfloat16", "fp32": "float32",
    "4bit": "nf4", "fp4": "nf4", "8bit": "int8", "adam": "adamw", "adamw_torch": "adamw",
    "adamw_bnb_8bit": "adamw_8bit", "paged_adamw_8bit": "adamw_8bit", "tb": "tensorboard",
    "flash_attention_2": "varlen", "flex_attention": "flex",
}  # fmt: skip
"""Values by other tools' names."""


def key_hint(path: Sequence[str | int], root: type[BaseModel]) -> str:
    """What to write in the place of a key that does not exist; starts with `; `, and empty where nothing is known."""
    name = str(path[-1])
    section = section_at(root, path[:-1])
    if section is None:
        return ""
    if (key := _BY_OTHER_NAME.get(name)) is not None:
        return f"; it is called {key} here: {meaning(key, root)}"
    if places := _elsewhere(name, root):
        return f"; did you mean {_either(places)}?"
    if len(path) == 1 and (close := difflib.get_close_matches(name, all_keys(root), n=1, cutoff=0.85)):
        return f"; did you mean {close[0]}?"
    known = list(section.model_fields)
    if close := difflib.get_close_matches(name, known, n=1):
        return f"; did you mean {close[0]}?"
    return f"; known here: {', '.join(known)}"


def assignment_hint(option: str, root: type[BaseModel]) -> str:
    """The key that was meant by an option that no command has; starts with `. `, and empty where there is none."""
    name = option.lstrip("-").replace("-", "_")
    keys = _elsewhere(name, root) or ([_BY_OTHER_NAME[name]] if name in _BY_OTHER_NAME else [])
    written = [key for key in (name, name.replace("__", ".")) if key in all_keys(root)]
    either = [f"--set {key}=..." for key in dict.fromkeys([*written, *keys])]
    return f". The configuration has such a key: {_either(either)}" if either else ""


def value_hint(given: object, choices: Iterable[str]) -> str:
    """Which of the choices was meant; starts with `; `, and empty where none is near."""
    choices = list(choices)
    if not isinstance(given, str):
        return ""
    if (meant := _VALUES.get(given.lower())) in choices:
        return f"; did you mean {meant}?"
    close = difflib.get_close_matches(given, choices, n=1)
    return f"; did you mean {close[0]}?" if close else ""


def variable_hint(variable: str, prefix: str, root: type[BaseModel]) -> str | None:
    """The variable that was meant by one that names no key; None where it may well be another program's."""
    variables = [prefix + key.upper().replace(".", "__") for key in all_keys(root)]
    by_single = {name.replace("__", "_"): name for name in variables}
    close = difflib.get_close_matches(variable, [*by_single, *variables], n=1, cutoff=0.93)
    return by_single.get(close[0], close[0]) if close else None


def quoted_choices(sentence: str) -> list[str]:
    """The choices in pydantic's `'a', 'b' or 'c'`."""
    return re.findall(r"'([^']*)'", sentence)


def meaning(key: str, root: type[BaseModel]) -> str:
    """What a key is for, in the first words of its description."""
    field = field_at(root, key.split("."))
    text = " ".join((field.description if field and field.description else key).split())
    first = re.split(r"[.;:](?:\s|$)", text, maxsplit=1)[0]
    return first[:1].lower() + first[1:] if first[1:2].islower() else first


def _elsewhere(name: str, root: type[BaseModel]) -> list[str]:
    """The keys of this name in other sections; those of a sweep only where no other has it."""
    keys = [*all_keys(root), *_of_items(root)]
    found = [key for key in keys if key.rpartition(".")[2] == name]
    return [key for key in found if not key.startswith(_SWEEP)] or found


def _of_items(root: type[BaseModel]) -> list[str]:
    """The keys of sections that stand in lists and mappings."""
    items: Mapping[str, type[BaseModel] | None] = {key: item_of(field) for key, field in all_keys(root).items()}
    return [f"{key}.{name}" for key, item in items.items() if item is not None for name in item.model_fields]


def _either(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} or {names[-1]}"
