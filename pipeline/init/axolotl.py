"""axolotl: preference training (`rl: dpo`, `ipo` or `simpo`); defaults of its schemas in 2026."""

from data.errors import ConfigError
from pipeline.init.adapters import put_adapter, put_quantization
from pipeline.init.objective import put_objective
from pipeline.init.sources import source
from pipeline.init.trainer_arguments import (
    put_batch,
    put_dtype,
    put_folder,
    put_optimisation,
    put_sharding,
    put_trackers,
)
from pipeline.init.translation import Translation

_USUAL = {"epochs": 1.0, "schedule": "cosine", "warmup": 0.03}


def translate(t: Translation) -> None:
    """Set ours from theirs.

    Raises:
        ConfigError: it trains something else than preferences over pairs.
    """
    if t.get("rl") not in ("dpo", "ipo", "simpo"):
        kind = f"rl: {t.get('rl')!r}" if t.has("rl") else "no rl"
        raise ConfigError(
            f"{t.file} is axolotl's, with {kind}: that is not offline "
            "preference training over pairs, which is all that is done here. rl: dpo, ipo and simpo can be translated; "
            "pipeline init --task full writes a configuration to begin with."
        )
    _put_model(t)
    _put_data(t)
    _put_objective(t)
    put_optimisation(t, epochs="num_epochs", optimizer="optimizer", schedule="lr_scheduler", usual=_USUAL)
    if t.has("batch_size"):
        t.put("train.pairs_per_step", t.number("batch_size"), "batch_size", note="of one device")
        for name in ("micro_batch_size", "gradient_accumulation_steps"):
            t.drop(name, "batch_size says how many pairs a step has; batches are made by tokens here")
    else:
        put_batch(t, "micro_batch_size", 1)
    t.put("train.gradient_checkpointing", bool(t.get("gradient_checkpointing")), "gradient_checkpointing")
    if t.first("fsdp", "fsdp_config"):
        put_sharding(t, "fsdp", "fsdp_config")
    switches = {
        "wandb_project": "wandb",
        "use_wandb": "wandb",
        "use_tensorboard": "tensorboard",
        "use_trackio": "trackio",
    }
    put_trackers(t, switches)
    for name in switches:
        if t.get(name) is False:
            t.drop(name, "false: no tracker, as here by default")
    put_folder(t)


def _put_model(t: Translation) -> None:
    if t.has("lora_model_dir"):
        t.put("train.model", t.get("lora_model_dir"), "lora_model_dir", note="the adapter that is trained further")
    t.put("reference.model", t.get("base_model"), "base_model")
    if t.has("revision_of_model"):
        t.put("reference.revision", str(t.get("revision_of_model")), "revision_of_model")
    put_dtype(t, "bf16", "fp16", "bfloat16", "float16", "torch_dtype", usual_bf16=True)
    t.drop("float32", "reference.dtype says it")
    put_quantization(t)
    adapter = t.get("adapter") in ("lora", "qlora") and not t.has("lora_model_dir")
    linear = t.flag("lora_target_linear")
    put_adapter(
        t, wanted="adapter" if adapter else None, rank="lora_r", usual_rank=16, usual_alpha=32,
        layers="lora_target_linear" if linear else "lora_target_modules", usual_layers=("all-linear",),
    )  # fmt: skip
    t.drop("lora_target_modules" if linear else "lora_target_linear", "the other of the two names the layers")
    if adapter and t.has("peft_use_rslora"):
        t.put("train.lora.use_rslora", t.flag("peft_use_rslora"), "peft_use_rslora")
    if not adapter:
        t.drop("peft_use_rslora", "has no effect there without an adapter")
        t.drop("adapter", "what it starts from is an adapter" if t.has("lora_model_dir") else "only LoRA is there")


def _put_data(t: Translation) -> None:
    for ours, theirs in (("data.train", "datasets"), ("data.eval", "test_datasets")):
        if t.has(theirs):
            entries = t.get(theirs)
            if not isinstance(entries, list):
                raise t.problem(theirs, "is no list of data sets")
            t.put(ours, [source(t, f"{theirs}.{place}", entry) for place, entry in enumerate(entries)], theirs)
    size = t.number("val_set_size", 0)
    if t.has("test_datasets"):
        t.drop("val_set_size", "test_datasets is what is held out")
    elif 0 < size < 1:
        t.put("data.eval_fraction", size, "val_set_size", note="prompts are held out with all their pairs")
    else:
        t.drop(
            "val_set_size",
            "no share of the rows; data.eval_fraction says what is held out here",
        )
    note = "there longer pairs are left out; here their responses lose their ends"
    t.put("data.max_length", t.number("sequence_len", 512), "sequence_len", note=note)
    if name := t.first("dataset_num_proc", "dataset_processes"):
        t.put("data.workers", t.number(name), name)


def _put_objective(t: Translation) -> None:
    names = ["rl"]
    losses = {"dpo": "sigmoid", "ipo": "ipo", "simpo": "simpo"}
    summed = {losses[str(t.get("rl"))]: 1.0}
    if t.get("rl") == "dpo" and t.has("dpo_loss_type"):
        kinds, weights = t.words("dpo_loss_type"), t.numbers("dpo_loss_weights")
        if weights and len(weights) != len(kinds):
            raise t.problem("dpo_loss_weights", f"has other weights than the {len(kinds)} losses of dpo_loss_type")
        summed = dict(zip(kinds, weights or [1.0] * len(kinds), strict=True))
        names += ["dpo_loss_type", "dpo_loss_weights"]
    note = ""
    if t.get("rl") == "simpo":  # TRL's CPO trainer adds the likelihood of the chosen response
        summed["sft"] = float(t.number("cpo_alpha", 1.0))
        names.append("cpo_alpha")
        note = "sft is cpo_alpha, which is 1 there unless it is set"
    elif t.has("rpo_alpha"):
        summed["sft"] = float(t.number("rpo_alpha"))
        names.append("rpo_alpha")
    if t.get("rl") != "simpo":
        t.drop("cpo_alpha", "has an effect on rl: simpo alone")
    put_objective(t, summed, names, smoothing="dpo_label_smoothing", note=note)
    trl = t.get("trl") if isinstance(t.get("trl"), dict) else {}
    if trl.get("beta") is not None:
        t.put("train.beta", trl["beta"], "trl")
        for name in ("rl_beta", "dpo_beta"):
            t.drop(name, "trl.beta goes before it there")
    else:
        beta = t.first("rl_beta", "dpo_beta") or "rl_beta"
        t.put("train.beta", t.number(beta, 0.1), beta)
        if beta == "rl_beta":
            t.drop("dpo_beta", "rl_beta goes before it there")
    t.unmapped |= {f"trl.{name}": "no counterpart in training over pairs" for name in trl if name != "beta"}
