"""TRL: what its command line (`trl dpo --config FILE`) reads, DPOConfig with model and data; defaults of 1.16."""

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

_USUAL = {"epochs": 3.0, "schedule": "linear", "warmup": 0.0, "learning_rate": 1e-6}


def translate(t: Translation) -> None:
    """Set ours from theirs."""
    _put_model(t)
    _put_data(t)
    _put_objective(t)
    put_optimisation(t, epochs="num_train_epochs", optimizer="optim", schedule="lr_scheduler_type", usual=_USUAL)
    put_batch(t, "per_device_train_batch_size", 8, devices="num_processes")
    name = t.first("activation_checkpointing", "gradient_checkpointing") or "gradient_checkpointing"
    t.put("train.gradient_checkpointing", t.flag(name, default=True), name)
    if name == "activation_checkpointing":
        t.drop("gradient_checkpointing", "activation_checkpointing is its newer name, which goes before it")
    if t.has("accelerate_config") and str(t.get("accelerate_config")) in ("fsdp1", "fsdp2", "zero3"):
        put_sharding(t, "accelerate_config")
    if t.has("fsdp"):
        put_sharding(t, "fsdp")
    put_trackers(t, {})
    put_folder(t)


def _put_model(t: Translation) -> None:
    model, reference = t.get("model_name_or_path"), t.first("ref_model_name_or_path", "ref_model")
    if reference and t.get(reference) != model:
        t.put("reference.model", t.get(reference), reference)
        t.put("train.model", model, "model_name_or_path", note="what training starts from, where that is another")
    else:
        t.put("reference.model", model, "model_name_or_path", *([reference] if reference else []))
    if t.get("model_revision", "main") != "main":
        t.put("reference.revision", str(t.get("model_revision")), "model_revision")
    else:
        t.drop("model_revision", "main is the default branch of the Hub")
    put_dtype(t, "bf16", "fp16", "dtype", "torch_dtype", usual_bf16=True)
    put_quantization(t)
    put_adapter(
        t, wanted="use_peft" if t.flag("use_peft") else None, rank="lora_r", layers="lora_target_modules",
        usual_rank=16, usual_alpha=32,
    )  # fmt: skip
    if not t.flag("use_peft"):
        t.drop("use_peft", "false: all weights are trained")


def _put_data(t: Translation) -> None:
    config = t.get("dataset_config")
    split = str(t.get("dataset_train_split", "train"))
    if t.has("datasets"):
        entries = t.get("datasets")
        if not isinstance(entries, list):
            raise t.problem("datasets", "is no list of data sets")
        t.put("data.train", [source(t, f"datasets.{place}", entry) for place, entry in enumerate(entries)], "datasets")
        for name in ("dataset_name", "dataset_config", "dataset_train_split", "dataset_test_split"):
            t.drop(name, "has no effect there beside datasets")
    elif t.has("dataset_name"):
        name = str(t.get("dataset_name"))
        t.put(
            "data.train",
            source(t, "dataset_name", {"path": name, "split": split}),
            "dataset_name",
            "dataset_train_split",
        )
        if config:
            t.drop("dataset_config", f"{config}: save that part to a file, which data.train then names")
        _put_held_out(t, name)
    if t.has("test_split_size"):
        t.put("data.eval_fraction", t.number("test_split_size"), "test_split_size")
    if not t.has("max_length") and "max_length" in t.given:
        t.unmapped["max_length"] = "nothing is cut there; raise data.max_length to the longest pair"
    t.put("data.max_length", t.number("max_length", 1024), "max_length")
    if t.has("dataset_num_proc"):
        t.put("data.workers", t.number("dataset_num_proc"), "dataset_num_proc")


def _put_held_out(t: Translation, name: str) -> None:
    asked = t.first("eval_strategy", "evaluation_strategy")
    if asked is None or t.get(asked) in ("no", False):
        t.drop("dataset_test_split", "no evaluation is asked for there")
        return
    split = str(t.get("dataset_test_split", "test"))
    held_out = source(t, "dataset_test_split", {"path": name, "split": split})
    if held_out == name:
        t.drop("dataset_test_split", "a file has no splits")
    else:
        t.put("data.eval", held_out, "dataset_test_split", asked)


def _put_objective(t: Translation) -> None:
    losses = t.words("loss_type") or ["sigmoid"]
    weights = t.numbers("loss_weights")
    if weights and len(weights) != len(losses):
        raise t.problem("loss_weights", f"has other weights than the {len(losses)} losses of loss_type")
    summed: dict[str, float] = {}
    for place, loss in enumerate(losses):
        summed[loss] = summed.get(loss, 0.0) + (weights[place] if weights else 1.0)
    names = ["loss_type", "loss_weights"]
    if t.has("rpo_alpha"):
        summed["sft"] = summed.get("sft", 0.0) + float(t.number("rpo_alpha"))
        names.append("rpo_alpha")
    if t.flag("reference_free") and set(summed) == {"sigmoid"}:
        summed = {"naive": summed["sigmoid"]}
        names.append("reference_free")
    t.drop("reference_free", "the reference is read unless train.objective is one without (naive, simpo, sft)")
    put_objective(t, summed, names)
    t.put("train.beta", t.number("beta", 0.1), "beta")
