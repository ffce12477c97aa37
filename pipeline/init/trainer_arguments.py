"""What TRL, axolotl and LLaMA-Factory have from the trainer of transformers, each under names of its own."""

import math
from typing import Any

from pipeline.init.translation import Translation

_ADAMW = {
    "adamw": "adamw", "adamw_hf": "adamw", "adamw_torch": "adamw", "adamw_torch_fused": "adamw",
    "adamw_apex_fused": "adamw", "adamw_torch_8bit": "adamw_8bit", "paged_adamw": "adamw",
    "paged_adamw_32bit": "adamw", "adamw_8bit": "adamw_8bit", "adamw_bnb_8bit": "adamw_8bit",
    "paged_adamw_8bit": "adamw_8bit",
}  # fmt: skip
_SCHEDULES = {"linear": "linear", "cosine": "cosine", "constant": "constant", "constant_with_warmup": "constant"}
_TRACKERS = ("trackio", "wandb", "tensorboard")


def put_optimisation(t: Translation, *, epochs: str, optimizer: str, schedule: str, usual: dict[str, Any]) -> None:
    """How it is optimised; three keys have other names in other tools, and `usual` are the tool's defaults."""
    _put_epochs(t, epochs, usual["epochs"])
    _put_schedule(t, schedule, usual["schedule"], usual["warmup"])
    _put_optimizer(t, optimizer)
    for name in ("learning_rate", "weight_decay", "max_grad_norm"):
        if t.has(name) or name in usual:
            t.put(f"train.{name}", t.number(name, usual.get(name)), name)
    for name in ("seed", "ddp_timeout"):
        if t.has(name):
            t.put(f"train.{name}", t.number(name), name)
    if t.has("full_determinism"):
        t.put("train.deterministic", t.flag("full_determinism"), "full_determinism")
    if t.has("save_steps"):
        _put_count(t, "train.checkpoint_every", "save_steps", "a share of all steps there; a number of steps here")
    if t.has("save_total_limit"):
        _put_count(t, "train.keep", "save_total_limit", "at least one checkpoint is kept")


def put_batch(t: Translation, size: str, usual_size: int, *, devices: str | None = None) -> None:
    """Pairs of a step: pairs a device, times steps that are accumulated, times devices where they are known."""
    names = [size, "gradient_accumulation_steps", *([devices] if devices else [])]
    each = [t.number(size, usual_size), t.number("gradient_accumulation_steps", 1)]
    each += [t.number(devices)] if devices and t.has(devices) else []
    product = " x ".join(f"{part:g}" for part in each)
    known = bool(devices and t.has(devices))
    note = product if known else f"{product}, on one device: on N devices there it was N times that"
    t.put("train.pairs_per_step", int(math.prod(each)), *names, note=note)


def put_dtype(t: Translation, *names: str, usual_bf16: bool) -> None:
    """The dtype of products: bfloat16 where the tool mixes or casts to half precision, float32 otherwise."""
    flags = {"bf16": t.flag("bf16", default=usual_bf16 and not t.flag("fp16")), "fp16": t.flag("fp16")}
    flags["bf16"] = flags["bf16"] or t.get("bf16") == "full" or t.flag("pure_bf16") or t.flag("bfloat16")
    named = str(t.get("dtype", t.get("torch_dtype", "")))
    half = any(flags.values()) or t.flag("float16") or named in ("float16", "bfloat16")
    note = "fp16 is not used here" if flags["fp16"] or named == "float16" else "masters of weights are fp32 in any case"
    t.put("reference.dtype", "bfloat16" if half else "float32", *names, note=note)


def put_trackers(t: Translation, names: dict[str, str]) -> None:
    """Trackers, from the keys (`names`: ours by theirs) that switch one on, or from a list in `report_to`."""
    on = {theirs: ours for theirs, ours in names.items() if t.has(theirs) and t.get(theirs) is not False}
    listed = [word for word in t.words("report_to") if word not in ("none", "None")]
    known = [word for word in listed if word in _TRACKERS]
    if chosen := list(dict.fromkeys([*on.values(), *known])):
        t.put("train.report_to", chosen, *on, *(["report_to"] if known else []), note="")
    if others := [word for word in listed if word not in _TRACKERS]:
        t.drop("report_to", f"{', '.join(others)} gets no figures; there are {', '.join(_TRACKERS)}")
    elif not known:
        t.drop("report_to", "no tracker, as here by default; metrics.jsonl has every step")


def put_sharding(t: Translation, *names: str) -> None:
    """Weights in shards, from the keys that ask for it; once quantisation and optimiser are set."""
    optim = t.settings.get("train.optim")
    if "reference.quantization" in t.settings or (optim is not None and optim.value != "adamw"):
        for name in names:
            t.drop(name, "not with quantised weights or an 8-bit optimiser: each process holds all of the model")
    else:
        t.put("train.fsdp", True, *names, note="under torchrun; its other settings are fixed")


def put_folder(t: Translation) -> None:
    """Where things are written."""
    if t.has("output_dir"):
        t.put("workdir", str(t.get("output_dir")), "output_dir", note="everything that is written, not only the policy")
    name = str(t.get("run_name", ""))
    if name and not name.startswith(".") and "/" not in name:
        t.put("run", name, "run_name")
    else:
        t.drop("run_name", "a run is a folder, and this is no plain name; run: NAME sets one")


def _put_epochs(t: Translation, name: str, usual: float) -> None:
    epochs = t.number(name, usual)
    whole = max(1, round(epochs))
    t.put("train.epochs", whole, name, note="" if whole == epochs else f"{epochs:g} there; epochs are whole here")


def _put_schedule(t: Translation, name: str, usual: str, usual_warmup: float) -> None:
    given = str(t.get(name, usual))
    ours = _SCHEDULES.get(given, "cosine" if "cosine" in given else "linear")
    t.put("train.lr_scheduler_type", ours, name, note="" if given in _SCHEDULES else f"the nearest to {given}")
    if given == "constant":  # there without warm-up; constant_with_warmup is ours
        for warmup in ("warmup_ratio", "warmup_steps"):
            t.drop(warmup, f"has no effect there on {name}: constant")
    elif t.has("warmup_steps") and (t.number("warmup_steps") > 0 or not t.has("warmup_ratio")):
        t.put("train.warmup_steps", t.number("warmup_steps"), "warmup_steps")
        t.drop("warmup_ratio", "has no effect there beside warmup_steps")
    else:
        t.put("train.warmup_steps", t.number("warmup_ratio", usual_warmup), "warmup_ratio", note="a share of all steps")
        t.drop("warmup_steps", "0, so that warmup_ratio counts")


def _put_optimizer(t: Translation, name: str) -> None:
    if not t.has(name):
        return
    given = str(t.get(name))
    if given in _ADAMW:
        t.put("train.optim", _ADAMW[given], name, note="" if given == _ADAMW[given] else f"{given} there")
    else:
        t.drop(name, f"{given} is not there; train.optim is adamw here, whose best learning rate may be another")


def _put_count(t: Translation, key: str, name: str, why_not: str) -> None:
    count = t.number(name)
    if count >= 1:
        t.put(key, int(count), name)
    else:
        t.drop(name, why_not)
