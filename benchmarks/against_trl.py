"""Our scorer and trainer beside TRL's DPOTrainer, on a CPU (needs the extra `bench`).

    python benchmarks/against_trl.py --model FOLDER --data FOLDER [--task training] [--out FILE.json]

Every measurement is a process of its own (workloads.py), contenders take turns; tables.py shows the medians. Contenders
are `ours` (`ours-1024`: packs of 1,024 tokens at most) and `trl-` with any of `default`, `best` (training: rows grouped
by length, no gradient checkpointing), `bsN`, `sorted` (scoring: rows handed over by length) and `bf16weights` (else
bf16 is TRL's own: fp32 under autocast).
"""

import argparse
import json
import os
import re
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pipeline  # noqa: F401 - finds our packages
from data.durable import write_json
from tables import print_tables

WORKLOADS = Path(__file__).with_name("workloads.py")
PAIRS = {
    "scoring": {"politeness": 128, "gsm8k": 64, "shared": 96},
    "training": {"politeness": 64, "gsm8k": 32, "shared": 48},
}
SETS = tuple(PAIRS["scoring"])
FILES = {"politeness": "politeness_1100.jsonl.gz", "gsm8k": "gsm8k_right_wrong.jsonl.gz"}
DTYPES = ("float32", "bfloat16")
CONTENDERS = {
    # TRL's default is a batch of 8, unsorted.
    "scoring": ["ours", "trl-default", *(f"trl-bs{n}-sorted" for n in (4, 8, 16))],
    "training": ["ours", "trl-default", *(f"trl-best-bs{n}" for n in (4, 8))],
}
QUIET = {"HF_HUB_OFFLINE": "1", "TQDM_DISABLE": "1", "CUDA_VISIBLE_DEVICES": ""}
NAMES = {
    "scoring": re.compile(r"ours(-\d+)?|trl(-(default|bs\d+|sorted|bf16weights))+"),
    "training": re.compile(r"ours(-\d+)?|trl(-(default|best|bs(1|2|4|8|16)|bf16weights))+"),
}


def main() -> None:
    """Measure, and show what was measured."""
    arguments = parse_arguments()
    plan = [job for sets in arguments.sets for dtype in arguments.dtype for job in jobs(arguments, sets, dtype)]
    document: dict[str, Any] = {"machine": machine(), "model": arguments.model.resolve().name, "runs": []}
    if arguments.out and arguments.out.exists():
        before = json.loads(arguments.out.read_bytes())
        if before["model"] != document["model"]:
            raise SystemExit(f"{arguments.out} holds measurements of {before['model']}; give --out another name.")
        document["runs"] = [run for run in before["runs"] if "error" not in run]
    for number, (job, spec) in enumerate(plan, 1):
        if any((job | {"pairs": spec["pairs"]}).items() <= run.items() for run in document["runs"]):
            continue
        run = job | measure(spec)
        document["runs"].append(run)
        outcome = run.get("error") or f"{run['seconds']:.2f} s, {run['pairs'] / run['seconds']:.2f} pairs/s"
        title = " ".join(str(job[key]) for key in ("task", "set", "dtype", "contender"))
        print(f"{number}/{len(plan)} {title}, round {job['round']}: {outcome}", file=sys.stderr, flush=True)
        if arguments.out:
            write_json(arguments.out, document)  # each time: what is measured stays, whatever happens to the rest
    print_tables(document)


def parse_arguments() -> argparse.Namespace:
    """The command line, checked."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--model", type=Path, required=True, help="folder of the model and its tokenizer")
    parser.add_argument("--data", type=Path, help=f"folder with {' and '.join(FILES.values())}; without: shared")
    parser.add_argument("--task", choices=CONTENDERS, default="scoring")
    parser.add_argument("--sets", type=names(SETS), help=f"of {', '.join(SETS)}; default: all whose rows are there")
    parser.add_argument(
        "--dtype", type=names(DTYPES), default=["float32"], help=f"of {', '.join(DTYPES)}; default: float32"
    )
    parser.add_argument("--pairs", type=int, help="pairs of every set; default: " + str(PAIRS))
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--contenders", type=names(), help="comma-separated; default: those of the task")
    parser.add_argument("--out", type=Path, help="everything measured, as JSON; what stands there is kept")
    arguments = parser.parse_args()
    arguments.sets = arguments.sets or (list(SETS) if arguments.data else ["shared"])
    check(parser, arguments)
    return arguments


def names(known: Any = None) -> Any:
    """A parser of comma-separated names."""

    def parse(text: str) -> list[str]:
        found = text.split(",")
        if unknown := [name for name in found if known is not None and name not in known]:
            raise argparse.ArgumentTypeError(f"{unknown[0]} is none of {', '.join(known)}")
        return found

    return parse


def check(parser: argparse.ArgumentParser, arguments: argparse.Namespace) -> None:
    """End the program with one sentence where something is missing."""
    if not (arguments.model / "config.json").is_file():
        parser.error("--model has to name a folder with a model")
    files = [FILES[name] for name in arguments.sets if name in FILES]
    if missing := [file for file in files if arguments.data is None or not (arguments.data / file).is_file()]:
        parser.error(f"{missing[0]} is not in the folder that --data names; without it: --sets shared")
    for name in arguments.contenders or []:
        if not NAMES[arguments.task].fullmatch(name):
            parser.error(f"{name} is no contender in {arguments.task}; the head of this script says what is")
        if name.endswith("bf16weights") and "float32" in arguments.dtype:
            parser.error(f"{name} is for --dtype bfloat16 alone")
    if arguments.pairs is not None and arguments.pairs < 2:
        parser.error("--pairs has to be 2 or more: two warm up")
    if not all(name.startswith("ours") for name in arguments.contenders or ["trl"]) and find_spec("trl") is None:
        parser.error("TRL is not installed: pip install -e '.[bench]', or --contenders ours")


def jobs(arguments: argparse.Namespace, rows: str, dtype: str) -> list[tuple[dict[str, Any], dict[str, Any]]]:
    """What to measure for one set and dtype, contenders taking turns: labels, and what workloads.py is told."""
    contenders = arguments.contenders or default_contenders(arguments.task, dtype)
    spec = {
        "model": str(arguments.model),
        "file": str(arguments.data / FILES[rows]) if rows in FILES else None,
        "task": arguments.task,
        "dtype": dtype,
        "pairs": arguments.pairs or PAIRS[arguments.task][rows],
    }
    return [
        (
            {"task": arguments.task, "set": rows, "dtype": dtype, "contender": contender, "round": turn},
            spec | contender_settings(contender, arguments.task, dtype),
        )
        for turn in range(1, arguments.rounds + 1)
        for contender in contenders
    ]


def default_contenders(task: str, dtype: str) -> list[str]:
    """In bf16 TRL takes part with either kind of weights."""
    ways = CONTENDERS[task]
    return ways if dtype == "float32" else ways + [f"{way}-bf16weights" for way in ways if way.startswith("trl")]


def contender_settings(contender: str, task: str, dtype: str) -> dict[str, Any]:
    """How TRL is configured where that is not its default."""
    parts = contender.split("-")
    if parts[0] == "ours":
        return {"pack_tokens": int(parts[1])} if parts[1:] else {}
    trl: dict[str, Any] = {"bf16": False} if dtype == "float32" else {}
    if "bf16weights" in parts:
        trl["model_init_kwargs"] = {"dtype": "bfloat16"}
    if "best" in parts:
        # Its own choice of columns drops the one with the lengths before the sampler sees it.
        grouped = {"train_sampling_strategy": "group_by_length", "remove_unused_columns": False}
        trl |= {"gradient_checkpointing": False, "per_device_train_batch_size": 4, **grouped}
    size = "precompute_ref_batch_size" if task == "scoring" else "per_device_train_batch_size"
    for part in parts:
        if part.startswith("bs"):
            trl[size] = int(part.removeprefix("bs"))
    return {"trl": trl, "sort": "sorted" in parts}


def measure(spec: dict[str, Any]) -> dict[str, Any]:
    """One measurement, or why there is none."""
    command = [sys.executable, str(WORKLOADS), json.dumps(spec)]
    child = subprocess.run(command, capture_output=True, text=True, check=False, env=os.environ | QUIET)
    if child.returncode == 0:
        report: dict[str, Any] = json.loads(child.stdout.splitlines()[-1])
        return report
    print(child.stderr, file=sys.stderr)
    return {"error": f"failed with exit code {child.returncode}"}


def machine() -> dict[str, Any]:
    """What the figures are of; versions and threads stand with each measurement."""
    cpuinfo = Path("/proc/cpuinfo")
    found = re.search(r"model name\s*: (.*)", cpuinfo.read_text()) if cpuinfo.is_file() else None
    return {
        "cpu": found[1] if found else "unknown",
        "cpus": os.cpu_count(),
        "load_at_start": [round(load, 2) for load in os.getloadavg()],
    }


if __name__ == "__main__":
    main()
