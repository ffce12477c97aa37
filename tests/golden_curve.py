"""The golden curves: what a tiny model makes of fixed pairs, step by step, through the real jobs.

    python -m tests.golden_curve            digests of the curves and the policies as this code makes them
    python -m tests.golden_curve --write    and golden_curve.json anew, where numbers are meant to change

On one machine a refactor leaves every digest as it was, to the last bit; test_golden_curve.py holds the curves to the
committed ones within what other machines and versions round otherwise. Weights come from numpy's frozen generator:
no version of a library starts from others.
"""

import hashlib
import json
import sys
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from zlib import crc32

from tests.tiny import Work, build_model, build_tokenizer

FILE = Path(__file__).with_suffix(".json")
CURVES = ("loss", "grad_norm", "rewards/margins", "learning_rate")
COMMON = ("scoring.pack_tokens=100", "train.learning_rate=2e-4", "train.weight_decay=0.1")
CONFIGURATIONS = {
    "sigmoid-float32": ("reference.dtype=float32", "train.warmup_steps=3"),
    "sigmoid-bfloat16": ("reference.dtype=bfloat16", "train.lr_scheduler_type=cosine"),
    "aot-ipo-float32": (
        "reference.dtype=float32",
        "train.objective={aot: 1.0, ipo: 0.02}",
        "train.lr_scheduler_type=constant",
        "train.max_grad_norm=0",
    ),
}
"""18 steps each: 34 pairs twice, four a step, in packs that hold two or three of them."""

Curve = list[dict[str, float]]


def main() -> None:
    """Print, and write if asked to."""
    golden = {}
    for name, settings in CONFIGURATIONS.items():
        with TemporaryDirectory() as folder:
            golden[name], policy = train(Path(folder), *settings)
        curve = hashlib.sha256(json.dumps(golden[name]).encode()).hexdigest()
        print(f"{name}: curve {curve[:16]}, policy {policy[:16]}")  # noqa: T201
    if "--write" in sys.argv[1:]:
        FILE.write_text(as_text(golden))


def train(folder: Path, *settings: str) -> tuple[Curve, str]:
    """The curve of a run, and the digest of its policy."""
    work = Work(folder, save_fixed_model(folder / "model"))
    work.run("precompute-ref", *COMMON, *settings)
    run = work.root / "runs" / work.run("train", *COMMON, *settings)["run"]
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    policy = hashlib.sha256((run / "policy" / "model.safetensors").read_bytes()).hexdigest()
    return [{name: line[name] for name in CURVES} for line in lines], policy


def save_fixed_model(folder: Path) -> Path:
    """The tiny model with weights that depend on nothing but their names."""
    import numpy as np
    import torch

    model = build_model()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.dim() > 1:
                values = np.random.RandomState(crc32(name.encode())).standard_normal(tuple(parameter.shape))
                parameter.copy_(torch.from_numpy(0.2 * values))
    model.save_pretrained(folder)
    build_tokenizer().save_pretrained(folder)
    return folder


def as_text(golden: Mapping[str, Curve]) -> str:
    """JSON with a line a step."""
    curves = []
    for name, curve in golden.items():
        steps = ",\n".join(f"  {json.dumps(step)}" for step in curve)
        curves.append(f"{json.dumps(name)}: [\n{steps}\n]")
    return "{\n" + ",\n".join(curves) + "\n}\n"


def read() -> dict[str, Any]:
    """What is committed."""
    return dict(json.loads(FILE.read_bytes()))


if __name__ == "__main__":
    main()
