"""Adapters and quantisation of other tools as `train.lora` and `reference.quantization`."""

from collections.abc import Sequence

from pipeline.init.translation import Translation

_ALL = {"all", "all-linear", "all_linear"}
_PEFT = ("q_proj", "v_proj")


def put_adapter(
    t: Translation, *, wanted: str | None, rank: str, layers: str, usual_rank: int, usual_alpha: int | None,
    usual_layers: Sequence[str] = _PEFT,
) -> None:  # fmt: skip
    """LoRA, where their key `wanted` asks for it; without, what belongs to it has no effect."""
    names = (rank, "lora_alpha", layers, "use_rslora", "lora_dropout")
    if wanted is None:
        for name in names:
            t.drop(name, "has no effect there without an adapter")
        return
    r = t.number(rank, usual_rank)
    t.put("train.lora.r", r, rank, wanted)
    t.put("train.lora.lora_alpha", t.number("lora_alpha", usual_alpha or 2 * r), "lora_alpha", wanted)
    chosen = ["all"] if t.get(layers) is True else t.words(layers) or list(usual_layers)
    unsure = not t.has(layers) and usual_layers is _PEFT
    note = "peft's choice for Llama, Qwen, Mistral and Gemma; check it for another model" if unsure else ""
    t.put("train.lora.target_modules", "all-linear" if _ALL & set(chosen) else chosen, layers, wanted, note=note)
    if t.has("use_rslora"):
        t.put("train.lora.use_rslora", t.flag("use_rslora"), "use_rslora")


def put_quantization(t: Translation) -> None:
    """4 or 8 bits of the frozen weights."""
    note = "reference and policy alike"
    if t.flag("load_in_4bit") or t.get("quantization_bit") == 4:
        t.put("reference.quantization", "nf4", "load_in_4bit", "quantization_bit", note=note)
    elif t.flag("load_in_8bit") or t.get("quantization_bit") == 8:
        t.put("reference.quantization", "int8", "load_in_8bit", "quantization_bit", note=note)
    else:
        t.drop("quantization_bit", f"{t.get('quantization_bit')} bits are not there; nf4 and int8 are")
    for name in ("load_in_4bit", "load_in_8bit"):
        if not t.flag(name):
            t.drop(name, "false: the weights stay as they are")
