"""LLaMA-Factory: preference training (`stage: dpo`); defaults of its arguments in 2026."""

import json
from pathlib import Path
from typing import Any

from data.errors import ConfigError
from pipeline.init.adapters import put_adapter, put_quantization
from pipeline.init.objective import put_objective
from pipeline.init.trainer_arguments import (
    put_batch,
    put_dtype,
    put_folder,
    put_optimisation,
    put_sharding,
    put_trackers,
)
from pipeline.init.translation import Translation

_USUAL = {"epochs": 3.0, "schedule": "linear", "warmup": 0.0, "learning_rate": 5e-5}
_INFO = "dataset_info.json"
_COLUMNS = {"prompt": "prompt", "messages": "prompt", "chosen": "chosen", "rejected": "rejected", "system": "system"}
_TOLD = ("prompt", "chosen", "rejected", "system", "instruction", "question", "conversations")
"""Columns that are told by themselves."""


def translate(t: Translation) -> None:
    """Set ours from theirs.

    Raises:
        ConfigError: it trains something else than preferences over pairs.
    """
    if t.get("stage") != "dpo":
        stage = f"stage: {t.get('stage')!r}" if t.has("stage") else "no stage (it is sft then)"
        raise ConfigError(
            f"{t.file} is LLaMA-Factory's, with {stage}: that is not offline "
            "preference training over pairs, which is all that is done here. stage: dpo can be translated; "
            "pipeline init --task full writes a configuration to begin with."
        )
    _put_model(t)
    _put_data(t)
    _put_objective(t)
    put_optimisation(t, epochs="num_train_epochs", optimizer="optim", schedule="lr_scheduler_type", usual=_USUAL)
    put_batch(t, "per_device_train_batch_size", 8)
    off = t.flag("disable_gradient_checkpointing")
    t.put("train.gradient_checkpointing", not off, "disable_gradient_checkpointing", "gradient_checkpointing")
    if t.has("fsdp"):
        put_sharding(t, "fsdp")
    put_trackers(t, {})
    put_folder(t)


def _put_model(t: Translation) -> None:
    model, reference, adapters = t.get("model_name_or_path"), t.get("ref_model"), t.words("adapter_name_or_path")
    if reference is not None and reference != model:
        t.put("reference.model", reference, "ref_model")
        t.put("train.model", model, "model_name_or_path", note="what training starts from, where that is another")
    else:
        t.put("reference.model", model, "model_name_or_path", "ref_model")
    if len(adapters) == 1 and "train.model" not in t.settings and not t.flag("create_new_adapter"):
        t.put("train.model", adapters[0], "adapter_name_or_path", note="the adapter that is trained further")
    if "train.model" not in t.settings:
        t.drop("adapter_name_or_path", "merge these adapters into the model first")
    if t.get("model_revision", "main") != "main":
        t.put("reference.revision", str(t.get("model_revision")), "model_revision")
    else:
        t.drop("model_revision", "main is the default branch of the Hub")
    put_dtype(t, "bf16", "fp16", "pure_bf16", usual_bf16=False)
    put_quantization(t)
    kind = t.get("finetuning_type", "lora")
    further = t.has("adapter_name_or_path") and "train.model" in t.settings
    put_adapter(
        t, wanted="finetuning_type" if kind == "lora" and not further else None, rank="lora_rank",
        layers="lora_target", usual_rank=8, usual_alpha=None, usual_layers=("all",),
    )  # fmt: skip
    if kind == "full":
        t.drop("finetuning_type", "full: all weights are trained, as here without train.lora")
    elif kind != "lora":
        t.drop("finetuning_type", f"{kind} is not there: all weights are trained here; train.lora trains an adapter")
    else:
        if further:
            t.drop("finetuning_type", "what it starts from is an adapter")
    for name in ("ref_model_adapters", "ref_model_quantization_bit"):
        t.drop(name, "a reference is one model, with reference.quantization for it and the policy")


def _put_data(t: Translation) -> None:
    for ours, theirs in (("data.train", "dataset"), ("data.eval", "eval_dataset")):
        if t.has(theirs):
            t.put(ours, [_source(t, theirs, name) for name in t.words(theirs)], theirs, "dataset_dir")
    size = t.number("val_size", 0)
    if t.has("eval_dataset"):
        t.drop("val_size", "eval_dataset is what is held out")
    elif 0 < size < 1:
        t.put("data.eval_fraction", size, "val_size", note="prompts are held out with all their pairs")
    elif size:
        t.drop("val_size", "a number of rows there; data.eval_fraction is a share, a tenth unless it is set")
    else:
        t.drop("val_size", "0: data.eval_fraction says what is held out here")
    t.put("data.max_length", t.number("cutoff_len", 2048), "cutoff_len")
    if t.has("preprocessing_num_workers"):
        t.put("data.workers", t.number("preprocessing_num_workers"), "preprocessing_num_workers")


def _source(t: Translation, where: str, name: str) -> Any:
    """What a name stands for in dataset_info.json; a file of that name where there is no such list."""
    entry = _listed(t).get(name)
    if not isinstance(entry, dict) or not (entry.get("file_name") or entry.get("hf_hub_url")):
        folder = Path(str(t.get("dataset_dir", "data")))
        t.unmapped[f"{where}.{name}"] = (
            f"{folder / _INFO} does not say what it is; put the right file or Hub id into data"
        )
        return str(folder / f"{name}.json")
    path = entry.get("hf_hub_url") or str(_folder(t) / entry["file_name"])
    listed = entry["columns"] if isinstance(entry.get("columns"), dict) else {}
    columns = {
        ours: str(listed[theirs])
        for theirs, ours in _COLUMNS.items()
        if listed.get(theirs) and listed[theirs] not in _TOLD
    }
    split = {"split": entry["split"]} if entry.get("hf_hub_url") and entry.get("split", "train") != "train" else {}
    found = {"path": path, **split, **({"columns": columns} if columns else {})}
    left = set(entry) - {"file_name", "hf_hub_url", "ms_hub_url", "columns", "split", "ranking", "formatting"}
    left |= {f"columns.{theirs}" for theirs in listed if theirs not in _COLUMNS}
    t.unmapped |= {f"{where}.{name}.{key}": "no counterpart; see docs/data.md" for key in sorted(left)}
    return found if len(found) > 1 else path


def _folder(t: Translation) -> Path:
    """Where the data sets lie: from the current folder, as there, or beside the file."""
    given = Path(str(t.get("dataset_dir", "data")))
    return given if (given / _INFO).is_file() or given.is_absolute() else t.file.parent / given


def _listed(t: Translation) -> dict[str, Any]:
    try:
        listed = json.loads((_folder(t) / _INFO).read_text(encoding="utf-8"))
    except OSError:
        return {}
    except ValueError as error:
        raise ConfigError(f"{_folder(t) / _INFO}, which {t.file} names, is not JSON: {error}. Correct it.") from None
    return listed if isinstance(listed, dict) else {}


def _put_objective(t: Translation) -> None:
    loss, names, note = str(t.get("pref_loss", "sigmoid")), ["stage", "pref_loss"], ""
    summed = {loss: 1.0}
    weight = float(t.number("pref_bco_weight", 0.0))
    if weight > 0 and loss != "simpo":
        summed = {loss: 1 / (1 + weight), "bco_pair": weight / (1 + weight)}
        names.append("pref_bco_weight")
        note = "bco_pair's threshold is fixed here (bco_delta), a running mean there"
    else:
        t.drop("pref_bco_weight", "has no effect there")
    if coefficient := float(t.number("pref_ftx", 0.0)):
        summed["sft"] = coefficient
        names.append("pref_ftx")
        note = note or "sft is the mean over tokens here, the mean over responses there"
    else:
        t.drop("pref_ftx", "0: no supervised loss is added")
    put_objective(t, summed, names, smoothing="dpo_label_smoothing", note=note)
    if "train.ld_alpha" in t.settings:
        note = "of policy and reference alike; there of the policy alone"
        t.put("train.ld_alpha", t.settings["train.ld_alpha"].value, "ld_alpha", note=note)
    t.put("train.beta", t.number("pref_beta", 0.1), "pref_beta")
